"""Every limit of the Raft library in one place, the unit last. What a user may choose is in a node's settings."""

# The log on the disk
segment_bytes = 16 << 20
segment_bytes_min = 64 << 10

# Snapshots
snapshots_kept = 2

# Commands waiting at a node
command_bytes_max = 1 << 20
proposals_waiting_max = 16_384
reads_waiting_max = 16_384
step_entries_max = 1_024
step_bytes_max = 2 << 20
apply_slice_entries = 8
apply_slice_ms = 10.0

# Client sessions
sessions_max = 4_096
session_results_max = 1_024

# Transport
frame_bytes_max = 32 << 20
forwarded_bytes_max = 8 << 20
handshake_bytes_max = 4_096
handshake_s = 5.0
connect_s = 2.0
unacknowledged_s = 5.0
peer_queue_bytes_max = 32 << 20
incoming_connections_max = 256
secret_bytes_min = 16
reconnect_ms_min = 20
reconnect_ms_max = 500

# Time
tick_ms = 10
tick_ms_min = 1
election_ms = 150
heartbeat_ms = 40
lease_margin_ms = 30
propose_s = 5.0
