-- Since when the broker has not had a connection of the device, and which boot was last heard.
alter table devices add column gone_at integer;
alter table devices add column last_boot integer;
