-- The tables of a shard. A shard owns a set of buckets; every row of user data belongs to one bucket, and `bucket`
-- leads every primary key but that of a stream, so that one bucket can be read, checked, copied and removed by an index
-- range. The tables are shared by all buckets, not partitioned: see docs/sharding.md for the measurement.

create schema if not exists denizen;

-- What this server is; one row. A gateway refuses a server that belongs to another deployment or shard.
create table denizen.shard (
    only_row      boolean primary key default true check (only_row),
    deployment_id uuid    not null,
    shard_id      text    not null
);

-- One row for each bucket that is or was here. It is the sequencer and the fence of its bucket: every write locks it,
-- compares the epoch and the state, and takes its sequences from `head`.
create table denizen.buckets (
    bucket smallint primary key check (bucket between 0 and 4095),
    epoch  integer  not null check (epoch >= 1),
    state  text     not null check (state in ('open', 'fenced', 'incoming', 'moved')),
    head   bigint   not null default 0 check (head >= 0),
    digest bigint   not null default 0      -- exclusive or of the hashes of all events of the bucket
) with (
    fillfactor = 20,                        -- room for HOT updates: this is the hottest table
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);

-- The truth. `sequence` is dense in its bucket, `version` dense in its stream. Personal data are sealed: the row of one
-- event of the stream has the `secret` without which nobody reads them; see events/sealing.py.
create table denizen.events (
    sequence       bigint      not null,
    recorded_at    timestamptz not null,
    stream         uuid        not null,
    version        integer     not null check (version >= 1),
    bucket         smallint    not null,
    type           smallint    not null,
    schema         smallint    not null,
    command_id     uuid        not null,
    correlation_id uuid,
    actor          text        not null,
    data           bytea       not null,
    secret         bytea,
    primary key (bucket, sequence)
);
create unique index events_stream on denizen.events (stream, version);
-- Statistics are samples: copies, which erasing a row does not reach. No plan of ours needs those of these columns.
alter table denizen.events alter column data set statistics 0, alter column secret set statistics 0;

-- The state of each user: the fold of its stream, kept in the same transaction. A cache of the truth.
create table denizen.users (
    id         uuid        not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    version    integer     not null,
    bucket     smallint    not null,
    status     smallint    not null,
    document   bytea       not null,
    primary key (bucket, id)
) with (fillfactor = 90);
alter table denizen.users alter column document set statistics 0;

-- Who has which login name. A row is written once and removed once: whether a name is in a change that spans two
-- buckets stands beside it, in a table that is nearly always empty. `reserved` and `leaving` are the two sides of such a
-- change; the reservation is the id of the command that changes the user's stream. A name that is not there is held.
create table denizen.login_names (
    user_id uuid     not null,
    bucket  smallint not null,
    kind    smallint not null,
    value   text     collate "C" not null,
    primary key (bucket, kind, value)
);
alter table denizen.login_names alter column value set statistics 0;
create table denizen.login_names_unsettled (
    since       timestamptz not null,
    reservation uuid        not null,
    bucket      smallint    not null,
    kind        smallint    not null,
    state       text        not null check (state in ('reserved', 'leaving')),
    value       text        collate "C" not null,
    primary key (bucket, kind, value)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
alter table denizen.login_names_unsettled alter column value set statistics 0;

-- Users that were erased, made with their last event, and how far what follows from it has come.
create table denizen.erasures (
    erased_at   timestamptz not null,
    settled_at  timestamptz,                -- every login name is given back, on every shard
    scrubbed_at timestamptz,                -- what PostgreSQL kept of old rows is gone from its files
    user_id     uuid        not null,
    bucket      smallint    not null,
    primary key (bucket, user_id)
);
create index erasures_unsettled on denizen.erasures (erased_at) where settled_at is null;

-- The outcome of each command that came with an idempotency key; removed after a day.
create table denizen.idempotency (
    recorded_at timestamptz not null,
    user_id     uuid        not null,
    version     integer     not null,
    bucket      smallint    not null,
    key         bytea       not null,
    fingerprint bytea       not null,
    primary key (bucket, key)
);
create index idempotency_recorded_at on denizen.idempotency using brin (recorded_at);

-- Commands that the sweeper gave up on: if one of them still arrives, it is refused. Removed after a day.
create table denizen.cancelled_commands (
    bucket       smallint    not null,
    command_id   uuid        not null,
    cancelled_at timestamptz not null default clock_timestamp(),
    primary key (bucket, command_id)
);

-- The API keys of the deployment: every shard keeps all of them. The secret is stored only as a hash.
create table denizen.api_keys (
    id          text        primary key,
    name        text        not null,
    secret_hash bytea       not null,
    scopes      text[]      not null,
    rate_per_s  integer,
    created_at  timestamptz not null default clock_timestamp(),
    revoked_at  timestamptz
);
