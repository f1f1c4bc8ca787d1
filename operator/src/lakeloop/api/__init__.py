"""The two resources as types."""
