"""Where a user lives: hashing to buckets, ids that carry their bucket, and the map from buckets to shards."""
