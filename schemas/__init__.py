"""Contracts: CQL migrations, event schemas, table definitions."""
