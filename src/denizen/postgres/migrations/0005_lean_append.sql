-- Full pages are pruned of old row versions all at once; with room left over, that was done at almost every touch.
alter table denizen.buckets set (fillfactor = 100);

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
--
-- Most groups are small, so what counts is the number of statements and what each costs to begin. Elements are therefore
-- taken by subscript, beside a `generate_series`: that begins at half the cost of an `unnest` of several arrays.
create or replace function denizen.append(
    c_bucket smallint[], c_epoch integer[], c_stream uuid[], c_expected integer[], c_command uuid[],
    c_key bytea[], c_fingerprint bytea[], c_status smallint[], c_document bytea[], c_secret bytea[],
    e_command integer[], e_type smallint[], e_schema smallint[], e_actor text[], e_correlation uuid[], e_data bytea[],
    n_command integer[], n_action text[], n_kind smallint[], n_value text[], n_user uuid[], n_reservation uuid[]
) returns table (ordinal integer, outcome text, stream uuid, version integer, sequence bigint, recorded_at timestamptz)
language plpgsql as $$
#variable_conflict use_column
declare
    commands  constant integer := cardinality(c_bucket);
    result    text[]    := array_fill('done'::text, array[commands]);
    live      boolean[] := array_fill(true, array[commands]);            -- still to be done
    facts     integer[] := array_fill(null::integer, array[commands]);
    base      integer[];                                                 -- each stream's version before
    ends      bigint[]  := array_fill(null::bigint, array[commands]);    -- each command's last sequence
    earlier   uuid[]    := c_stream;
    moment    timestamptz;

    buckets   smallint[];                                                -- those of the group that are here, each once
    fences    integer[];                                                 -- their epochs; -1: fenced, 0: not here now
    heads     bigint[];
    places    integer[] := array_fill(null::integer, array[commands]);   -- where among them each command's bucket is

    sequences bigint[]  := array_fill(null::bigint, array[cardinality(e_command)]);
    versions  integer[] := array_fill(null::integer, array[cardinality(e_command)]);

    arriving  integer := 0;                                              -- commands that make a user
    known     integer := 0;                                              -- and those that change one
    changed   integer;
    place     integer;
    command   integer;
    entry     record;
