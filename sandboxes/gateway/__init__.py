"""The proxy in front of the sandboxes: one address, and a capability in each URL."""
