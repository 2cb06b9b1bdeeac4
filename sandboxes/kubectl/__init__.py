"""kubectl: the only package that starts a process."""
