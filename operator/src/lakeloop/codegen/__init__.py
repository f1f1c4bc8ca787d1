"""Types → CRDs, RBAC and the API reference: `python -m lakeloop.codegen`, with `--check` for what is out of date."""
