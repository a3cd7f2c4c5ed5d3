"""Connections between nodes: framed, authenticated on both sides, bounded."""

from denizen.raft.transport.handshake import Local
from denizen.raft.transport.transport import Transport

__all__ = ["Local", "Transport"]
