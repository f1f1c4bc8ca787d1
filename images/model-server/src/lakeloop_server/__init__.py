"""Serves one version of one registered MLflow model: fetched, verified, warm, over HTTP."""

VERSION = "0.1.0"
