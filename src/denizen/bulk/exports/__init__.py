"""All users to a file, streamed from every shard."""
