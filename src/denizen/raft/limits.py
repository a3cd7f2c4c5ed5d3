"""Every limit of the Raft library in one place, the unit last. These bound the wire and the memory; tunables are in `Settings`."""

# One entry, one message
entry_bytes_max = 4 << 20
append_entries_max = 4_096
append_bytes_max = 8 << 20
chunk_bytes_max = 4 << 20
term_runs_max = 128

# One cluster
members_max = 64

# One node's queues
reads_waiting_max = 65_536
number_max = (1 << 63) - 1
