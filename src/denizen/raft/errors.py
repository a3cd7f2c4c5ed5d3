"""The errors of the Raft library: a small closed tree, each saying what to do.

Every error has a stable `code`, says whether the same call may succeed later (`retryable`), and carries its facts.
`OutcomeUnknown` is the only one after which a command may have been applied; after every other one raised by `propose`
it was not and never will be. The library stands alone: nothing here depends on the rest of Denizen.
"""

from collections.abc import Mapping
from typing import Any


class RaftError(Exception):
    """Base of every error of the library. `facts` are plain values for logs and JSON."""

    code: str = "raft_error"
    retryable: bool = False

    def __init__(self, detail: str = "", /, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts: Mapping[str, Any] = facts


class NoLeader(RaftError):
    """No leader is known, or it does not answer; nothing was proposed. Try again after an election (about a second)."""

    code, retryable = "no_leader", True


class NotMember(RaftError):
    """This node is not a member of the cluster, or the named node is not. Add it first with `add_learner`."""

    code = "not_member"


class Overloaded(RaftError):
    """A bounded queue is full; nothing was proposed. Back off and try again."""

    code, retryable = "overloaded", True


class TooLarge(RaftError):
    """The command is larger than the settings allow; nothing was proposed. Split it or raise `command_bytes_max`."""

    code = "too_large"


class OutcomeUnknown(RaftError):
    """The command may or may not be applied, now or later. Repeat it with the same session request to learn which."""

    code, retryable = "outcome_unknown", True


class SessionExpired(RaftError):
    """The cluster no longer knows this session: it cannot tell whether an earlier try was applied. Open a new one."""

    code = "session_expired"


class ChangeRefused(RaftError):
    """The membership change or transfer is not possible now; nothing was changed. The detail says why and when."""

    code, retryable = "change_refused", True


class CommandFailed(RaftError):
    """The state machine refused the command by raising an error; the same on every node. `detail` is its message."""

    code = "command_failed"


class Stopped(RaftError):
    """This node was stopped, or stopped itself because of `facts["cause"]`. Start it again, or use another node."""

    code = "stopped"


class DiskFailed(RaftError):
    """A write or fsync failed, so what is on the disk is not known; the node stopped without acknowledging it.

    Free space or replace the disk, then start the node again: it reads back what is really there.
    """

    code = "disk_failed"


class LogDamaged(RaftError):
    """Something that was durable is gone or changed, so this node could break a promise it made (a vote, an entry).

    It refuses to start. Remove the member and add a new one under a new id with an empty directory; the cluster sends
    it everything. Only a copy of the whole directory that was made after the node had stopped for the last time may
    be put back: an older one has forgotten votes and entries too.
    """

    code = "log_damaged"
    remedy = (
        "Do not put back an older copy: it lacks votes and entries that this node answered for, and what was "
        "acknowledged could be lost. Instead remove this member from the cluster, empty its directory and add it under "
        "a new id; only a copy of the whole directory, made after the node had stopped for the last time, would do."
    )


class WrongDirectory(RaftError):
    """The directory belongs to another node, another cluster or a running process, or holds a file of somebody else.

    Use the node's own directory, and keep nothing else in it.
    """

    code = "wrong_directory"


class BadSettings(RaftError):
    """The settings cannot work; the message names the field and what to change."""

    code = "bad_settings"


class PeerRefused(RaftError):
    """A peer could not prove who it is, or speaks another version; its connection was closed."""

    code = "peer_refused"
