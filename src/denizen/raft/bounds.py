"""The bounds of the core's records on the wire and on the disk, the unit last. They check what comes in.

What a user may choose is in the settings; the limits of the runtime around the core are in `limits.py`.
"""

# One entry, one message, one packet
entry_bytes_max = 4 << 20
append_entries_max = 4_096
chunk_bytes_max = 4 << 20
term_runs_max = 128
packet_messages_max = 16_384

# Members and numbers
members_max = 64
digest_bytes_max = 64
number_max = (1 << 63) - 1
