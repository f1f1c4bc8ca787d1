"""Lakeloop: a Kubernetes operator that closes the loop between Delta Lake and MLflow."""
