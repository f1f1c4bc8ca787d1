"""Builds the images of ``images/`` by their ordinary Dockerfiles, with buildah or Docker, and puts them into the node."""
