-- A batch touches about as many buckets as it has events, so a row for each bucket was most of what a batch cost. Now a
-- version has one row: how often it was written to, which is compared and set, and how far it was at some moment. How
-- far each batch went since then is noted beside it, until the projector puts it all into the one row again.

alter table denizen_read.checkpoints rename to checkpoints_by_bucket;
alter index denizen_read.checkpoints_pkey rename to checkpoints_by_bucket_pkey;

-- A writer that does not know `number` changes nothing, and notices.
create table denizen_read.checkpoints (
    projection text     not null,
    version    integer  not null,
    number     bigint   not null default 0,
    sequences  bigint[] not null,                      -- of bucket 0, bucket 1 …
    primary key (projection, version)
) with (fillfactor = 30);
alter table denizen_read.checkpoints alter column sequences set storage external;

create table denizen_read.advances (
    projection text       not null,
    version    integer    not null,
    buckets    smallint[] not null,
    sequences  bigint[]   not null                     -- the last ones applied, of these buckets
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
alter table denizen_read.advances alter column buckets set storage external;
alter table denizen_read.advances alter column sequences set storage external;
create index advances_version on denizen_read.advances (projection, version);

insert into denizen_read.checkpoints (projection, version, sequences)
select projection, version, array_agg(sequence order by bucket)
from denizen_read.checkpoints_by_bucket group by projection, version;

drop table denizen_read.checkpoints_by_bucket;

-- The last sequence of a bucket that a version has applied; null if there is no such version.
create function denizen_read.checkpoint(of_projection text, of_version integer, of_bucket smallint) returns bigint
language sql stable parallel safe as $$
    select greatest(c.sequences[of_bucket + 1], (
        select max(a.sequences[array_position(a.buckets, of_bucket)]) from denizen_read.advances a
        where a.projection = of_projection and a.version = of_version
    ))
    from denizen_read.checkpoints c where c.projection = of_projection and c.version = of_version
$$;
