"""PostgreSQL servers of our own: find the programs, make data directories, run servers, migrate databases.

Denizen starts and stops its servers itself, as direct children of the process that needs them, so that a deployment on
one machine is one tree of processes and nothing of it outlives its root. A shard may also be somebody else's server,
named by a DSN: then only `migrations` is used.
"""
