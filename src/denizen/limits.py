"""Every limit in one place, the unit last. A queue, body, page or retry without a limit here is a defect."""

# HTTP
body_bytes_max = 1 << 20
batch_body_bytes_max = 8 << 20
batch_users_max = 1_000
page_users_default = 100
page_users_max = 1_000
page_events_max = 1_000
idempotency_key_chars_max = 255
gc_allocations = 20_000  # between two looks of the garbage collector at young objects

# Users
email_chars_max = 254
username_chars_max = 64
name_part_chars_max = 200
display_name_chars_max = 200
locale_chars_max = 35
picture_url_chars_max = 2_048
attributes_bytes_max = 16_384
attributes_depth_max = 8
password_chars_min = 8
password_chars_max = 1_024
reason_chars_max = 500

# Event store
append_group_commands_max = 256  # commands of one transaction
append_queue_commands_max = 10_000  # waiting, per lane; more are refused
lane_postponed_max = 1_000  # requests looked past, for they share a key with one before them, to fill a group
append_deadline_s = 15.0  # how long a lane tries to learn the outcome of what it sent
statement_timeout_ms = 10_000
lock_timeout_ms = 2_000
read_group_keys_max = 512  # look-ups of one query
read_queue_keys_max = 20_000
read_deadline_s = 5.0
lanes_per_shard = 1  # more only where a commit waits for another region: a fuller group beats a second lane
reader_connections_per_shard = 4
close_deadline_s = 3.0
reconnect_pause_min_s = 0.02
reconnect_pause_max_s = 1.0

# The gateway
connections_max = 4_096  # beyond it, connections wait in the listen queue
uri_chars_max = 16_384  # a cursor of the feed of changes takes up to 10,000
header_bytes_max = (
    32_768  # of header fields; more than twice this in one head, or one line of it, is refused without a problem
)
header_fields_max = 100
header_read_ms = 10_000  # from the connection's beginning, or its last answer, to the end of a head
connections_look_s = 1.0  # between two looks at connections that take too long
pipelined_requests_max = 8  # parsed ahead of the one that is answered
body_buffer_bytes_max = 65_536  # of a body that nobody reads yet
linger_s = 1.0  # what a client still sends after a refusal is thrown away for so long, so that it sees the refusal
body_read_s = 15.0
drain_s = 10.0
request_id_chars_max = 128
rate_buckets_max = 10_000
recent_idempotency_keys_max = 50_000
password_jobs_max = 64  # hashes and verifications under way or waiting; more are shed with 429
batch_passwords_max = 100  # plain passwords in one batch: each costs as much as a thousand registrations
access_log_lines_max = 10_000  # waiting to be written
access_log_flush_ms = 200

# Routing
fence_hold_s = 5.0  # how long a write waits for a fenced bucket
fence_poll_s = 0.01
fence_poll_max_s = 0.1
held_requests_max = 20_000  # of one gateway, waiting for buckets that move
hold_look_s_min = 0.02  # between two looks at the shards, for buckets that are waited for
hold_look_s_max = 0.25
map_retry_s = 1.0
list_settle_s = 5.0  # how long a list waits until it is told who serves each bucket
list_retry_s = 0.02
snapshots_settle_s = 15.0  # the same for snapshots of all shards
map_lag_s = 3.0  # how long a write waits for the map to say where its bucket went

# Service
optimistic_attempts_max = 8
optimistic_pause_s = 0.005  # after a lost race: up to this, times the races lost so far
recent_users_max = 8_192  # as this gateway wrote them, to decide the next command on them without reading them first
recent_users_s_min = 0.05  # a user who changes again and again is read each time: others are to win a race too
recent_users_s = 10.0  # they are personal data: not for longer
name_busy_wait_s = 2.0  # how long a sign-up waits for another change of the same login name
name_busy_poll_s = 0.005
name_busy_poll_max_s = 0.1
sweep_interval_s = 1.0
sweep_grace_s = 5.0  # a change of login names that takes longer is finished or undone by the sweeper
forget_every_sweeps = 600
sweep_names_max = 500  # of one shard in one sweep
sweep_names_at_once_max = 32
forget_rows_max = 5_000  # of one statement
idempotency_kept_h = 24
key_refresh_interval_s = 1.0
key_name_chars_max = 100
key_rate_per_s_max = 1_000_000
api_keys_max = 10_000

# A deployment on one machine
shards_max = 64
initdb_s = 120.0
server_start_s = 60.0
server_recovery_s = 900.0  # after a crash a server first replays its log
server_stop_s = 60.0
server_immediate_stop_s = 10.0
server_log_bytes_max = 32 << 20
migration_lock_s = 120
shard_connect_s = 15.0
gateway_start_s = 30.0
gateway_end_s = 5.0  # after the drain
probe_s = 3.0
restart_delay_s_max = 15.0
child_poll_s = 0.1  # between two looks whether a child process still runs

