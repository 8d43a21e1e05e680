-- What late labels said of predictions, as devices counted them.
create table labels (
    id integer primary key autoincrement,
    device text not null references devices (device),
    slot text not null,
    release blob not null,
    field integer not null,
    started_at integer not null,
    received_at integer not null,
    invalid text,
    body blob not null
) strict;

create index labels_by_slot on labels (device, slot);
create index labels_by_release on labels (release);
