-- Returns the comment of the schema, its owner, and whether the role can trust the owner: a superuser, the owner of the
-- database, or a role that it is a member of.
SELECT obj_description(n.oid, 'pg_namespace'), r.rolname,
    r.rolsuper OR r.oid = d.datdba OR pg_has_role(current_user, r.oid, 'MEMBER')
FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner JOIN pg_database d ON d.datname = current_database()
WHERE n.nspname = 'notifyman'
