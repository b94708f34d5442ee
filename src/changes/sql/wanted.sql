-- The triggers that tables must have.
--
-- A function such as `rows_..` is for all tables that are equal in the columns which it names, and its name contains a digest of
-- these. While it does not exist, the function for any table is used. Event triggers execute this query as well, so it only reads
-- catalogs, and evaluates nothing that a user created.
--
-- Partitions have triggers of their own, and the root of their tree has none for rows. No trigger is cloned, so attaching and
-- detaching a partition neither conflicts with triggers nor changes them. In the keys shape, a statement fires the triggers of
-- the table that it names, so the root has them as well. Triggers fire in the order of their names, and `0_` sorts before most
-- other names: if another trigger writes the same row again, both changes are reported in order.
WITH RECURSIVE o AS ({options}),
-- The trees with a foreign table: later releases refuse to write to them through a parent with such triggers.
above (oid) AS (
    SELECT f.ftrelid FROM pg_foreign_table f JOIN pg_inherits i ON i.inhrelid = f.ftrelid
    UNION SELECT i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = above.oid
),
mixed (oid) AS (
    SELECT oid FROM above UNION SELECT i.inhrelid FROM mixed JOIN pg_inherits i ON i.inhparent = mixed.oid
),
t AS MATERIALIZED (
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relowner, format('%I.%I', n.nspname, c.relname) AS sql_name,
        -- Releases from before August 2025 cannot attach a table that has triggers with transition tables.
        current_setting('server_version_num')::int >= CASE current_setting('server_version_num')::int / 10000
            WHEN 12 THEN 130000 WHEN 13 THEN 130022 WHEN 14 THEN 140019 WHEN 15 THEN 150014 WHEN 16 THEN 160010
            WHEN 17 THEN 170006 ELSE 180000 END
        AND c.relkind <> 'f' AND NOT EXISTS (SELECT FROM mixed WHERE mixed.oid = c.oid) AS has_transitions,
        {coverable} AND
{named} AS is_selected
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        -- A statement may name a partition, which is reported under the name of its root.
        LEFT JOIN pg_class root ON c.relispartition AND root.oid = pg_partition_root(c.oid)
        LEFT JOIN pg_namespace root_n ON root_n.oid = root.relnamespace, o
    WHERE c.relkind IN ('r', 'p', 'f') AND {only}
),
s AS MATERIALIZED (
    SELECT t.*, coalesce(guard.columns, '[]') AS guard, coalesce(key.columns, '[]') AS key,
        coalesce(key.names, '[]')::text AS key_names,
        -- All roles that write to the table would execute a cast of such a type to JSON, and they only trust the table's owner.
        NOT EXISTS (
            WITH RECURSIVE u (type) AS (
                SELECT a.atttypid FROM pg_attribute a
                WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
                UNION
                SELECT part.type FROM u JOIN pg_type y ON y.oid = u.type, LATERAL (
                    SELECT y.typelem UNION ALL SELECT y.typbasetype UNION ALL
                    SELECT a.atttypid FROM pg_attribute a
                    WHERE a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped) part (type)
                WHERE part.type >= 16384
            )
            SELECT FROM u JOIN pg_type y ON y.oid = u.type JOIN pg_roles r ON r.oid = y.typowner
            WHERE y.typowner <> t.relowner AND NOT r.rolsuper) AS is_readable
    FROM t,
        -- The columns with values that can be in TOAST storage, and so be long.
        LATERAL (
            SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, NULL)) ORDER BY a.attname COLLATE "C") AS columns
            FROM pg_attribute a
            WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage IN ('x', 'e')
              AND a.attgenerated <> 'v') guard,
        -- The columns of the primary key, or else of the replica identity's index. An index of a partitioned table counts even
        -- while a partition does not have it yet.
        LATERAL (
            SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, NULL)) ORDER BY a.attnum) AS columns,
                json_agg(a.attname ORDER BY a.attnum) AS names
            FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY ((
                SELECT (string_to_array(i.indkey::text, ' ')::int2[])[1:i.indnkeyatts] FROM pg_index i
                WHERE i.indrelid = t.oid AND (i.indisprimary OR i.indisreplident)
                ORDER BY i.indisprimary DESC LIMIT 1)::int2[])) key
    WHERE t.is_selected
),
w AS (
    SELECT s.oid, w.name::name AS name, w.type::int2 AS type, w.clause, w.generic, w.columns,
        w.generic || coalesce('_' || left(encode(sha256(convert_to(w.columns, getdatabaseencoding())), 'hex'), 32), '') AS exact
    FROM s, o, LATERAL (VALUES
        ('0_notifyman', 29, o.shape = 'rows' AND s.relkind <> 'p' AND s.is_readable, 'rows', json_build_array(s.guard, s.key)::text,
            'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW'),
        ('0_notifyman', 29, o.shape = 'keys' AND s.relkind <> 'p' AND NOT s.has_transitions AND s.is_readable, 'row_keys', s.key::text,
            'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW'),
        ('0_notifyman_insert', 4, o.shape = 'keys' AND s.has_transitions AND s.is_readable, 'insert_keys', s.key_names,
            'AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT'),
        ('0_notifyman_update', 16, o.shape = 'keys' AND s.has_transitions AND s.is_readable, 'update_keys', s.key_names,
            'AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT'),
        ('0_notifyman_delete', 8, o.shape = 'keys' AND s.has_transitions AND s.is_readable, 'delete_keys', s.key_names,
            'AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT'),
        ('0_notifyman', 29, s.relkind <> 'p' AND NOT s.is_readable, 'markers', NULL,
            'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW'),
        ('0_notifyman_truncate', 32, s.relkind = 'r', 'truncated', NULL, 'AFTER TRUNCATE ON %s FOR EACH STATEMENT')
    ) AS w (name, type, is_wanted, generic, columns, clause)
    WHERE w.is_wanted
)
