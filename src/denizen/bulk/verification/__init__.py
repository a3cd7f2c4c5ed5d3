"""Verify: fold every event of a deployment and compare with everything that is kept beside the events.

    parent: one snapshot a shard → tasks of some buckets → worker processes → what depends on two shards, once more

A bucket is checked wholly from its own events; only the other half of a login name in another bucket needs a second
look-up. See DESIGN.md beside this package's parent.
"""
