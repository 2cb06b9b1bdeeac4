"""Access to one cluster: cached reads, writes with retries."""
