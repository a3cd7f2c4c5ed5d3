"""The replicated state machine of the control plane, for `denizen.raft`.

It has no clock, no randomness and no I/O. A command either applies, or is refused with a code and leaves everything as
it is; nothing raises, but for a command of a format that this release does not know. What it answers are the bytes of
a `Reply`.
"""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from denizen.control import commands, move_rules, rebalance_rules, shard_rules
from denizen.control.commands import (
    Accepted,
    Command,
    Refusal,
    Reply,
    StageCommand,
    TakeOver,
    decode_command,
    encode_reply,
)
from denizen.control.refusing import Refuse
from denizen.control.state import ControlState, decode_state, encode_state

Rule = Callable[[ControlState, Any], ControlState]

_RULES: dict[type[Command], Rule] = {
    commands.Founded: shard_rules.founded,
    commands.JoinNode: shard_rules.join_node,
    commands.AddShard: shard_rules.add_shard,
    commands.ShardReady: shard_rules.shard_ready,
    commands.SetWeight: shard_rules.set_weight,
    commands.DrainShard: shard_rules.drain_shard,
    commands.KeepShard: shard_rules.keep_shard,
    commands.RemoveShard: shard_rules.remove_shard,
    commands.ChangeSettings: shard_rules.change_settings,
    commands.StartRebalance: rebalance_rules.start_rebalance,
    commands.PauseRebalance: rebalance_rules.pause_rebalance,
    commands.ResumeRebalance: rebalance_rules.resume_rebalance,
    commands.CancelRebalance: rebalance_rules.cancel_rebalance,
    commands.CancelMove: move_rules.cancel_move,
    commands.HastenClean: move_rules.hasten_clean,
    commands.TakeOver: move_rules.take_over,
    commands.BeginMove: move_rules.begin_move,
    commands.SkipMove: move_rules.skip_move,
}


def decide(state: ControlState, command: Command) -> tuple[ControlState, Reply]:
    """The state after a command, and the answer. The state is the very same object if nothing changed."""
    rule: Rule = move_rules.advance if isinstance(command, StageCommand) else _RULES[type(command)]
    try:
        after = rule(state, command)
    except Refuse as refusal:
        return state, Refusal(refusal.code, refusal.detail)
    if after is not state:
        after = rebalance_rules.finished_rebalance_is_done(after, command.at_ms)
        after = shard_rules.empty_shards_are_drained(after, command.at_ms)
        after = replace(after, revision=state.revision + 1)
    number = after.executor.number if isinstance(command, TakeOver) and after.executor is not None else None
    return after, Accepted(after.revision, after is not state, number)


class ControlMachine:
    """Holds the state of one node. `changed` is called after every change, on the event loop's thread."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.state = ControlState()
        self._changed = changed

    def apply(self, index: int, command: bytes) -> bytes:
        """Carry out a committed command; the bytes of its `Reply`."""
        before = self.state
        self.state, reply = decide(before, decode_command(command))
        if self.state is not before:
            self._changed()
        return encode_reply(reply)

    def snapshot(self) -> bytes:
        """The whole state."""
        return encode_state(self.state)

    def restore(self, snapshot: bytes) -> None:
        """Become the state of `snapshot`."""
        self.state = decode_state(snapshot)
        self._changed()
