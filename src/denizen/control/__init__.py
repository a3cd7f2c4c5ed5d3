"""The control plane: one replicated record of nodes, shards, the bucket map and the moves, and the loop that carries
moves out.

Pure: `state`, `plan`, `commands`, `machine`, `stages`, `planner`, `balance`. At the edge: `executor`, over `ports`.
"""
