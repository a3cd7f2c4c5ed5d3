"""Tests of hashing, ids and the map."""
