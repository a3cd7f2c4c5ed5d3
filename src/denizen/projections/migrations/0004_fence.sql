-- A batch is applied by one statement. It must change nothing if somebody else has advanced one of its checkpoints: then
-- fewer of them than expected were as the writer believed, and the whole statement fails.

create function denizen_read.require_advanced(advanced bigint, expected bigint) returns void
language plpgsql as $$
begin
    if advanced <> expected then
        raise exception 'another projector runs this version' using errcode = 'DZ001';
    end if;
end $$;
