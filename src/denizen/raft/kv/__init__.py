"""A replicated key-value service in etcd's data model, on Denizen's own Raft."""
