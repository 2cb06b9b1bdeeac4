"""The bodies that cross the REST boundary."""
