-- Saves a position under a name.
INSERT INTO notifyman.position (name, place, snapshot, moved_at) VALUES ({name}, {place}, '{snapshot}', clock_timestamp())
ON CONFLICT (name) DO UPDATE SET place = excluded.place, snapshot = excluded.snapshot, moved_at = excluded.moved_at
