"""kubectl, well kept: the only package that starts a process."""
