"""Tests of the user service over real shards."""
