"""Moves under the simulation of the consensus: the real state machine, planner, stages and executor, over a model of
the shards' databases, with writers whose maps are old, and checkers that watch every transaction.

`MovesSimulation(seed).run()` plays one history; `python -m denizen.control.sim --seeds A-B` plays many. A seed replays
bit for bit.
"""

from denizen.control.sim.simulation import MovesReport, MovesSimulation

__all__ = ["MovesReport", "MovesSimulation"]
