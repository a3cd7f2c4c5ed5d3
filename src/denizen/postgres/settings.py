"""PostgreSQL's settings for a shard: many small writing transactions, fully durable, sized to the machine.

Pure functions from (memory, number of servers on the machine, release) to settings. They are written to `denizen.conf`
in the server's data directory at every start; an operator's own `[postgres.settings]` come last and win.
"""

import os
from collections.abc import Mapping
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30

shared_buffers_share = 0.25
shared_buffers_mib_min = 32
shared_buffers_mib_max = 16_384
connections_default = 100

DURABLE = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "hot_standby": "on",
    "wal_log_hints": "on",  # a former primary can be rewound to follow the new one
}

STEADY = {
    "wal_buffers": "16MB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "jit": "off",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "32",
    "bgwriter_lru_maxpages": "500",
    "autovacuum_naptime": "10s",
    "autovacuum_max_workers": "2",
    "autovacuum_vacuum_cost_limit": "2000",
    "autovacuum_vacuum_scale_factor": "0.05",
    # A table that grows is the same mixture as before; each look at it takes a processor for some tenths of a second.
    "autovacuum_analyze_scale_factor": "0.2",
    # A stopped gateway must not hold locks for ever.
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "5s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}

PRIVATE = {
    "password_encryption": "scram-sha-256",
    "unix_socket_permissions": "0700",
    # The log must not become a second store of personal data: no values of rows, no parameters.
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
    "datestyle": "iso, ymd",
}


def machine_memory_bytes() -> int:
    """Return this machine's memory, or what the container may use of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            memory = min(memory, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return memory


def shard_settings(
    *, memory_bytes: int, servers: int, major: int, connections: int = connections_default
) -> dict[str, str]:
    """Return the settings of one of `servers` equal shards that share a machine with `memory_bytes` for PostgreSQL."""
    share_mib = memory_bytes // max(servers, 1) // MIB
    buffers = min(max(int(share_mib * shared_buffers_share), shared_buffers_mib_min), shared_buffers_mib_max)
    wal = min(max(share_mib // 2, 512), 8_192)
    return {
        **DURABLE,
        **STEADY,
        **PRIVATE,
        "max_connections": str(connections),
        "shared_buffers": f"{buffers}MB",
        "effective_cache_size": f"{max(int(memory_bytes * 0.6) // MIB, 64)}MB",
        "maintenance_work_mem": f"{min(max(share_mib // 32, 32), 1_024)}MB",
        "work_mem": "8MB" if share_mib >= 1_024 else "4MB",
        "max_wal_size": f"{wal}MB",
        "min_wal_size": f"{wal // 4}MB",
        **({"io_workers": "2"} if major >= 18 else {}),
    }


def throwaway_settings(*, fsync: bool, connections: int = connections_default) -> dict[str, str]:
    """Return small settings for a test's server; the same behaviour, less memory and less disk."""
    return {
        **DURABLE,
        **STEADY,
        **PRIVATE,
        "fsync": "on" if fsync else "off",
        "max_connections": str(connections),
        "shared_buffers": "64MB",
        "max_wal_size": "512MB",
        "min_wal_size": "80MB",
        "wal_buffers": "4MB",
    }


def render(settings: Mapping[str, str]) -> str:
    """Return the text of a PostgreSQL configuration file."""
    quoted = ((name, value.replace("\\", "\\\\").replace("'", "''")) for name, value in settings.items())
    return "".join(f"{name} = '{value}'\n" for name, value in quoted)
