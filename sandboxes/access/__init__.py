"""How callers reach a sandbox: its objects, when it is whole, and its URL."""
