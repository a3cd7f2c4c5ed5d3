-- What the digest of a bucket is made of; the columns are named so that a new column does not change old digests, and
-- without `secret`: destroying that leaves them as they are.
create function denizen.event_hash(e denizen.events) returns bigint
language sql immutable parallel safe
return hash_record_extended(row(e.bucket, e.sequence, e.stream, e.version, e.type, e.schema, e.recorded_at, e.command_id,
                                e.correlation_id, e.actor, e.data), 0);

-- The one way in: a group of commands, appended together in one statement, so that no lock is ever held across a round
-- trip of a client. Each command stands alone: one that fails changes nothing and does not disturb the others.
--
-- c_*  one element per command; `c_secret` goes with the command's first event
-- e_*  one per event, in order, `e_command` naming its command by ordinal (from 1)
-- n_*  one per change of a login name in the command's own bucket:
--        claim    a free name becomes held              reserve  a free name becomes reserved
--        confirm  reserved becomes held                 leave    held becomes leaving
--        restore  leaving becomes held again            release  held (no reservation given), reserved or leaving goes
--
-- Outcomes: done; repeated (this command, or this idempotency key, was done before: `stream`, `version` and `sequence`
-- tell where); moved, fenced (the bucket is not, or not now, writable here); version_conflict; name_taken; name_lost (a
-- reservation that is no longer there); key_reused; cancelled. For a refused command
-- `version` holds the fact behind it: the epoch here, the actual version, the kind of the login name.
--
-- The arrays of keys may be empty: no command has one. A caller must not put two commands on one stream, login name or
-- idempotency key into one group: constraints turn that into an error of the whole group, and nothing is changed.
create function denizen.append(
    c_bucket smallint[], c_epoch integer[], c_stream uuid[], c_expected integer[], c_command uuid[],
    c_key bytea[], c_fingerprint bytea[], c_status smallint[], c_document bytea[], c_secret bytea[],
    e_command integer[], e_type smallint[], e_schema smallint[], e_actor text[], e_correlation uuid[], e_data bytea[],
    n_command integer[], n_action text[], n_kind smallint[], n_value text[], n_user uuid[], n_reservation uuid[]
) returns table (ordinal integer, outcome text, stream uuid, version integer, sequence bigint, recorded_at timestamptz)
language plpgsql as $$
#variable_conflict use_column
declare
    n        constant integer := cardinality(c_bucket);
    result   text[]    := array_fill('done'::text, array[n]);
    live     boolean[] := array_fill(true, array[n]);            -- still to be done
    facts    integer[] := array_fill(null::integer, array[n]);
    base     integer[];                                          -- each stream's version before
    ends     bigint[]  := array_fill(null::bigint, array[n]);    -- each command's last sequence
    earlier  uuid[]    := c_stream;
    moment   timestamptz;
    epochs   integer[] := array_fill(0, array[4096]);            -- by bucket + 1; 0: not here, -1: fenced
    heads    bigint[]  := array_fill(0::bigint, array[4096]);
    entry    record;