# Bulk: import, export, verify
bulk_workers_max = 4  # by default; memory is per worker
bulk_start_wait_s = 2.0  # how long a server may be away when a bulk command begins
import_window_lines_max = 16_384  # what is told as done at a time
import_windows_ahead = 4  # a worker has: one in making, and one in each of the three steps
import_window_bytes_max = 8 << 20
import_line_bytes_max = 1 << 20  # a longer line is rejected without being held in memory
import_rounds_lines_max = 32_768  # of all workers together; each has one round in making and three in writing
import_garbage_objects = 200_000  # so many new ones are looked through at a time
import_people_at_a_time = 16  # made between two looks at what the servers answer
import_round_lines_min = 512
import_transaction_events_max = 2_048
import_transaction_events_min = 512
import_transactions_at_once = 2  # of a worker: the fewer, the shorter each holds its locks
import_locks_held_s = 0.1  # online writers wait for the locks of a transaction; slower ones get smaller
import_names_unsettled_s = 4.0  # from reserving to confirming, below `sweep_grace_s`; slower rounds get smaller
import_transaction_timeout_ms = 5_000  # a stopped importer must not hold its locks longer
import_idle_timeout_ms = 2_000
import_shard_wait_s = 60.0  # how long a server may be away before the import stops
import_busy_wait_s = 20.0  # how long a row waits for somebody else's change of its login name
import_busy_poll_s = 0.1
import_updates_at_once = 64
repairs_at_once = 64  # login names that verify mends
export_page_users = 2_000
import_raw_bytes_max = 2_048  # of a rejected row, as it is quoted
bulk_frame_bytes_max = 64 << 20
verify_page_rows = 4_000
verify_task_events = 40_000  # folded in memory at a time, and more if one bucket has more
verify_stuck_s = 60.0  # a change of a login name that is unsettled for longer is a difference
verify_names_at_once = 4_000
verify_differences_max = 10_000  # kept in memory; more are only counted
verify_recheck_s = 5.0  # how long a difference between two shards may take to settle before it is one


# Bus
bus_message_bytes_max = 256 << 10  # of events in one message; NATS takes 1 MB
bus_batch_events_max = 2_000  # read by a relay at a time
bus_bucket_events_max = 500  # of one bucket in one read
bus_restart_events_max = 32  # of each bucket, published again when the stream is found empty
bus_replay_messages_max = 5_000  # read by a relay that resumes
bus_relay_pause_min_s = 0.004  # from one read of a relay to the next, where many gateways hint
bus_relay_pause_event_s = 0.0001  # more for each event that the last read found
bus_relay_pause_max_s = 0.02
bus_heads_interval_s = 0.5  # a relay looks at every bucket, and says how far they are
bus_hint_pause_min_s = 0.006  # between two hints of a gateway, at which all relays read what is new
bus_hint_pause_bucket_s = 0.00025  # more for each bucket in the last one
bus_hint_pause_max_s = 0.05
bus_check_interval_s = 2.0  # a relay without events looks whether the stream is still there
bus_last_hint_s = 0.5  # a gateway that stops
bus_lock_retry_s = 0.5  # a relay that waits for another to end
bus_retry_s_min = 0.1
bus_retry_s_max = 1.0
bus_connect_s = 2.0
bus_request_s = 3.0
bus_query_s = 10.0
bus_duplicate_window_s = 60.0
bus_start_s = 20.0
metrics_pause_s = 5.0  # between two times that relay and projector write their metrics down
metrics_stale_s = 30.0  # after that, who wrote them does not run any more
event_plane_rest = 0.3  # of relay and projector: of the time that they worked; longer rests save nothing more
rush_group_writes = 16  # in the groups of a gateway, on the average, when its writes queue
rush_processors_free = 1.0  # fewer of the machine: what one process uses is taken from others
rush_look_s = 0.1  # between two looks at the processors
rush_begins_s = 0.25  # signs of a rush for so long: it is more than a moment's
rush_settles_s = 0.75  # signs only, for so long: it goes on
rush_over_s = 0.5  # since the last sign
rush_rest_s = 0.5  # of relay and projector between two portions; relays tell heads before and after it
rush_patience_s = 5.0  # for so long they do little at a time; `bus.give_way_s`
rush_batch_events_max = 100  # that little
event_plane_niceness = 10  # of relay and projector: on a full machine, acknowledgements come before read models
bus_stop_s = 10.0
feed_ready_events_max = 20_000  # waiting for the consumer; the feed takes no more meanwhile
feed_parked_events_max = 10_000  # that came before their turn; more are dropped, and read from PostgreSQL
feed_pull_messages_max = 64  # asked from the stream at a time
feed_grace_s = 0.3  # how long a message may be on its way before what it brings is read from PostgreSQL
feed_behind_s = 5.0  # and what its relay says is not published yet, longer than a relay gives way in a rush
feed_tick_s = 0.1
feed_heads_silence_s = 1.5  # without word of a shard's heads, the feed asks PostgreSQL
feed_poll_s = 0.5  # how often it asks then
feed_heal_events_max = 2_000  # of one read
feed_heal_bucket_events_max = 200
feed_heal_buckets_max = 256

