"""One module for each kind: gather, decide, apply, report."""
