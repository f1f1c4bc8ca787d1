"""Thin kopf handlers, one module for each kind."""
