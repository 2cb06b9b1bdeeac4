"""The gateway: real callers, real servers as sandboxes, and Pods in memory. Needs no kubectl."""
