"""Handing the leadership to a named voter without waiting for a time-out (thesis, section 3.10).

The leader takes no more proposals, waits until the target's log is complete, and tells it to campaign. If nobody took
over within an election time-out, it goes on as before; only its leases are never trusted again in this term, as the
target may still campaign.
"""

from denizen.raft.effects import Refusal
from denizen.raft.events import Transfer
from denizen.raft.messages import TimeoutNow
from denizen.raft.roles import refuse
from denizen.raft.state import FAR_AWAY, Leading, State
from denizen.raft.types import NO_NODE, Millis


def request(state: State, event: Transfer) -> None:
    """Begin a transfer, or refuse it."""
    leading = state.leading
    if leading is None:
        refuse(state, event.key, Refusal.NOT_LEADER)
    elif leading.transfer_to != NO_NODE:
        refuse(state, event.key, Refusal.TRANSFERRING)
    elif event.to == state.id or event.to not in state.configuration.voters:
        refuse(state, event.key, Refusal.NOT_A_VOTER)
    else:
        leading.transfer_key, leading.transfer_to = event.key, event.to
        leading.transfer_deadline = Millis(state.now + 2 * state.settings.election_ms)
        state.wake_at = min(state.wake_at, leading.transfer_deadline)
        leading.lease_broken = True


def advance(state: State, leading: Leading) -> None:
    """Tell the target to campaign as soon as it has everything. Told once: a lost message ends in a time-out."""
    if leading.transfer_to == NO_NODE or leading.transfer_told:
        return
    progress = leading.progress.get(leading.transfer_to)
    if progress is not None and progress.match == state.log.last_index:
        leading.transfer_told = True
        state.send(TimeoutNow(progress.node, state.id, state.term))


def give_up(state: State, leading: Leading) -> None:
    """Nobody took over in time: lead on."""
    if leading.transfer_key is not None:
        refuse(state, leading.transfer_key, Refusal.TIMED_OUT)
    leading.transfer_key, leading.transfer_to, leading.transfer_told = None, NO_NODE, False
    leading.transfer_deadline = FAR_AWAY
