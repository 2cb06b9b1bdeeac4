"""devcluster's own tests: the stand-in, held against what a real API server was recorded to answer."""