# Projections
projector_batch_events_max = 2_000  # of one transaction
projector_rows_remembered_max = 10_000  # of each version of a projection, so that they need not be read again
projector_advances_max = 64  # of each version: batches whose checkpoints are not folded into one row yet
projector_pause_s = 0.01  # from one batch to the next: what comes meanwhile goes together
projector_pause_s_max = 0.05
projector_wait_s = 0.2  # for events, before other duties are looked at
projector_control_s = 0.5  # between two looks at pauses, wishes and new versions
projector_lag_window_s = 60.0  # how late events became visible, and how many are missing, is told of no earlier time
projector_takeover_s = 0.5  # between two looks whether the projector in charge is gone
projector_retry_s = 1.0  # after the read database or all shards were lost
projector_stream_events_max = 100_000  # of a parked stream, read for a retry
read_connections = 8  # of a gateway to the read database
search_statement_ms = 3_000
search_long_ms = 1_000  # for the last turns of a search, which are not bounded otherwise
search_walk_rows = 1_000  # read on in order before what fits is collected instead
search_probe_rows = 250  # the same, behind a word that was collected
search_collect_rows = 4_000  # collected and sorted before it is read on in order after all
search_walk_rows_max = 100_000
search_words_max = 32  # that a prefix is replaced by
search_words_finished = 4  # that are collected, one after the other, before all is
search_text_chars_max = 200
statistics_periods_max = 1_000
position_wait_s = 2.0  # how long a read waits for a session's own write
positions_max = 16  # that a read waits for
position_poll_s_min = 0.005
position_poll_s_max = 0.05
replay_part_events = 25_000  # of one transaction, in the memory of one worker
replay_part_buckets_max = 256
replay_moves_max = 40  # how often a worker looks where buckets went that moved while it read
replay_move_wait_s = 0.25
replay_workers_max = 16
replay_events_per_s_default = 25_000  # of one worker, until a replay was measured
replay_differences_max = 1_000
replay_verify_s = 60.0  # how long rows that are on the move are compared again
projector_lock_ms = 5_000
projector_statement_ms = 60_000
projector_idle_ms = 30_000  # a stopped projector must not hold its checkpoints for ever

# The feed of changes
changes_feeds_of_key_max = 16  # open at once, long polls included
changes_feeds_max = 512  # of one gateway
changes_page_max = 1_000
changes_page_default = 100
changes_wait_s = 60.0  # a long poll, at most
changes_kept_max = 10_000  # of the newest, in memory, for all consumers together
changes_kept_bytes_max = 32 << 20
changes_take_max = 500  # encoded without a pause for other requests
changes_look_s = 1.0  # how often the heads are taken over while nothing comes
changes_avoid_s = 1.0  # how long a consumer leaves a shard alone that did not answer
changes_idle_s = 60.0  # how long the newest are kept ready without any consumer
changes_reads_at_once_max = 2  # consumers that read older ones from PostgreSQL; more wait
changes_read_buckets = 256
changes_heads_attempts_max = 20
changes_pause_s = 0.05  # between two messages of a stream: under load they are fewer and larger
changes_heartbeat_s = 15.0
changes_unread_s = 10.0  # a consumer that has not read what was sent for so long is cut off
changes_unread_poll_s = 0.02

# Control plane
control_tick_ms = 20
control_heartbeat_ms = 100
control_election_ms = 500  # a lost leader is replaced within about twice that
control_propose_s = 5.0
control_patience_s = 10.0  # how long a caller waits for a leader
control_retry_s = 0.05
control_wait_s = 2.0  # of one long poll; then the next node is asked: one may be cut off from the others
control_answer_s = 1.0  # how much longer an answer may take; a node that is frozen is then left
control_connect_s = 2.0
control_request_s = 8.0
control_answer_bytes_max = 16 << 20
control_watches_max = 2_048  # of one node
control_lead_retry_s = 1.0  # after the leader's work ended by a defect
control_stop_s = 10.0
agent_pause_s = 0.25  # between two looks of the agent, however often the state changes
agent_retry_s = 2.0
agent_farewell_s = (
    2.0  # from a shard's removal to the stop of its server: whoever still asks it has learnt of it by then
)
control_map_retry_s = 0.2  # between two looks for a map while no control node answers
control_shard_id_chars_max = 32
control_weight_min = 0.01
control_weight_max = 100.0
control_ended_moves_max = 200  # kept to be shown
control_settings = {  # the least and the most of what operators may set
    "moves_per_server": (1, 32),
    "hold_budget_ms": (50, 4_500),  # below `fence_hold_s`, so that a write outlives a fence that is given up
    "holds_max": (1, 1_000),
    "grace_s": (0, 7 * 86_400),
    "copy_events_per_s": (0, 10_000_000),
    "clean_rows_per_s": (0, 10_000_000),
    "latency_ms": (0, 60_000),
}

