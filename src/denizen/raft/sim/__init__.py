"""A seeded simulation of the real core: virtual time, a hostile network, failing disks, and checkers that watch every
step.

`Simulation(seed).run()` plays one history. Everything in it (delays, faults, clients) is drawn from the seed, so a
seed replays bit for bit. `python -m denizen.raft.sim --seeds A-B` plays many. Any state machine can be put in; see
`machines.py`.
"""

from denizen.raft.sim.options import Options
from denizen.raft.sim.simulation import Report, Simulation
from denizen.raft.sim.violation import Violation

__all__ = ["Options", "Report", "Simulation", "Violation"]
