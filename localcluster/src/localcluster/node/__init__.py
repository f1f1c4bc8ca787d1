"""One real Kubernetes node in namespaces of its own: what it is made of, and how it comes and goes."""
