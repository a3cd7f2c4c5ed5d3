"""Tests of the event store: codec, append, lanes, faults."""
