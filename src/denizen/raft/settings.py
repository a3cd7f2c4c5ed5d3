"""What a node can be told: times, sizes, how peers prove who they are. The defaults are right for one data centre."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from denizen.raft import limits
from denizen.raft.errors import BadSettings


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS between nodes with client certificates: both contexts must load this node's chain and verify the peer's."""

    server: ssl.SSLContext
    client: ssl.SSLContext

    @classmethod
    def from_files(cls, certificate: str, key: str, authority: str) -> "Tls":
        """Contexts from PEM files: this node's certificate and key, and the authority that signed every node's.

        Raises `BadSettings` naming the file that cannot be used.
        """
        for name, path in (("certificate", certificate), ("key", key), ("authority", authority)):
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise BadSettings(f"`tls.{name}` cannot be read: {error}") from None
        try:
            server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
            client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authority)
        except ssl.SSLError as error:
            raise BadSettings(f"`tls.authority`: {authority} holds no PEM certificate ({error})") from None
        server.verify_mode = ssl.CERT_REQUIRED
        client.check_hostname = False  # nodes are known by the handshake's ids, not by host names
        try:
            for context in (server, client):
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            raise BadSettings(
                f"`tls.certificate` and `tls.key`: {certificate} and {key} are no PEM certificate and its key ({error})"
            ) from None
        return cls(server, client)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one node.

    `secret` is shared by the cluster's nodes; each proves that it knows it, without sending it, on every connection.
    With `tls` the secret may be left out: certificates prove it then. One of the two is required.
    Times are in milliseconds where they end in `_ms`, in seconds where they end in `_s`. A follower that hears nothing
    from a leader for `election_ms` to twice that (drawn anew each time) asks for votes.
    """

    secret: bytes = field(default=b"", repr=False)
    tls: Tls | None = field(default=None, repr=False)
    cluster: str = "raft"
    tick_ms: int = limits.tick_ms
    election_ms: int = limits.election_ms
    heartbeat_ms: int = limits.heartbeat_ms
    propose_s: float = limits.propose_s
    lease_reads: bool = False
    lease_margin_ms: int = limits.lease_margin_ms
    command_bytes_max: int = limits.command_bytes_max
    proposals_waiting_max: int = limits.proposals_waiting_max
    segment_bytes: int = limits.segment_bytes
    snapshot_entries: int = 50_000
    snapshot_bytes: int = 64 << 20
    """A snapshot is made after this many entries or bytes of them, whichever comes first."""
    snapshot_trailing_entries: int = 5_000
    snapshot_trailing_bytes: int = 32 << 20
    """How much of the log before a snapshot is kept at most, for nodes a little behind."""
    unsafe_no_fsync: bool = False

    def check(self) -> None:
        """Raise `BadSettings` for what cannot work."""
        if not self.secret and self.tls is None:
            raise BadSettings("nodes must prove who they are: set `secret` (the same on every node) or `tls`")
        if self.secret and len(self.secret) < limits.secret_bytes_min:
            raise BadSettings(f"`secret` must have at least {limits.secret_bytes_min} bytes")
        if self.tick_ms < limits.tick_ms_min:
            raise BadSettings(f"`tick_ms` must be at least {limits.tick_ms_min}")
        if not (self.tick_ms * 4 <= self.heartbeat_ms and self.heartbeat_ms * 3 <= self.election_ms):
            raise BadSettings("times must satisfy 4 * tick_ms <= heartbeat_ms and 3 * heartbeat_ms <= election_ms")
        if self.segment_bytes < limits.segment_bytes_min:
            raise BadSettings(f"`segment_bytes` must be at least {limits.segment_bytes_min}")
        if self.snapshot_entries < 1 or self.snapshot_bytes < 1 or self.snapshot_trailing_entries < 0:
            raise BadSettings(
                "`snapshot_entries` and `snapshot_bytes` must be at least 1, `snapshot_trailing_entries` at least 0"
            )
        if not 0 < self.command_bytes_max <= limits.step_bytes_max:
            raise BadSettings(f"`command_bytes_max` must be between 1 and {limits.step_bytes_max}")
