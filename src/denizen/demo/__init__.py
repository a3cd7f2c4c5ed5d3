"""The narrated tour of `make demo`: the product used as a newcomer would, and its invariants checked on the way."""
