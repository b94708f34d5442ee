DO {tag} BEGIN
    IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = {role}
            AND shobj_description(r.oid, 'pg_authid') LIKE '%Made by `notifyman build`%'
            AND NOT EXISTS (
                SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid)) THEN
        DROP ROLE {owner};
    END IF;
EXCEPTION
    WHEN dependent_objects_still_exist OR insufficient_privilege THEN NULL;
END {tag};
