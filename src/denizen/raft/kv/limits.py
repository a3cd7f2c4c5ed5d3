"""Every bound of the key-value service in one place, unit last.

The ones under "state machine" decide what a command does, so that all nodes of a cluster must agree on them: changing
one is a change of format.
"""

# --- state machine ---------------------------------------------------------------------------------------------------
KEY_BYTES_MAX = 4 * 1024
VALUE_BYTES_MAX = 1024 * 1024
TXN_OPERATIONS_MAX = 128
HISTORY_EVENTS_MAX = 20_000  # past changes kept for watches and reads of old revisions
HISTORY_BYTES_MAX = 64 * 1024 * 1024
HISTORY_SLACK_PERCENT = 10  # history is cut when this much over, so that cutting is rare
RANGE_KEYS_MAX = 10_000  # in one answer; more are read page by page
RANGE_BYTES_MAX = 16 * 1024 * 1024
LEASES_MAX = 100_000
LEASE_TTL_S_MAX = 9_000_000
SESSIONS_MAX = 10_000  # the session used least recently is closed first
MEMBER_URL_BYTES_MAX = 512

# --- service ---------------------------------------------------------------------------------------------------------
BATCH_REQUESTS_MAX = 256  # requests that share one log entry
BATCH_BYTES_MAX = 512 * 1024
COMMAND_BYTES_MAX = 3 * 512 * 1024  # one request with the largest key and value fits
BATCHES_IN_FLIGHT_MAX = 8
WAITING_REQUESTS_MAX = 8_192
REQUEST_TIMEOUT_S = 5.0
LEASE_CHECK_S = 0.1
WATCH_BATCH_EVENTS_MAX = 1_000
WATCHES_MAX = 4_096
WATCH_HEARTBEAT_S = 10.0

# --- HTTP ------------------------------------------------------------------------------------------------------------
HEADER_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 2 * 1024 * 1024
STRANGERS_BODY_BYTES_MAX = 64 * 1024  # of a request whose head does not show the token
PIPELINED_REQUESTS_MAX = 64  # on one connection; reading pauses beyond
CONNECTIONS_MAX = 4_096
CONNECTION_IDLE_S = 300.0
WRITE_BUFFER_BYTES_MAX = 1024 * 1024
