-- What a move of a bucket does on one server; see docs/moving.md. Each step is one function, so one transaction, and
-- begins with `move_enter`: it locks the move's row here and compares the attempt, so that late work is refused. The row
-- of the move is always locked before the row of the bucket. A refusal has SQLSTATE DM001 and a code as its detail.

-- One row for each move that this server has to do with, kept for a week after its end: it refuses what comes late.
create table denizen.bucket_moves (
    move       uuid        not null,
    bucket     smallint    not null,
    attempt    integer     not null check (attempt >= 1),
    -- source: begun → fenced → closed → cleaned      target: clearing → copying → verified → opened
    -- both: aborted (never to be gone on with), past (a later move of the bucket began here)
    state      text        not null check (state in ('begun', 'fenced', 'closed', 'cleaned', 'clearing', 'copying',
                                                     'verified', 'opened', 'aborted', 'past')),
    changed_at timestamptz not null default clock_timestamp(),
    primary key (bucket, move)
);

create function denizen.move_refuse(code text, message text) returns void language plpgsql as $$
begin
    raise exception using errcode = 'DM001', message = message, detail = code;
end
$$;

-- The move's row, locked, its attempt raised to this one. `in_ended`: an aborted or past move may be entered too.
create function denizen.move_enter(in_move uuid, in_attempt integer, in_bucket smallint, in_ended boolean default false)
returns denizen.bucket_moves language plpgsql as $$
declare
    entered denizen.bucket_moves;
begin
    select * into entered from denizen.bucket_moves m where m.bucket = in_bucket and m.move = in_move for update;
    if not found then
        perform denizen.move_refuse('move_refused', format('bucket %s was not prepared here for this move', in_bucket));
    elsif entered.attempt > in_attempt then
        perform denizen.move_refuse('stale_attempt', format('attempt %s is at work, this is %s', entered.attempt, in_attempt));
    elsif entered.state in ('aborted', 'past') and not in_ended then
        perform denizen.move_refuse('move_aborted', format('the move of bucket %s is %s', in_bucket, entered.state));
    elsif entered.attempt < in_attempt then
        update denizen.bucket_moves m set attempt = in_attempt where m.bucket = in_bucket and m.move = in_move;
        entered.attempt := in_attempt;
    end if;
    return entered;
end
$$;

create function denizen.move_set(in_move uuid, in_bucket smallint, in_state text) returns void language sql as $$
    update denizen.bucket_moves m set state = in_state, changed_at = clock_timestamp()
    where m.bucket = in_bucket and m.move = in_move
$$;

-- Begin a move on this server, or go on with it; the state of its row.
create function denizen.move_begin(
    in_move uuid, in_attempt integer, in_bucket smallint, in_epoch integer, in_target boolean
) returns text language plpgsql as $$
declare
    owned denizen.buckets;
    known denizen.bucket_moves;
begin
    perform pg_advisory_xact_lock(1685416301, in_bucket);  -- two moves that begin see each other
    select * into known from denizen.bucket_moves m where m.bucket = in_bucket and m.move = in_move;
    if found then
        known := denizen.move_enter(in_move, in_attempt, in_bucket);
        if known.state <> 'clearing' then
            return known.state;
        end if;
    end if;
    if exists (
        select from denizen.bucket_moves m where m.bucket = in_bucket and m.move <> in_move
        and m.state in ('begun', 'fenced', 'clearing', 'copying', 'verified')
    ) then
        perform denizen.move_refuse('bucket_busy', format('another move of bucket %s is under way here', in_bucket));
    end if;
    select * into owned from denizen.buckets b where b.bucket = in_bucket for update;
    if in_target and owned.state in ('open', 'fenced') or not in_target and (
        owned.bucket is null or owned.state <> 'open' or owned.epoch <> in_epoch
    ) then
        perform denizen.move_refuse('bucket_not_here', format(
            'bucket %s is %s here at epoch %s', in_bucket, coalesce(owned.state, 'unknown'), coalesce(owned.epoch, 0)));
    end if;
    delete from denizen.bucket_moves m where m.bucket = in_bucket and m.move <> in_move
        and m.changed_at < clock_timestamp() - interval '7 days';
    update denizen.bucket_moves m set state = 'past'
    where m.bucket = in_bucket and m.move <> in_move and m.state in ('closed', 'opened', 'cleaned');
    insert into denizen.bucket_moves (move, bucket, attempt, state)
    values (in_move, in_bucket, in_attempt, case when in_target then 'clearing' else 'begun' end) on conflict do nothing;
    if in_target then
        insert into denizen.buckets (bucket, epoch, state) values (in_bucket, in_epoch, 'incoming')
        on conflict (bucket) do update set epoch = in_epoch, state = 'incoming', head = 0, digest = 0;
        return 'clearing';
    end if;
    return 'begun';