begin
    -- 1. Lock the buckets, always in one order, and look at the fence.
    for entry in
        select b.bucket + 1 as place, b.epoch, b.state, b.head
        from denizen.buckets b where b.bucket = any (c_bucket) order by b.bucket for update
    loop
        epochs[entry.place] := case entry.state when 'open' then entry.epoch when 'fenced' then -1 else 0 end;
        heads[entry.place] := entry.head;
    end loop;
    for entry in
        select c.ordinal::integer as command, epochs[c.bucket + 1] as epoch
        from unnest(c_bucket, c_epoch) with ordinality as c (bucket, epoch, ordinal)
        where epochs[c.bucket + 1] <> c.epoch
    loop
        live[entry.command] := false;
        result[entry.command] := case entry.epoch when -1 then 'fenced' else 'moved' end;
        facts[entry.command] := entry.epoch;
    end loop;
    moment := clock_timestamp();

    -- 2. What was done before is answered, not done again.
    if cardinality(c_key) > 0 then
        for entry in
            select c.ordinal::integer as command, i.fingerprint = c.fingerprint as same, i.user_id, i.version
            from unnest(c_bucket, c_key, c_fingerprint) with ordinality as c (bucket, key, fingerprint, ordinal)
            join denizen.idempotency i on i.bucket = c.bucket and i.key = c.key
            where c.key is not null and live[c.ordinal]
        loop
            live[entry.command] := false;
            result[entry.command] := case when entry.same then 'repeated' else 'key_reused' end;
            earlier[entry.command] := entry.user_id;
            facts[entry.command] := entry.version;
        end loop;
    end if;

    -- 3. Expected versions, told by the truth.
    select array_agg(coalesce(last.version, 0) order by c.ordinal) into base
    from unnest(c_stream) with ordinality as c (stream, ordinal)
    left join lateral (
        select e.version from denizen.events e where e.stream = c.stream order by e.version desc limit 1
    ) last on true;
    for entry in
        select c.ordinal::integer as command, c.expected, base[c.ordinal] as actual, done.version
        from unnest(c_stream, c_expected, c_command) with ordinality as c (stream, expected, command_id, ordinal)
        left join lateral (
            select max(e.version) as version from denizen.events e where e.stream = c.stream and e.command_id = c.command_id
        ) done on true
        where live[c.ordinal] and c.expected <> base[c.ordinal]
    loop
        if entry.version is not null then
            live[entry.command] := false;
            result[entry.command] := 'repeated';
            facts[entry.command] := entry.version;
        elsif entry.expected >= 0 then
            live[entry.command] := false;
            result[entry.command] := 'version_conflict';
            facts[entry.command] := entry.actual;
        end if;
    end loop;
    if exists (select from denizen.cancelled_commands) then
        for entry in
            select c.ordinal::integer as command
            from unnest(c_bucket, c_command) with ordinality as c (bucket, command_id, ordinal)
            join denizen.cancelled_commands x on x.bucket = c.bucket and x.command_id = c.command_id
            where live[c.ordinal]
        loop
            live[entry.command] := false;
            result[entry.command] := 'cancelled';
        end loop;
    end if;

    -- 4. Login names: first see whether every change is possible, then make them.
    if cardinality(n_command) > 0 then
        for entry in
            select c.command, c.kind, c.action
            from unnest(n_command, n_action, n_kind, n_value, n_user, n_reservation)
                 as c (command, action, kind, value, user_id, reservation)
            left join denizen.login_names l on l.bucket = c_bucket[c.command] and l.kind = c.kind and l.value = c.value
            left join denizen.login_names_unsettled u on u.bucket = l.bucket and u.kind = l.kind and u.value = l.value
            where live[c.command] and not case c.action
                when 'claim'   then l.bucket is null
                when 'reserve' then l.bucket is null
                when 'confirm' then coalesce(u.state = 'reserved' and u.reservation = c.reservation, false)
                when 'leave'   then coalesce(u.bucket is null and l.user_id = c.user_id, false)
                when 'restore' then coalesce(u.state = 'leaving' and u.reservation = c.reservation, false)
                when 'release' then coalesce(l.user_id = c.user_id and u.reservation is not distinct from c.reservation, false)
            end
        loop
            live[entry.command] := false;
            result[entry.command] := case when entry.action in ('claim', 'reserve') then 'name_taken' else 'name_lost' end;
            facts[entry.command] := entry.kind;
        end loop;
        if 'release' = any (n_action) then
            delete from denizen.login_names l
            using unnest(n_command, n_action, n_kind, n_value) as c (command, action, kind, value)
            where c.action = 'release' and live[c.command]
              and l.bucket = c_bucket[c.command] and l.kind = c.kind and l.value = c.value;
        end if;
        if n_action && array['claim', 'reserve'] then
            insert into denizen.login_names (user_id, bucket, kind, value)
            select c.user_id, c_bucket[c.command], c.kind, c.value
            from unnest(n_command, n_action, n_kind, n_value, n_user) as c (command, action, kind, value, user_id)
            where c.action in ('claim', 'reserve') and live[c.command];
        end if;
        if n_action && array['reserve', 'leave'] then
            insert into denizen.login_names_unsettled (since, reservation, bucket, kind, state, value)
            select moment, c.reservation, c_bucket[c.command], c.kind,
                   case c.action when 'reserve' then 'reserved' else 'leaving' end, c.value
            from unnest(n_command, n_action, n_kind, n_value, n_reservation)
                 as c (command, action, kind, value, reservation)
            where c.action in ('reserve', 'leave') and live[c.command];
        end if;
        if n_action && array['confirm', 'restore', 'release'] then
            delete from denizen.login_names_unsettled l
            using unnest(n_command, n_action, n_kind, n_value, n_reservation)
                  as c (command, action, kind, value, reservation)
            where c.action in ('confirm', 'restore', 'release') and c.reservation is not null and live[c.command]
              and l.bucket = c_bucket[c.command] and l.kind = c.kind and l.value = c.value;
        end if;
    end if;

    -- 5. The events, and the heads and digests of their buckets.
    for entry in
        with numbered as materialized (
            select heads[c_bucket[e.command] + 1]
                       + row_number() over (partition by c_bucket[e.command] order by e.ordinal) as sequence,
                   base[e.command] + (row_number() over (partition by e.command order by e.ordinal))::integer as version,
                   c_bucket[e.command] as bucket, c_stream[e.command] as stream, e.*,
                   case when e.ordinal = min(e.ordinal) over (partition by e.command) then c_secret[e.command] end as secret
            from unnest(e_command, e_type, e_schema, e_actor, e_correlation, e_data)
                 with ordinality as e (command, type, schema, actor, correlation_id, data, ordinal)
            where live[e.command]
        ), written as (
            insert into denizen.events (sequence, recorded_at, stream, version, bucket, type, schema, command_id,
                                        correlation_id, actor, data, secret)
            select m.sequence, moment, m.stream, m.version, m.bucket, m.type, m.schema, c_command[m.command],
                   m.correlation_id, m.actor, m.data, m.secret
            from numbered m
            returning *
        ), hashed as (
            select w.bucket, max(w.sequence) as head, bit_xor(denizen.event_hash(w)) as digest from written w group by w.bucket
        ), advanced as (
            update denizen.buckets b set head = h.head, digest = b.digest # h.digest from hashed h where b.bucket = h.bucket
        )
        select m.command, max(m.sequence) as sequence, max(m.version) as version from numbered m group by m.command
    loop
        ends[entry.command] := entry.sequence;
        facts[entry.command] := entry.version;
    end loop;

    -- What a user that is erased (11), or a login name that is given up (105), leaves behind can be read no more.
    if e_type && array[11, 105]::smallint[] then
        update denizen.events e set secret = null
        from unnest(e_command, e_type) as n (command, type)
        where n.type in (11, 105) and live[n.command] and e.stream = c_stream[n.command] and e.secret is not null;
        insert into denizen.erasures (erased_at, user_id, bucket)
        select moment, c_stream[n.command], c_bucket[n.command] from unnest(e_command, e_type) as n (command, type)
        where n.type = 11 and live[n.command]
        on conflict do nothing;
    end if;

    -- 6. The state.
    insert into denizen.users (id, created_at, updated_at, version, bucket, status, document)
    select c.stream, moment, moment, facts[c.ordinal], c.bucket, c.status, c.document
    from unnest(c_stream, c_bucket, c_status, c_document) with ordinality as c (stream, bucket, status, document, ordinal)
    where live[c.ordinal] and c.status is not null and base[c.ordinal] = 0;
    if 0 < any (base) then
        insert into denizen.users (id, created_at, updated_at, version, bucket, status, document)
        select c.stream, e.recorded_at, moment, facts[c.ordinal], c.bucket, c.status, c.document
        from unnest(c_stream, c_bucket, c_status, c_document) with ordinality as c (stream, bucket, status, document, ordinal)
        join denizen.events e on e.stream = c.stream and e.version = 1
        where live[c.ordinal] and c.status is not null and base[c.ordinal] > 0
        on conflict (bucket, id) do update
        set updated_at = excluded.updated_at, version = excluded.version, status = excluded.status, document = excluded.document;
    end if;
    if cardinality(c_key) > 0 then
        insert into denizen.idempotency (recorded_at, user_id, version, bucket, key, fingerprint)
        select moment, c.stream, facts[c.ordinal], c.bucket, c.key, c.fingerprint
        from unnest(c_stream, c_bucket, c_key, c_fingerprint) with ordinality as c (stream, bucket, key, fingerprint, ordinal)
        where live[c.ordinal] and c.key is not null;
    end if;

    if 'repeated' = any (result) then
        for entry in
            select i as command, e.sequence
            from generate_series(1, n) as i
            join denizen.events e on e.stream = earlier[i] and e.version = facts[i]
            where result[i] = 'repeated'
        loop
            ends[entry.command] := entry.sequence;
        end loop;
    end if;

    return query
        select i, result[i], earlier[i], facts[i], ends[i], moment
        from generate_series(1, n) as i;
