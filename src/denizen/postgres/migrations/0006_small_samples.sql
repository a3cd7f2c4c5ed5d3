-- Smaller samples for the planner. These tables grow by all rows alike, and every query finds its rows by a key that begins
-- with the bucket or is the stream: what the planner has to know of them is next to nothing, yet a sample of 30,000 rows,
-- sorted column by column, was taken anew whenever a table had grown by a twentieth. A tenth of it says the same.

alter table denizen.events
    alter column sequence set statistics 10, alter column recorded_at set statistics 10,
    alter column stream set statistics 10, alter column version set statistics 10,
    alter column bucket set statistics 10, alter column type set statistics 10,
    alter column schema set statistics 10, alter column command_id set statistics 10,
    alter column correlation_id set statistics 10, alter column actor set statistics 10;
alter table denizen.users
    alter column id set statistics 10, alter column created_at set statistics 10,
    alter column updated_at set statistics 10, alter column version set statistics 10,
    alter column bucket set statistics 10, alter column status set statistics 10;
alter table denizen.login_names
    alter column user_id set statistics 10, alter column bucket set statistics 10, alter column kind set statistics 10;
