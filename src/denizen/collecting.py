"""The garbage collector of a process that serves for long looks seldom, and never at what was loaded at the start."""

import gc

from denizen import limits


def calm_the_collector() -> None:
    """What was loaded by now lives as long as the process: the garbage collector need not walk it again and again.

    Requests and events leave few cycles, so it may also run less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(limits.gc_allocations, 20, 20)
