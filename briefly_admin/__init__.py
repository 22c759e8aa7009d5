"""Briefly Admin: checks, backs up, migrates, verifies and rolls back PostgreSQL data."""

__version__ = "0.1.0"
