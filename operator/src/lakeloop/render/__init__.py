"""Manifests: pure functions, one module for each child resource."""