end
$$;

-- Remove up to so many rows of a bucket that nobody reads: before a copy, after an abort, or after the grace. How many
-- were removed; 0: there are none left, and the move's row and the bucket's say so.
create function denizen.move_remove(in_move uuid, in_attempt integer, in_bucket smallint, in_rows integer)
returns integer language plpgsql as $$
declare
    entered denizen.bucket_moves := denizen.move_enter(in_move, in_attempt, in_bucket, in_ended => true);
    owned   denizen.buckets;
    removed integer;
    total   integer := 0;
begin
    select * into owned from denizen.buckets b where b.bucket = in_bucket;
    if entered.state not in ('clearing', 'aborted', 'closed')
       or owned.state is distinct from (case entered.state when 'closed' then 'moved' else 'incoming' end)
       or exists (select from denizen.bucket_moves m where m.bucket = in_bucket and m.move <> in_move
                  and m.state in ('clearing', 'copying', 'verified')) then
        return 0;  -- it is done, or what is here belongs to somebody else
    end if;
    delete from denizen.events e where e.bucket = in_bucket and e.sequence = any (array(
        select x.sequence from denizen.events x where x.bucket = in_bucket order by x.sequence limit in_rows));
    get diagnostics total = row_count;
    delete from denizen.users u where u.bucket = in_bucket and u.id = any (array(
        select x.id from denizen.users x where x.bucket = in_bucket order by x.id limit in_rows - total));
    get diagnostics removed = row_count;
    total := total + removed;
    delete from denizen.login_names l using (
        select x.kind, x.value from denizen.login_names x where x.bucket = in_bucket order by x.kind, x.value
        limit in_rows - total) as gone
    where l.bucket = in_bucket and l.kind = gone.kind and l.value = gone.value;
    get diagnostics removed = row_count;
    total := total + removed;
    delete from denizen.idempotency i where i.bucket = in_bucket and i.key = any (array(
        select x.key from denizen.idempotency x where x.bucket = in_bucket order by x.key limit in_rows - total));
    get diagnostics removed = row_count;
    total := total + removed;
    if total > 0 then
        return total;
    end if;
    delete from denizen.login_names_unsettled l where l.bucket = in_bucket;
    delete from denizen.cancelled_commands c where c.bucket = in_bucket;
    delete from denizen.erasures x where x.bucket = in_bucket;
    if entered.state = 'clearing' then
        perform denizen.move_set(in_move, in_bucket, 'copying');
    else
        delete from denizen.buckets b where b.bucket = in_bucket;
        if entered.state = 'closed' then
            perform denizen.move_set(in_move, in_bucket, 'cleaned');
        end if;
    end if;
    return 0;
end
$$;

-- What can be compared between two servers whose copies are at one head: exclusive ors of the hashes of whole rows, and
-- how many there are. One snapshot for all of it.
create type denizen.bucket_digest as (
    head bigint, digest bigint, users bigint, users_digest bigint, names bigint, names_digest bigint,
    unsettled bigint, unsettled_digest bigint, keys bigint, keys_digest bigint, cancelled bigint, cancelled_digest bigint,
    secrets bigint, secrets_digest bigint
);
create function denizen.move_digest(in_bucket smallint) returns denizen.bucket_digest language sql stable as $$
    select row(b.head, b.digest, u.*, l.*, s.*, i.*, c.*, t.*)::denizen.bucket_digest
    from denizen.buckets b,
         (select count(*), coalesce(bit_xor(hash_record_extended(x, 0)), 0) from denizen.users x
          where x.bucket = in_bucket) u,
         (select count(*), coalesce(bit_xor(hash_record_extended(x, 0)), 0) from denizen.login_names x
          where x.bucket = in_bucket) l,
         (select count(*), coalesce(bit_xor(hash_record_extended(x, 0)), 0) from denizen.login_names_unsettled x
          where x.bucket = in_bucket) s,
         (select count(*), coalesce(bit_xor(hash_record_extended(x, 0)), 0) from denizen.idempotency x
          where x.bucket = in_bucket) i,
         (select count(*), coalesce(bit_xor(hash_record_extended(x, 0)), 0) from denizen.cancelled_commands x
          where x.bucket = in_bucket) c,
         (select count(*), coalesce(bit_xor(hash_record_extended(row(x.sequence, x.secret), 0)), 0) from denizen.events x
          where x.bucket = in_bucket and x.secret is not null) t
    where b.bucket = in_bucket
