-- Whose read models these are. Two deployments in one read database would apply their events to the same rows.
create table denizen_read.owner (
    one        boolean primary key check (one),
    deployment uuid    not null
);
