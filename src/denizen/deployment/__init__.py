"""A deployment on this machine: its configuration, its data directory, and the process that runs it.

`layout.Deployment` is what every other process loads to learn where the shards are; `supervisor.Supervisor` is the one
process that owns the servers.
"""
