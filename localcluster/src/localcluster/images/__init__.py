"""Builds the images of ``images/`` by their ordinary Dockerfiles and puts them into the node."""
