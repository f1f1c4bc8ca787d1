"""The kubectl plugin, `kubectl lakeloop`."""
