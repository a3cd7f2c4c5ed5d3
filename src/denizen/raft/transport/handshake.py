"""Two nodes prove to each other who they are before anything else is said.

    connector                                     acceptor
    Hello(version, cluster, ids, nonce)      ->
                                             <-   Challenge(version, id, nonce) or Refusal(reason)
    Proof(HMAC of both, "connector")         ->
                                             <-   Proof(HMAC of both, "acceptor") or Refusal(reason)

The proofs are HMAC-SHA-256 under the cluster's secret over the whole Hello and Challenge, so a proof is good for one
connection between two ids only and the secret is never sent. Both sides then derive the keys of the frames' tags from
it. With TLS the certificates prove membership and the secret, if any, still has to be right.

An `incarnation` is a random number that a node draws with its empty directory. A node remembers its peers' and refuses
one that comes back with another: its disk was wiped, so it forgot its votes, and must join as a new member.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_bytes
from typing import Any

import msgspec

from denizen.raft.errors import PeerRefused
from denizen.raft.transport.channel import Channel

VERSION = 1
_NONCE_BYTES = 32
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Local:
    """Who this node is on the wire."""

    cluster: str
    node: int
    incarnation: str
    secret: bytes
    address: str = ""
    """Where this node listens, told to peers that do not know it yet."""
    accepts: Callable[[int, str], str | None] = lambda node, incarnation: None
    """Why a node with this incarnation is refused, or None."""


@dataclass(frozen=True, slots=True)
class Remote:
    """Who the peer proved to be."""

    node: int
    incarnation: str
    address: str


async def connect(channel: Channel, local: Local, peer: int) -> Remote:
    """The connector's side. Raises `PeerRefused` with the reason of whoever refused."""
    nonce = token_bytes(_NONCE_BYTES)
    hello = _encode(
        {
            "version": VERSION,
            "cluster": local.cluster,
            "from": local.node,
            "to": peer,
            "incarnation": local.incarnation,
            "address": local.address,
            "nonce": nonce,
        }
    )
    channel.send(hello)
    challenge = await channel.receive()
    fields = _fields(challenge)
    if _integer(fields, "version") != VERSION:
        raise PeerRefused(f"node {peer} speaks version {fields['version']} of the protocol, this node {VERSION}")
    if _integer(fields, "node") != peer or len(_bytes(fields, "nonce")) != _NONCE_BYTES:
        raise PeerRefused(f"the node at the address of node {peer} says that it is node {fields['node']}")
    transcript = hello + challenge
    channel.send(_encode({"proof": _proof(local.secret, "connector", transcript)}))
    answer = _fields(await channel.receive())
    if not hmac.compare_digest(_bytes(answer, "proof"), _proof(local.secret, "acceptor", transcript)):
        raise PeerRefused(f"node {peer} does not know the cluster's secret")
    remote = Remote(peer, _text(fields, "incarnation"), "")
    _check_incarnation(local, remote)
    channel.seal(_proof(local.secret, "to acceptor", transcript), _proof(local.secret, "to connector", transcript))
    return remote


async def accept(channel: Channel, local: Local) -> Remote:
    """The acceptor's side: tells the peer why it is refused, then raises `PeerRefused`."""
    try:
        return await _accept(channel, local)
    except PeerRefused as error:
        channel.send(_encode({"refused": str(error)}))
        raise


async def _accept(channel: Channel, local: Local) -> Remote:
    hello = await channel.receive()
    fields = _fields(hello)
    if _integer(fields, "version") != VERSION:
        raise PeerRefused(f"node {local.node} speaks version {VERSION} of the protocol, the peer {fields['version']}")
    if _text(fields, "cluster") != local.cluster:
        raise PeerRefused(f"node {local.node} is of cluster {local.cluster!r}, the peer of {fields['cluster']!r}")
    if _integer(fields, "to") != local.node:
        raise PeerRefused(f"this is node {local.node}, the peer wants node {fields['to']}")
    if len(_bytes(fields, "nonce")) != _NONCE_BYTES:
        raise PeerRefused("the nonce is too short")
    remote = Remote(_integer(fields, "from"), _text(fields, "incarnation"), _text(fields, "address"))
    challenge = _encode(
        {
            "version": VERSION,
            "node": local.node,
            "incarnation": local.incarnation,
            "nonce": token_bytes(_NONCE_BYTES),
        }
    )
    channel.send(challenge)
    transcript = hello + challenge
    answer = _fields(await channel.receive())
    if not hmac.compare_digest(_bytes(answer, "proof"), _proof(local.secret, "connector", transcript)):
        raise PeerRefused(f"node {remote.node} does not know the cluster's secret")
    _check_incarnation(local, remote)
    channel.send(_encode({"proof": _proof(local.secret, "acceptor", transcript)}))
    channel.seal(_proof(local.secret, "to connector", transcript), _proof(local.secret, "to acceptor", transcript))
    return remote


def _check_incarnation(local: Local, remote: Remote) -> None:
    reason = local.accepts(remote.node, remote.incarnation)
    if reason is not None:
        raise PeerRefused(reason)


def _proof(secret: bytes, side: str, transcript: bytes) -> bytes:
    return hmac.digest(secret, side.encode() + b"\x00" + transcript, "sha256")


def _fields(frame: bytes) -> dict[str, Any]:
    try:
        fields = _decode(frame)
    except msgspec.DecodeError as error:
        raise PeerRefused("the peer does not speak this protocol") from error
    if "refused" in fields:
        raise PeerRefused(f"refused by the peer: {fields['refused']}")
    return fields


def _field(fields: dict[str, Any], name: str, kind: type) -> Any:
    value = fields.get(name)
    if not isinstance(value, kind):
        raise PeerRefused(f"the peer's handshake lacks {name!r}")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    return str(_field(fields, name, str))


def _bytes(fields: dict[str, Any], name: str) -> bytes:
    return bytes(_field(fields, name, bytes))


def _integer(fields: dict[str, Any], name: str) -> int:
    return int(_field(fields, name, int))
