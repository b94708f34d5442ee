-- Returns the functions of the schema `notifyman`: an array of the key and the fields of `InstalledFunction` for each.
SELECT json_build_array(json_build_array(p.proname, pg_get_function_identity_arguments(p.oid)), json_build_object(
    'body', p.prosrc,
    'is_definer', p.prosecdef,
    'settings', coalesce(array_to_string(p.proconfig, '; '), ''),
    'owner', pg_get_userbyid(p.proowner),
    'is_public', has_function_privilege('public', p.oid, 'EXECUTE'),
    'is_used', EXISTS (SELECT FROM pg_trigger WHERE tgfoid = p.oid),
    'is_trigger', p.prorettype = 'trigger'::regtype,
    'is_immutable', p.provolatile = 'i'))
FROM pg_proc p WHERE p.pronamespace = to_regnamespace('notifyman') ORDER BY p.proname
