-- What the read database knows about its projections. Their own tables are made and removed by the program, a set for
-- each version: the table of version 2 of `directory` is `directory_v2`, and the view `directory` shows the live one.

create schema if not exists denizen_read;

-- building: a replay fills it    running: the projector applies events    paused: it does not, for `reason`
create table denizen_read.projections (
    projection  text        not null,
    version     integer     not null check (version >= 1),
    state       text        not null check (state in ('building', 'running', 'paused')),
    live        boolean     not null default false,    -- the version that readers see
    definition  text        not null,                  -- of its tables: another one needs another version
    reason      text,
    created_at  timestamptz not null default clock_timestamp(),
    promoted_at timestamptz,
    primary key (projection, version)
);
create unique index projections_live on denizen_read.projections (projection) where live;

-- The last sequence applied, saved in the transaction of the rows. It is changed only from the value that the writer
-- knows: a second runner of the same projection changes nothing, and notices.
create table denizen_read.checkpoints (
    projection text     not null,
    version    integer  not null,
    bucket     smallint not null check (bucket between 0 and 4095),
    sequence   bigint   not null default 0 check (sequence >= 0),
    primary key (projection, version, bucket)
) with (
    fillfactor = 30,                                   -- room for HOT updates
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);

-- Streams with an event that a projection could not take: they wait from that event on, the others flow.
create table denizen_read.parked (
    projection     text        not null,
    version        integer     not null,
    stream         uuid        not null,
    stream_version integer     not null,               -- of the event that failed
    bucket         smallint    not null,
    sequence       bigint      not null,
    type           text        not null,
    error          text        not null,
    attempts       integer     not null default 1,
    parked_at      timestamptz not null default clock_timestamp(),
    wish           text check (wish in ('retry', 'skip')),    -- of an operator, for the projector
    primary key (projection, version, stream)
);

-- How fresh each projection is, as its projector says at least every second while it lives.
create table denizen_read.progress (
    projection text        not null,
    version    integer     not null,
    at         timestamptz not null,                   -- when this was written
    as_of      timestamptz,                            -- everything recorded until then is applied
    lag_events bigint      not null,
    lag_ms_p50 double precision,
    lag_ms_p99 double precision,
    primary key (projection, version)
) with (fillfactor = 30);
