"""devcluster's own tests: they compare the stand-in with recorded responses of a real API server."""
