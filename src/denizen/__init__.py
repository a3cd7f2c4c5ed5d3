"""Denizen: the place where an application's users live.

A sharded, multi-region, event-sourced user service on plain PostgreSQL, run by a consensus group of its own.
Packages are named by the nouns of the design; imports run one way, from the edge (`cli`, `http`) to the core
(`users`, `raft`). See `docs/architecture.md`.
"""

__version__ = "0.1.0"
