"""The operations on sandboxes, independent of HTTP."""
