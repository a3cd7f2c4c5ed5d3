-- The work of replays: a version that is being built, split into parts, each a range of buckets done in one transaction.

-- loading: workers fill the tables    indexing    done: the projector brings it up to date and keeps it so
-- paused, failed: nobody works on it; `run` goes on
create table denizen_read.replays (
    projection text        not null,
    version    integer     not null,
    state      text        not null check (state in ('loading', 'paused', 'failed', 'indexing', 'done')),
    events     bigint      not null,                   -- as counted by the plan
    started_at timestamptz not null default clock_timestamp(),
    loaded_at  timestamptz,
    indexed_at timestamptz,
    verified_at timestamptz,                           -- when a comparison with the live version last found nothing
    error      text,
    primary key (projection, version),
    foreign key (projection, version) references denizen_read.projections on delete cascade
);

create table denizen_read.replay_parts (
    projection text     not null,
    version    integer  not null,
    first      smallint not null,                      -- buckets, inclusive
    last       smallint not null,
    done       boolean  not null default false,
    events     bigint   not null default 0,
    rows       bigint   not null default 0,
    seconds    double precision not null default 0,
    primary key (projection, version, first),
    foreign key (projection, version) references denizen_read.replays on delete cascade
);
