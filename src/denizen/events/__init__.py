"""The event store: codec, append in groups over lanes, and reading. The truth of every shard."""
