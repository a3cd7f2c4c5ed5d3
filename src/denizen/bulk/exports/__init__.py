"""Export: all users of a deployment to a file, in the order of their ids' buckets, from one snapshot of each shard."""
