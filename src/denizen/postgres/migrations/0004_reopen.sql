-- The source takes writes again, at this epoch, whether it was fenced or not. One that was closed already does so only
-- by an operator's word that the target, which may be open, is gone for good; nobody else asks for it.
create or replace function denizen.move_reopen(
    in_move uuid, in_attempt integer, in_bucket smallint, in_epoch integer
) returns void language plpgsql as $$
declare
    entered denizen.bucket_moves := denizen.move_enter(in_move, in_attempt, in_bucket, in_ended => true);
    owned   denizen.buckets;
begin
    select * into owned from denizen.buckets b where b.bucket = in_bucket for update;
    if owned.state = 'open' and owned.epoch = in_epoch then
        return;
    elsif not (entered.state = 'closed' and owned.state = 'moved' and owned.epoch <= in_epoch)
          and not (entered.state in ('begun', 'fenced', 'aborted') and owned.state in ('open', 'fenced')
                   and owned.epoch < in_epoch) then
        perform denizen.move_refuse('bucket_not_here', format(
            'bucket %s is %s here at epoch %s', in_bucket, coalesce(owned.state, 'unknown'), coalesce(owned.epoch, 0)));
    end if;
    update denizen.buckets b set state = 'open', epoch = in_epoch where b.bucket = in_bucket;
    if entered.state in ('fenced', 'closed') then
        perform denizen.move_set(in_move, in_bucket, 'begun');
    end if;
end
$$;
