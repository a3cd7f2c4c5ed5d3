"""A node's directory: whose it is, that one process uses it, and which disks its peers had.

`node.json` names cluster, node and incarnation. It is written once, after the log was begun, so a directory that has
it and no log lost it; one without it is new. `peers.json` keeps the incarnations of the peers met so far: a peer that
comes back with another one lost its disk, and with it its votes, so it may not go on under its old id.
"""

import fcntl
import os
import secrets
from pathlib import Path
from typing import Any

import msgspec

from denizen.raft.errors import WrongDirectory
from denizen.raft.wal.files import Disk

_FORMAT = 1


class _Identity(msgspec.Struct, frozen=True):
    format: int
    cluster: str
    node: int
    incarnation: str
    founders: list[int]


class Home:
    """The directory of one running node. `open` takes its lock, `close` gives it back."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.snapshots = directory / "snapshots"
        self.incarnation = ""
        self.founders: list[int] = []
        """The voters that this node was founded with; empty when it joined a running cluster."""
        self.new = False
        """Whether no node ever ran here; `found` ends that."""
        self._disk = disk
        self._lock = -1
        self._peers: dict[int, str] = {}

    def open(self, cluster: str, node: int) -> None:
        """Lock the directory and check that it is this node's, or new. Raises `WrongDirectory`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise WrongDirectory(f"{self.directory} is in use by another process: stop that node first") from error
        try:
            self._identify(cluster, node)
        except BaseException:
            self.close()
            raise

    def found(self, cluster: str, node: int, founders: list[int]) -> None:
        """Make a new directory this node's, for good."""
        self.incarnation, self.founders, self.new = secrets.token_hex(16), founders, False
        identity = _Identity(_FORMAT, cluster, node, self.incarnation, founders)
        self._write(self.directory / "node.json", identity)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def accepts(self, node: int, incarnation: str) -> str | None:
        """Why a peer with this incarnation is refused, or None; a peer met for the first time is remembered."""
        known = self._peers.get(node)
        if known is None:
            self._peers[node] = incarnation
            self._write(self.directory / "peers.json", self._peers)
        elif known != incarnation:
            return (
                f"node {node} came back with another disk, so it forgot its votes. Remove it from the cluster and "
                "add it under a new id"
            )
        return None

    def _identify(self, cluster: str, node: int) -> None:
        path = self.directory / "node.json"
        self.new = not path.exists()
        if self.new:
            return
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_Identity)
            peers = self.directory / "peers.json"
            if peers.exists():
                self._peers = msgspec.json.decode(peers.read_bytes(), type=dict[int, str])
        except msgspec.MsgspecError as error:
            raise WrongDirectory(f"{path} or peers.json beside it is damaged: restore it from a copy") from error
        if found.format != _FORMAT:
            raise WrongDirectory(f"{path} has format {found.format}, this version reads {_FORMAT}")
        if (found.cluster, found.node) != (cluster, node):
            raise WrongDirectory(
                f"{self.directory} belongs to node {found.node} of cluster {found.cluster!r}, "
                f"not to node {node} of {cluster!r}"
            )
        self.incarnation, self.founders = found.incarnation, found.founders

    def _write(self, path: Path, value: Any) -> None:
        self._disk.write_file(path, [msgspec.json.encode(value)])
