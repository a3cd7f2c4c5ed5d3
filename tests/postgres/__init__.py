"""Tests of PostgreSQL servers of our own, and of migrations."""