$$;

-- The same, with only these users and these login names counted, and no secrets.
create function denizen.move_digest_of(in_bucket smallint, in_users uuid[], in_kind smallint[], in_value text[])
returns denizen.bucket_digest language sql stable as $$
    select row(b.head, b.digest, u.*, l.*, s.*, i.*, c.*, t.*)::denizen.bucket_digest
    from denizen.buckets b,
         (select count(*), coalesce(bit_xor(hash_record_extended(x, 0)), 0)
          from unnest(in_users) as g (id) join denizen.users x on x.bucket = in_bucket and x.id = g.id) u,
         (select count(*), coalesce(bit_xor(hash_record_extended(x, 0)), 0)
          from unnest(in_kind, in_value) as g (kind, value)
          join denizen.login_names x on x.bucket = in_bucket and x.kind = g.kind and x.value = g.value) l,
         (select count(*), coalesce(bit_xor(hash_record_extended(x, 0)), 0) from denizen.login_names_unsettled x
          where x.bucket = in_bucket) s,
         (select count(*), coalesce(bit_xor(hash_record_extended(x, 0)), 0) from denizen.idempotency x
          where x.bucket = in_bucket) i,
         (select count(*), coalesce(bit_xor(hash_record_extended(x, 0)), 0) from denizen.cancelled_commands x
          where x.bucket = in_bucket) c,
         (select 0, 0) t
    where b.bucket = in_bucket
$$;

-- The fence: afterwards the source takes no write for the bucket. Nothing happens if the lock does not come in time, or
-- if more events came than the target is known to be able to take up in a moment (`in_head_max`).
create function denizen.move_fence(
    in_move uuid, in_attempt integer, in_bucket smallint, in_epoch integer, in_fence_epoch integer, in_head_max bigint,
    in_wait_ms integer
) returns table (head bigint, digest bigint) language plpgsql as $$
declare
    entered denizen.bucket_moves;
    owned   denizen.buckets;
begin
    perform set_config('lock_timeout', in_wait_ms::text, true);
    entered := denizen.move_enter(in_move, in_attempt, in_bucket);
    select * into owned from denizen.buckets b where b.bucket = in_bucket for update;
    if entered.state = 'fenced' and owned.state = 'fenced' and owned.epoch <= in_fence_epoch then
        null;  -- a repetition
    elsif entered.state <> 'begun' or owned.state is distinct from 'open' or owned.epoch <> in_epoch then
        perform denizen.move_refuse('bucket_not_here', format(
            'bucket %s is %s here at epoch %s', in_bucket, coalesce(owned.state, 'unknown'), coalesce(owned.epoch, 0)));
    elsif owned.head > in_head_max then
        perform denizen.move_refuse('too_far_behind', format(
            'bucket %s is at %s here, more than %s', in_bucket, owned.head, in_head_max));
    end if;
    update denizen.buckets b set state = 'fenced', epoch = in_fence_epoch where b.bucket = in_bucket;
    if entered.state = 'begun' then
        perform denizen.move_set(in_move, in_bucket, 'fenced');
    end if;
    return query select owned.head, owned.digest;
end
$$;

-- What the fenced source has that the target has not: events after a sequence, and what is carried as it is. Null if
-- there are more events than `in_events_max`.
create function denizen.move_rest(
    in_move uuid, in_attempt integer, in_bucket smallint, in_fence_epoch integer, in_after bigint, in_events_max integer,
    in_keys_since text
) returns table (
    head bigint, digest bigint, events denizen.events[], records denizen.idempotency[], commands denizen.cancelled_commands[]
) language plpgsql as $$
declare
    entered denizen.bucket_moves := denizen.move_enter(in_move, in_attempt, in_bucket);
    owned   denizen.buckets;
begin
    select * into owned from denizen.buckets b where b.bucket = in_bucket for share;
    if entered.state <> 'fenced' or owned.state is distinct from 'fenced' or owned.epoch <> in_fence_epoch then
        perform denizen.move_refuse('bucket_not_here', format(
            'bucket %s is not fenced here by this move at epoch %s', in_bucket, in_fence_epoch));
    end if;
    move_rest.head := owned.head;
    move_rest.digest := owned.digest;
    if owned.head - in_after <= in_events_max then
        move_rest.events := array(
            select e from denizen.events e where e.bucket = in_bucket and e.sequence > in_after order by e.sequence);
        move_rest.records := array(
            select i from denizen.idempotency i where i.bucket = in_bucket and i.recorded_at >= in_keys_since::timestamptz);
        move_rest.commands := array(select c from denizen.cancelled_commands c where c.bucket = in_bucket);
    end if;
    return next;