end
$$;

-- Where events are taken up as they were elsewhere: what those after `in_after` destroyed there is destroyed here too.
create function denizen.destroy_secrets(in_bucket smallint, in_after bigint) returns void language sql as $$
    update denizen.events e set secret = null from denizen.events last
    where last.bucket = in_bucket and last.sequence > in_after and last.type in (11, 105)
      and e.stream = last.stream and e.version < last.version and e.secret is not null;
    insert into denizen.erasures (erased_at, user_id, bucket)
    select e.recorded_at, e.stream, e.bucket from denizen.events e
    where e.bucket = in_bucket and e.sequence > in_after and e.type = 11
    on conflict do nothing;
$$;

-- The sweeper gives a command up: after this it can no longer be done. False if it was done already; null if the bucket
-- is not writable here at this epoch.
create function denizen.cancel_command(in_bucket smallint, in_epoch integer, in_stream uuid, in_command uuid)
returns boolean language plpgsql as $$
begin
    perform from denizen.buckets b where b.bucket = in_bucket and b.epoch = in_epoch and b.state = 'open' for update;
    if not found then
        return null;
    end if;
    if exists (select from denizen.events e where e.stream = in_stream and e.command_id = in_command) then
        return false;
    end if;
    insert into denizen.cancelled_commands (bucket, command_id) values (in_bucket, in_command) on conflict do nothing;
    return true;
end
$$;
