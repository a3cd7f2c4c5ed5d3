"""Benchmarks of the read side: see run.py."""