end
$$;

-- Where the target is: the head of its copy, and from when on idempotency records may be missing. What follows in the
-- same transaction is done under the locks taken here.
create function denizen.move_position(
    in_move uuid, in_attempt integer, in_bucket smallint, out head bigint, out keys_since text
) language plpgsql as $$
declare
    entered denizen.bucket_moves := denizen.move_enter(in_move, in_attempt, in_bucket);
begin
    select b.head into move_position.head from denizen.buckets b
    where b.bucket = in_bucket and b.state = 'incoming' for update;
    if not found or entered.state not in ('copying', 'verified') then
        perform denizen.move_refuse('bucket_not_here', format(
            'bucket %s is not incoming here: its move is %s', in_bucket, entered.state));
    end if;
    -- A record is stamped under its bucket's lock, so they come in order, but for clocks that are set back.
    select coalesce((max(i.recorded_at) - interval '1 minute')::text, '-infinity') into move_position.keys_since
    from denizen.idempotency i where i.bucket = in_bucket;
end
$$;

-- Take up on the target what follows `in_after`. The events are in the table already; what they fold to comes with this:
-- users in place of those of the same ids, login names and unsettled ones in place of the keys in `g_*`. Dense, or not
-- at all. The head and the digest are those of the rows that are now in the table.
create function denizen.move_apply(
    in_bucket smallint, in_after bigint, in_head bigint, in_users denizen.users[], g_kind smallint[], g_value text[],
    in_names denizen.login_names[], in_unsettled denizen.login_names_unsettled[]
) returns void language plpgsql as $$
declare
    fresh record;
begin
    select count(*) as rows, coalesce(bit_xor(denizen.event_hash(e)), 0) as digest, coalesce(max(e.sequence), in_after) as head
    into fresh from denizen.events e where e.bucket = in_bucket and e.sequence > in_after;
    if fresh.rows <> in_head - in_after or fresh.head <> in_head then
        perform denizen.move_refuse('move_refused', format(
            'bucket %s has %s events from %s to %s', in_bucket, fresh.rows, in_after, in_head));
    end if;
    if in_after > 0 then
        delete from denizen.users u where u.bucket = in_bucket and u.id in (select x.id from unnest(in_users) as x);
    end if;
    insert into denizen.users select * from unnest(in_users);
    if cardinality(g_kind) > 0 then
        delete from denizen.login_names l using unnest(g_kind, g_value) as g (kind, value)
        where l.bucket = in_bucket and l.kind = g.kind and l.value = g.value;
        delete from denizen.login_names_unsettled l using unnest(g_kind, g_value) as g (kind, value)
        where l.bucket = in_bucket and l.kind = g.kind and l.value = g.value;
    end if;
    insert into denizen.login_names select * from unnest(in_names);
    insert into denizen.login_names_unsettled select * from unnest(in_unsettled);
    update denizen.buckets b set head = in_head, digest = b.digest # fresh.digest where b.bucket = in_bucket;
end
$$;

-- What is carried as it is, in place of what the target has since then.
create function denizen.move_carry(
    in_bucket smallint, in_keys_since text, in_keys denizen.idempotency[], in_cancelled denizen.cancelled_commands[]
) returns void language plpgsql as $$
begin
    delete from denizen.idempotency i where i.bucket = in_bucket and i.recorded_at >= in_keys_since::timestamptz;
    insert into denizen.idempotency select * from unnest(in_keys);
    delete from denizen.cancelled_commands c where c.bucket = in_bucket;
    insert into denizen.cancelled_commands select * from unnest(in_cancelled);
end
$$;

-- Secrets change without an event when they are wrapped anew: those of the target become these.
create function denizen.move_secrets(in_bucket smallint, in_sequence bigint[], in_secret bytea[]) returns void
language plpgsql as $$
begin
    update denizen.events e set secret = null
    where e.bucket = in_bucket and e.secret is not null and e.sequence <> all (in_sequence);
    update denizen.events e set secret = n.secret from unnest(in_sequence, in_secret) as n (sequence, secret)
    where e.bucket = in_bucket and e.sequence = n.sequence and e.secret is distinct from n.secret;
end
$$;

-- How many events the target has, and their digest, from the rows themselves.
create function denizen.move_events(in_bucket smallint, in_after bigint, out rows bigint, out digest bigint)
language sql stable as $$
    select count(*), coalesce(bit_xor(denizen.event_hash(e)), 0)
    from denizen.events e where e.bucket = in_bucket and e.sequence > in_after
