-- Returns the event triggers of the installation: the statement that drops it, and whether it is enabled.
SELECT format('DROP EVENT TRIGGER IF EXISTS %I;', e.evtname), e.evtenabled
FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid JOIN pg_namespace f ON f.oid = p.pronamespace
WHERE f.nspname = 'notifyman' ORDER BY 1
