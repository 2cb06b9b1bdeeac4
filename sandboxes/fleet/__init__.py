"""Several clusters: which cluster a sandbox is on, and how replicas agree on it. Starts no process."""