begin
    -- 1. Lock the buckets, always in one order, and look at the fence.
    select array_agg(b.bucket), array_agg(case b.state when 'open' then b.epoch when 'fenced' then -1 else 0 end),
           array_agg(b.head)
    into buckets, fences, heads
    from (select * from denizen.buckets b where b.bucket = any (c_bucket) order by b.bucket for update) b;
    for i in 1 .. commands loop
        place := array_position(buckets, c_bucket[i]);
        places[i] := place;
        if fences[place] is distinct from c_epoch[i] then
            live[i] := false;
            facts[i] := coalesce(fences[place], 0);
            result[i] := case facts[i] when -1 then 'fenced' else 'moved' end;
        end if;
    end loop;
    moment := clock_timestamp();

    -- 2. What was done before is answered, not done again.
    if cardinality(c_key) > 0 then
        for entry in
            select i as command, k.fingerprint = c_fingerprint[i] as same, k.user_id, k.version
            from generate_series(1, commands) as i
            join denizen.idempotency k on k.bucket = c_bucket[i] and k.key = c_key[i]
            where live[i]
        loop
            live[entry.command] := false;
            result[entry.command] := case when entry.same then 'repeated' else 'key_reused' end;
            earlier[entry.command] := entry.user_id;
            facts[entry.command] := entry.version;
        end loop;
    end if;

    -- 3. Expected versions, told by the truth.
    base := array(
        select coalesce(last.version, 0)
        from generate_series(1, commands) as i
        left join lateral (
            select e.version from denizen.events e where e.stream = c_stream[i] order by e.version desc limit 1
        ) last on true
        order by i
    );
    for i in 1 .. commands loop
        if live[i] and c_expected[i] <> base[i] then
            facts[i] := (
                select max(e.version) from denizen.events e where e.stream = c_stream[i] and e.command_id = c_command[i]
            );
            if facts[i] is not null then
                live[i] := false;
                result[i] := 'repeated';
            elsif c_expected[i] >= 0 then
                live[i] := false;
                result[i] := 'version_conflict';
                facts[i] := base[i];
            end if;
        end if;
        if live[i] and c_status[i] is not null then
            if base[i] = 0 then
                arriving := arriving + 1;
            else
                known := known + 1;
            end if;
        end if;
    end loop;
    if exists (select from denizen.cancelled_commands) then
        for entry in
            select i as command
            from generate_series(1, commands) as i
            join denizen.cancelled_commands x on x.bucket = c_bucket[i] and x.command_id = c_command[i]
            where live[i]
        loop
            live[entry.command] := false;
            result[entry.command] := 'cancelled';
        end loop;
    end if;

    -- 4. Login names: first see whether every change is possible, then make them.
    if cardinality(n_command) > 0 then
        for entry in
            select n_command[i] as command, n_kind[i] as kind, n_action[i] as action
            from generate_series(1, cardinality(n_command)) as i
            left join denizen.login_names l on l.bucket = c_bucket[n_command[i]] and l.kind = n_kind[i] and l.value = n_value[i]
            left join denizen.login_names_unsettled u on u.bucket = l.bucket and u.kind = l.kind and u.value = l.value
            where live[n_command[i]] and not case n_action[i]
                when 'claim'   then l.bucket is null
                when 'reserve' then l.bucket is null
                when 'confirm' then coalesce(u.state = 'reserved' and u.reservation = n_reservation[i], false)
                when 'leave'   then coalesce(u.bucket is null and l.user_id = n_user[i], false)
                when 'restore' then coalesce(u.state = 'leaving' and u.reservation = n_reservation[i], false)
                when 'release' then coalesce(l.user_id = n_user[i] and u.reservation is not distinct from n_reservation[i], false)
            end
        loop
            live[entry.command] := false;
            result[entry.command] := case when entry.action in ('claim', 'reserve') then 'name_taken' else 'name_lost' end;
            facts[entry.command] := entry.kind;
        end loop;
        if 'release' = any (n_action) then
            delete from denizen.login_names l
            using generate_series(1, cardinality(n_command)) as i
            where n_action[i] = 'release' and live[n_command[i]]
              and l.bucket = c_bucket[n_command[i]] and l.kind = n_kind[i] and l.value = n_value[i];
        end if;
        if n_action && array['claim', 'reserve'] then
            insert into denizen.login_names (user_id, bucket, kind, value)
            select n_user[i], c_bucket[n_command[i]], n_kind[i], n_value[i]
            from generate_series(1, cardinality(n_command)) as i
            where n_action[i] in ('claim', 'reserve') and live[n_command[i]];
        end if;
        if n_action && array['reserve', 'leave'] then
            insert into denizen.login_names_unsettled (since, reservation, bucket, kind, state, value)
            select moment, n_reservation[i], c_bucket[n_command[i]], n_kind[i],
                   case n_action[i] when 'reserve' then 'reserved' else 'leaving' end, n_value[i]
            from generate_series(1, cardinality(n_command)) as i
            where n_action[i] in ('reserve', 'leave') and live[n_command[i]];
        end if;
        if n_action && array['confirm', 'restore', 'release'] then
            delete from denizen.login_names_unsettled u
            using generate_series(1, cardinality(n_command)) as i
            where n_action[i] in ('confirm', 'restore', 'release') and n_reservation[i] is not null and live[n_command[i]]
              and u.bucket = c_bucket[n_command[i]] and u.kind = n_kind[i] and u.value = n_value[i];
        end if;
    end if;

    -- 5. The events, numbered in their bucket and in their stream, and the heads and digests of the buckets.
    for i in 1 .. cardinality(e_command) loop
        command := e_command[i];
        if live[command] then
            place := places[command];
            heads[place] := heads[place] + 1;
            sequences[i] := heads[place];
            versions[i] := coalesce(facts[command], base[command]) + 1;
            ends[command] := sequences[i];
            facts[command] := versions[i];
        end if;
    end loop;
    with written as (
        insert into denizen.events (sequence, recorded_at, stream, version, bucket, type, schema, command_id,
                                    correlation_id, actor, data, secret)
        select sequences[i], moment, c_stream[e_command[i]], versions[i], c_bucket[e_command[i]], e_type[i], e_schema[i],
               c_command[e_command[i]], e_correlation[i], e_actor[i], e_data[i],
               case when versions[i] = base[e_command[i]] + 1 then c_secret[e_command[i]] end
        from generate_series(1, cardinality(e_command)) as i
        where live[e_command[i]]
        returning events.bucket, events.sequence, denizen.event_hash(events) as hash
    ), hashed as (
        select w.bucket, max(w.sequence) as head, bit_xor(w.hash) as digest from written w group by w.bucket
    )
    update denizen.buckets b set head = h.head, digest = b.digest # h.digest from hashed h where b.bucket = h.bucket;

    -- What a user that is erased (11), or a login name that is given up (105), leaves behind can be read no more.
    if e_type && array[11, 105]::smallint[] then
        update denizen.events e set secret = null
        from generate_series(1, cardinality(e_command)) as i
        where e_type[i] in (11, 105) and live[e_command[i]] and e.stream = c_stream[e_command[i]] and e.secret is not null;
        insert into denizen.erasures (erased_at, user_id, bucket)
        select moment, c_stream[e_command[i]], c_bucket[e_command[i]]
        from generate_series(1, cardinality(e_command)) as i
        where e_type[i] = 11 and live[e_command[i]]
        on conflict do nothing;
    end if;

    -- 6. The state. It is a cache of the truth: a row that should be there and is not is made again.
    if arriving > 0 then
        insert into denizen.users (id, created_at, updated_at, version, bucket, status, document)
        select c_stream[i], moment, moment, facts[i], c_bucket[i], c_status[i], c_document[i]
        from generate_series(1, commands) as i
        where live[i] and c_status[i] is not null and base[i] = 0;
    end if;
    if known > 0 then
        update denizen.users u
        set updated_at = moment, version = facts[i], status = c_status[i], document = c_document[i]
        from generate_series(1, commands) as i
        where live[i] and c_status[i] is not null and base[i] > 0 and u.bucket = c_bucket[i] and u.id = c_stream[i];
        get diagnostics changed = row_count;
        if changed < known then
            insert into denizen.users (id, created_at, updated_at, version, bucket, status, document)
            select c_stream[i], e.recorded_at, moment, facts[i], c_bucket[i], c_status[i], c_document[i]
            from generate_series(1, commands) as i
            join denizen.events e on e.stream = c_stream[i] and e.version = 1
            where live[i] and c_status[i] is not null and base[i] > 0
            on conflict (bucket, id) do nothing;
        end if;
    end if;
    if cardinality(c_key) > 0 then
        insert into denizen.idempotency (recorded_at, user_id, version, bucket, key, fingerprint)
        select moment, c_stream[i], facts[i], c_bucket[i], c_key[i], c_fingerprint[i]
        from generate_series(1, commands) as i
        where live[i] and c_key[i] is not null;
    end if;

    if 'repeated' = any (result) then
        for entry in
            select i as command, e.sequence
            from generate_series(1, commands) as i
            join denizen.events e on e.stream = earlier[i] and e.version = facts[i]
            where result[i] = 'repeated'
        loop
            ends[entry.command] := entry.sequence;
        end loop;
    end if;

    return query
        select i, result[i], earlier[i], facts[i], ends[i], moment
        from generate_series(1, commands) as i;
end
$$;
