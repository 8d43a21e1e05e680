-- Certificates of devices, so that one can be taken back, and renewed while another is in use.
-- The serial number is lower-case hexadecimal without leading zeros.
create table certificates (
    serial text primary key not null,
    device text not null references devices (device),
    issued_at integer not null,
    expires_at integer not null,
    revoked_at integer
) strict, without rowid;

create index certificates_by_device on certificates (device, issued_at);

-- Since when, and why, a device may not connect any more.
alter table devices add column revoked_at integer;
alter table devices add column revoked_why text;

-- SHA-256 of the key that a claim was used for: the same device may ask once more.
alter table claims add column used_key blob;
