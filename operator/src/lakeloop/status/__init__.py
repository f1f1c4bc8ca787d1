"""Conditions and summaries: pure functions."""
