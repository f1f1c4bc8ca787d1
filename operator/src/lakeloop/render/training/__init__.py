"""Manifests of a TrainingJob's children."""