$$;

-- The target was compared with the fenced source and is equal.
create function denizen.move_verified(in_move uuid, in_attempt integer, in_bucket smallint) returns void
language plpgsql as $$
declare
    entered denizen.bucket_moves := denizen.move_enter(in_move, in_attempt, in_bucket);
begin
    if entered.state not in ('copying', 'verified') then
        perform denizen.move_refuse('move_refused', format('the move of bucket %s is %s here', in_bucket, entered.state));
    end if;
    perform denizen.move_set(in_move, in_bucket, 'verified');
end
$$;

-- The target takes writes from now on.
create function denizen.move_open(in_move uuid, in_attempt integer, in_bucket smallint, in_epoch integer) returns void
language plpgsql as $$
declare
    entered denizen.bucket_moves := denizen.move_enter(in_move, in_attempt, in_bucket);
begin
    if entered.state = 'opened' then
        return;
    elsif entered.state <> 'verified' then
        perform denizen.move_refuse('not_verified', format('bucket %s was not found equal under this fence', in_bucket));
    end if;
    update denizen.buckets b set state = 'open', epoch = in_epoch where b.bucket = in_bucket and b.state = 'incoming';
    if not found then
        perform denizen.move_refuse('bucket_not_here', format('bucket %s is not incoming here', in_bucket));
    end if;
    perform denizen.move_set(in_move, in_bucket, 'opened');
end
$$;

-- No attempt up to this one opens the target any more; for ever, if asked so. False: it is open already (on the source:
-- it was closed).
create function denizen.move_bar(
    in_move uuid, in_attempt integer, in_bucket smallint, in_forever boolean, in_target boolean
) returns boolean language plpgsql as $$
declare
    entered denizen.bucket_moves;
begin
    perform pg_advisory_xact_lock(1685416301, in_bucket);
    insert into denizen.bucket_moves (move, bucket, attempt, state)
    values (in_move, in_bucket, in_attempt,
            case when in_forever then 'aborted' when in_target then 'clearing' else 'begun' end)
    on conflict do nothing;
    entered := denizen.move_enter(in_move, in_attempt, in_bucket, in_ended => true);
    if entered.state in ('opened', 'closed', 'cleaned', 'past') then
        return false;
    elsif in_forever then
        perform denizen.move_set(in_move, in_bucket, 'aborted');
    elsif entered.state = 'verified' then
        perform denizen.move_set(in_move, in_bucket, 'copying');
    end if;
    return true;
end
$$;

-- The source takes writes again, at this epoch, whether it was fenced or not.
create function denizen.move_reopen(in_move uuid, in_attempt integer, in_bucket smallint, in_epoch integer) returns void
language plpgsql as $$
declare
    entered denizen.bucket_moves := denizen.move_enter(in_move, in_attempt, in_bucket, in_ended => true);
    owned   denizen.buckets;
begin
    select * into owned from denizen.buckets b where b.bucket = in_bucket for update;
    if owned.state = 'open' and owned.epoch = in_epoch then
        return;
    elsif entered.state not in ('begun', 'fenced', 'aborted') or owned.state not in ('open', 'fenced')
          or owned.epoch >= in_epoch then
        perform denizen.move_refuse('bucket_not_here', format(
            'bucket %s is %s here at epoch %s', in_bucket, coalesce(owned.state, 'unknown'), coalesce(owned.epoch, 0)));
    end if;
    update denizen.buckets b set state = 'open', epoch = in_epoch where b.bucket = in_bucket;
    if entered.state = 'fenced' then
        perform denizen.move_set(in_move, in_bucket, 'begun');
    end if;
end
$$;

-- The target is open: the source answers "moved" for ever.
create function denizen.move_close(in_move uuid, in_attempt integer, in_bucket smallint, in_epoch integer) returns void
language plpgsql as $$
declare
    entered denizen.bucket_moves := denizen.move_enter(in_move, in_attempt, in_bucket, in_ended => true);
begin
    if entered.state in ('closed', 'cleaned', 'past') then
        return;
    end if;
    update denizen.buckets b set state = 'moved', epoch = in_epoch
    where b.bucket = in_bucket and b.state = 'fenced' and entered.state = 'fenced';
    if not found then
        perform denizen.move_refuse('bucket_not_here', format('bucket %s is not fenced here by this move', in_bucket));
    end if;
    perform denizen.move_set(in_move, in_bucket, 'closed');
end
$$;
