"""Derives a caller's response from cluster objects: status, reason, URL, advice. Pure."""
