"""Trainings at the command line: runs, logs, models, and where they come from."""
