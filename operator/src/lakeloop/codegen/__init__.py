"""From types to CRDs, RBAC, values schema and API reference."""
