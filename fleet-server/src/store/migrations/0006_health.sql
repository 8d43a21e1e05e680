-- Health has more in it now, and what was kept before cannot be read any more. A device tells it anew
-- within minutes.
update devices set health = null, health_at = null;
