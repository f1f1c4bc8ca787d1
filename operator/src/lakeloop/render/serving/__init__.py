"""Manifests of a ModelDeployment's children, one file each."""
