"""Objects as the cluster has them → what a caller is told. Pure."""
