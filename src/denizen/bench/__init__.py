"""Benchmarks that anyone can start: ours and others on the same machine in one run, as ratios."""
