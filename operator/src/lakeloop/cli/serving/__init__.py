"""Served models at the command line: how a roll-out goes, what is asked of it, and what a model answers."""
