"""Elections: when to stand, whom to vote for (paper, section 5.2 and 5.4.1; thesis, section 9.6 for the pre-vote).

A candidate asks in two rounds. The pre-vote changes nothing anywhere: it only finds out whether the node could win, so
that a node cut off from the others does not raise the term. A granted vote resets the election timer, a denied one
does not.
"""

from denizen.raft import leadership
from denizen.raft.messages import PreVote, PreVoteReply, TimeoutNow, Vote, VoteReply
from denizen.raft.quorum import Outcome, tally
from denizen.raft.roles import become_follower, draw_timeout
from denizen.raft.state import State
from denizen.raft.types import NO_NODE, Role, Term


def timed_out(state: State) -> None:
    """No leader was heard for a whole election time-out."""
    state.contact = state.now
    if not may_campaign(state):
        draw_timeout(state)
    elif state.settings.pre_vote:
        pre_campaign(state)
    else:
        campaign(state)


def may_campaign(state: State) -> bool:
    """Only a voter with an undamaged memory stands for election.

    One whose removal is not committed yet still does: it may be the only one that holds the entry (thesis, section
    4.2.2).
    """
    if state.repair is not None:
        return False
    configurations = state.configurations
    leaving = configurations.current_index > state.commit and state.id in configurations.previous.electors
    return leaving or state.id in configurations.current.electors


def pre_campaign(state: State) -> None:
    """Ask whether a vote could be won."""
    become_follower(state, state.term, NO_NODE)
    state.role = Role.PRE_CANDIDATE
    draw_timeout(state)
    state.votes = {state.id: True}
    log = state.log
    for node in state.configuration.electors:
        if node != state.id:
            state.send(PreVote(node, state.id, Term(state.term + 1), log.last_index, log.last_term))
    count(state)


def campaign(state: State, *, transfer: bool = False) -> None:
    """Begin a new term and ask for votes. The own vote counts once it is durable."""
    become_follower(state, Term(state.term + 1), NO_NODE)
    state.set_hard_state(state.term, state.id)
    state.role = Role.CANDIDATE
    log = state.log
    for node in state.configuration.electors:
        if node != state.id:
            state.send(Vote(node, state.id, state.term, log.last_index, log.last_term, transfer))


def count_own_vote(state: State) -> None:
    """Count the candidate's own vote once it is durable."""
    if not state.hard_dirty and state.hard_number <= state.durable_number and state.id not in state.votes:
        state.votes[state.id] = True
        count(state)


def count(state: State) -> None:
    """Act on the votes given so far."""
    outcome = tally(state.configuration, state.votes)
    if outcome is Outcome.WON:
        if state.role is Role.PRE_CANDIDATE:
            campaign(state)
        else:
            leadership.begin(state)
    elif outcome is Outcome.LOST:
        become_follower(state, state.term, NO_NODE)


def up_to_date(state: State, last_term: Term, last_index: int) -> bool:
    """Whether a log that ends so holds at least everything committed that this one may know of (paper, section
    5.4.1).
    """
    log = state.log
    return last_term > log.last_term or (last_term == log.last_term and last_index >= log.last_index)


def promised(state: State) -> bool:
    """Whether a live leader may rely on this node not helping another candidate yet."""
    return state.settings.check_quorum and (state.leading is not None or state.now < state.promised_until)


def on_pre_vote(state: State, message: PreVote) -> None:
    """Would this node vote so? Nothing is remembered either way."""
    granted = (
        message.term > state.term
        and state.repair is None
        and not promised(state)
        and up_to_date(state, message.last_term, message.last_index)
    )
    state.send(PreVoteReply(message.sender, state.id, message.term if granted else state.term, granted))


def on_pre_vote_reply(state: State, message: PreVoteReply) -> None:
    """One answer to the question whether an election could be won."""
    if state.role is not Role.PRE_CANDIDATE or (message.granted and message.term != state.term + 1):
        return
    state.votes[message.sender] = message.granted
    count(state)


def on_vote(state: State, message: Vote) -> None:
    """Vote once a term, for a log that is up to date."""
    granted = (
        state.vote in (NO_NODE, message.sender)
        and state.leader in (NO_NODE, message.sender)
        and state.repair is None
        and up_to_date(state, message.last_term, message.last_index)
    )
    if granted and state.vote == NO_NODE:
        state.set_hard_state(state.term, message.sender)
        state.contact = state.now
    state.send(VoteReply(message.sender, state.id, state.term, granted))


def on_vote_reply(state: State, message: VoteReply) -> None:
    """One answer to a candidate."""
    if state.role is Role.CANDIDATE:
        state.votes[message.sender] = message.granted
        count(state)


def on_timeout_now(state: State, message: TimeoutNow) -> None:
    """The leader hands over: stand at once, without a pre-vote."""
    if state.leader == message.sender and may_campaign(state):
        state.contact = state.now
        campaign(state, transfer=True)
