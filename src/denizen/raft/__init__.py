"""Raft as a library: replicate a small deterministic state machine over a few nodes, durably.

    from denizen.raft import Node, Settings

A state machine has `apply(index, command)`, `snapshot()` and `restore(snapshot)`; see `docs/consensus.md` for a
replicated counter in thirty lines. The core (`denizen.raft.core`) does no I/O and can be driven by something else than
`Node`.
"""

from denizen.raft.errors import (
    BadSettings,
    ChangeRefused,
    CommandFailed,
    DiskFailed,
    LogDamaged,
    NoLeader,
    NotMember,
    OutcomeUnknown,
    Overloaded,
    PeerRefused,
    RaftError,
    SessionExpired,
    Stopped,
    TooLarge,
    WrongDirectory,
)
from denizen.raft.machine import StateMachine
from denizen.raft.node import Node
from denizen.raft.runtime.envelope import SessionRequest
from denizen.raft.runtime.metrics import Status
from denizen.raft.runtime.sessions import Session
from denizen.raft.settings import Settings, Tls
from denizen.raft.types import Configuration

__all__ = [
    "BadSettings",
    "ChangeRefused",
    "CommandFailed",
    "Configuration",
    "DiskFailed",
    "LogDamaged",
    "NoLeader",
    "Node",
    "NotMember",
    "OutcomeUnknown",
    "Overloaded",
    "PeerRefused",
    "RaftError",
    "Session",
    "SessionExpired",
    "SessionRequest",
    "Settings",
    "StateMachine",
    "Status",
    "Stopped",
    "Tls",
    "TooLarge",
    "WrongDirectory",
]
