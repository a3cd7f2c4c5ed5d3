"""Replay: a new version of a read model, made from all events beside the live one.

    plan → run (load by parts, in parallel → indexes) → the projector catches up → verify → promote (→ rollback)

All that is known about a replay is in the read database, so every step can be killed and goes on with the next `run`.
"""
