"""Bulk work on real deployments: import, export, verify."""
