"""A real one-node Kubernetes, or only its API server, on a machine without Docker."""

__version__ = "0.1.0"
