-- Returns the properties of a server, a database and a role, as the fields of `ServerFacts`.
SELECT row_to_json(facts) FROM (
    SELECT current_setting('server_version_num')::int / 10000 AS version,
        pg_is_in_recovery() AS is_standby,
        current_setting('max_prepared_transactions') <> '0' AS allows_prepare,
        n.oid IS NOT NULL AS has_schema,
        coalesce(obj_description(n.oid, 'pg_namespace'), '') AS comment,
        coalesce(i.rolname, '') AS installer,
        coalesce(i.rolsuper, false) AS is_installer_superuser,
        coalesce(i.oid = d.datdba, false) AS is_installer_database_owner,
        has_database_privilege(d.oid, 'CREATE') AS may_create_schema,
        d.datname AS database,
        current_user AS role,
        coalesce(r.rolsuper, false) AS is_superuser,
        coalesce(r.rolsuper OR r.rolcreaterole, false) AS may_create_role,
        CASE WHEN current_setting('server_version_num')::int >= 160000
            THEN pg_has_role(current_user, o.oid, 'SET') ELSE pg_has_role(current_user, o.oid, 'MEMBER') END AS is_owner_member,
        coalesce(o.rolsuper OR o.rolcanlogin, false) AS is_owner_too_powerful,
        (SELECT string_agg(quote_ident(m.rolname), ', ' ORDER BY m.rolname)
            FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member
            WHERE a.roleid = o.oid AND NOT m.rolsuper AND m.rolname <> current_user) AS owner_members,
        (SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout') AS deadlock_timeout,
        coalesce(r.rolsuper, false) AS may_set_deadlock_timeout,
        (SELECT string_agg(quote_ident(pubname), ', ' ORDER BY pubname) FROM pg_publication WHERE puballtables) AS publications,
        has_function_privilege('public', 'pg_notify(text,text)', 'EXECUTE') AS may_notify
    FROM pg_database d
        LEFT JOIN pg_namespace n ON n.nspname = 'notifyman'
        LEFT JOIN pg_roles i ON i.oid = n.nspowner
        LEFT JOIN pg_roles r ON r.rolname = current_user
        LEFT JOIN pg_roles o ON o.rolname = {owner}
    WHERE d.datname = current_database()) facts
