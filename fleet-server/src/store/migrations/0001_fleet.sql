-- Times are seconds since 1970 UTC. Package ids are 32 bytes. JSON is text.

create table documents (
    kind text primary key not null,
    version integer not null,
    body blob not null,
    at integer not null
) strict;

create table claims (
    digest blob primary key not null,
    device text,
    tags text not null,
    created_at integer not null,
    expires_at integer not null,
    used_at integer,
    used_by text
) strict, without rowid;

create table devices (
    device text primary key not null,
    attributes text not null,
    enrolled_at integer not null,
    last_seen integer,
    health_at integer,
    health blob
) strict, without rowid;

-- What each slot shall do (desired_*), and what it last told (status*).
create table slots (
    device text not null references devices (device),
    slot text not null,
    desired text,
    desired_release blob,
    disabled text,
    rollout integer,
    assigned_at integer,
    status_at integer,
    status blob,
    -- The report that told the status: an older one may arrive later.
    status_boot integer,
    status_seq integer,
    status_told_at integer,
    primary key (device, slot)
) strict, without rowid;

-- The signed desired state of each device. `stale` is set by whoever changes a slot, and cleared
-- by whoever signs.
create table assignments (
    device text primary key not null references devices (device),
    epoch integer not null,
    n integer not null,
    stale integer not null,
    issued_at integer not null,
    expires_at integer not null,
    signed blob not null
) strict, without rowid;

create table packages (
    id blob primary key not null,
    model text not null,
    version text not null,
    created integer not null,
    uploaded_at integer not null,
    golden_mismatch integer not null,
    manifest blob not null,
    sections_bytes integer not null,
    blob text not null,
    contract blob not null,
    baseline blob not null
) strict, without rowid;

create table approvals (
    package blob not null references packages (id),
    digest blob not null,
    body blob not null,
    at integer not null,
    primary key (package, digest)
) strict, without rowid;

create table rollouts (
    id integer primary key autoincrement,
    slot text not null,
    release blob not null references packages (id),
    previous blob references packages (id),
    selector text not null,
    policy text not null,
    state text not null,
    stage integer,
    stage_since integer not null,
    started_at integer,
    generation integer not null,
    created_at integer not null
) strict;

create index rollouts_by_state on rollouts (state);

create table rollout_devices (
    rollout integer not null references rollouts (id),
    device text not null references devices (device),
    arm text not null,
    assigned_at integer,
    primary key (rollout, device)
) strict, without rowid;

create table decisions (
    id integer primary key autoincrement,
    rollout integer not null references rollouts (id),
    generation integer not null,
    stage integer,
    at integer not null,
    last_at integer not null,
    repeated integer not null,
    kind text not null,
    text text not null,
    reasons text not null,
    figures text not null
) strict;

create index decisions_by_rollout on decisions (rollout, id);

-- Every report that was taken, so that one that is sent again is known.
create table reports (
    device text not null references devices (device),
    boot integer not null,
    seq integer not null,
    received_at integer not null,
    primary key (device, boot, seq)
) strict, without rowid;

create index reports_by_age on reports (received_at);

create table windows (
    id integer primary key autoincrement,
    device text not null references devices (device),
    slot text not null,
    release blob not null,
    baseline blob not null,
    started_at integer not null,
    received_at integer not null,
    invalid text,
    body blob not null
) strict;

create index windows_by_slot on windows (device, slot, received_at);

create table outcomes (
    id integer primary key autoincrement,
    device text not null references devices (device),
    slot text not null,
    rollout integer,
    at integer not null,
    seq integer not null,
    received_at integer not null,
    body blob not null
) strict;

create index outcomes_by_slot on outcomes (device, slot, at, seq);
create index outcomes_by_rollout on outcomes (rollout, device, at, seq);

create table flags (
    key text primary key not null,
    at integer not null,
    last_at integer not null,
    kind text not null,
    device text,
    rollout integer,
    slot text,
    fields text not null,
    text text not null
) strict;

create table audit (
    id integer primary key autoincrement,
    at integer not null,
    actor text not null,
    action text not null,
    subject text not null,
    text text not null
) strict;
