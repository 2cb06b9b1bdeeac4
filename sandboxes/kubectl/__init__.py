"""Runs kubectl; the only package that starts processes."""