# Operators
plan_moves_max = 4_096
plans_kept_max = 48  # in the data directory, to be run by their id
moved_buckets_max = 4_096
shard_dsn_chars_max = 2_000
plan_body_bytes_max = 4 << 20
view_refresh_s = 0.5  # of the live view, when nothing changes
view_line_s = 5.0  # between two lines where there is no terminal
shard_dsn_check_s = 5.0  # whether the database of a new shard answers
shard_joins_s = 120.0  # a new server is made, started and prepared
shard_poll_s = 0.1
measure_s = 60.0  # of one shard
measure_connect_s = 10.0  # a shard that takes no connection for so long does not answer
balance_window_s = 1.0  # requests are counted for so long, if nobody counted them before
plan_window_s = 5.0  # the same for a plan by requests

# Rebalancing and moves: plans, rules, the executor
rebalance_failures_kept = 20  # moves that failed, with their reasons, however many end after them
rebalance_failed_in_row_max = 3  # moves, then the rebalance pauses until it is resumed
balance_tolerated = 1.01  # the fullest shard against its fair part, up to which nothing is moved
balance_coarse_buckets = 4  # while a shard is to give more than so many of its heaviest buckets, any one will do
balance_overshoot = 1.5  # the last bucket given may be this much more than what there is to give
estimate_users_per_s = 4_000  # moved to or from one server, while it serves: see docs/benchmarks.md
estimate_move_s = 0.075  # what a move takes besides
fence_retry_ms_min = 500  # before the next fence, after one that was given up; doubled each time
fence_retry_ms_max = 60_000
move_reason_chars_max = 500
move_retry_s_min = 0.05  # after a step or a command that failed; doubled each time
move_retry_s_max = 5.0
move_held_retry_s_max = 0.1  # the same while writes are held
move_outrun_max = 3  # tries of a copy that writes outrun, then the move fails
closes_at_once_per_server = 4
executor_poll_s = 1.0  # how long the executor sleeps if nothing changes
executor_wait_s_max = 60.0
hold_slack_s = 0.005  # so that what is cut off at the hold budget's end is past it
move_close_s = 0.25  # to close a source whose target is open, though the hold budget be used up

# Sealing and erasure
keyring_look_s = 1.0  # between two looks of a process whether the keyring's file has changed
stream_ciphers_max = 32_768  # kept in memory, of the streams read or written last
keyring_drop_after_s = 30.0  # after a newer key: longer than any write waits
rewrap_batch_rows = 500
erasure_attempts_max = 100  # it outlasts whoever changes the user at the same time
scrub_log_files_max = 1_024

# Replays, as operators see them
replay_explained_max = 20  # users whose events are shown with what differs
replay_explained_events_max = 100  # of each
replay_start_s = 20.0  # until a run that was started over HTTP is at work
replay_start_poll_s = 0.1
explain_events_max = 1_000

# Moving a bucket: what is done on its two servers
move_workers_max = 2  # processes that copy, of one node
move_worker_niceness = 5
move_connections_per_shard = 8  # kept warm by a mover
move_buffer_chunks_max = 16  # between two servers, in memory; PostgreSQL gives at most 64 KB or one row at a time
move_slice_events_min = 64
move_slice_events_max = 4_096  # one transaction
move_rate_max = 200_000  # events or rows per second, if nothing says less
move_rate_min = 500
move_rate_step = 4_000  # faster, with each probe that was quick
move_latency_floor_ms = 15  # a shard is not slow below this
move_calm_probes = 16  # the last ones, which say what is usual
move_probe_interval_s = 0.25
move_tail_nearer = 0.9  # a round that leaves more than this part of what was missing comes no nearer
move_tail_rounds_max = 10  # such rounds, until the copy is given up
move_fence_events_max = 500  # missing on the target; with more, a bucket is not fenced
move_fence_wait_ms = 250  # for transactions that hold the bucket
move_finish_events_max = 2_000  # brought in one statement
move_differences_max = 50
move_checks_max = 3  # of a large bucket before the fence, until it is found different
move_disk_reserve_bytes = 128 << 20
move_whole_events_max = 20_000  # up to so many, all of a bucket is compared under the fence; of more, what is new
move_counted_users_max = 5_000_000  # of a shard with more, a sample is counted
move_sampled_users = 1_000_000
move_requests_window_s = 10.0  # between two looks at the heads that rates come from
