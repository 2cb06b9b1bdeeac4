"""Builds Kubernetes objects: (request, template, settings) → manifests. Pure."""
