    DECLARE
        -- Most of the statement's timeout is left to the statement. A query of several statements counts as one.
        timeout  interval := current_setting('statement_timeout')::interval;
        deadline timestamptz := CASE WHEN timeout > '0'
            THEN least(began + timeout / 5, statement_timestamp() + timeout / 2) ELSE began + '200 ms' END;
        -- The tables that the statement names, and then their children, which are examined in parts.
        family   oid[];
        part     oid[];
        left_out text[];
        relation record;
    BEGIN
        -- A foreign table changes how its whole tree is reported.
        WITH RECURSIVE above (oid) AS (
            SELECT ftrelid FROM pg_foreign_table WHERE ftrelid = ANY (changed)
            UNION SELECT i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = above.oid
        ), f (oid) AS (
            SELECT unnest(changed) UNION SELECT oid FROM above
            UNION SELECT i.inhrelid FROM f JOIN pg_inherits i ON i.inhparent = f.oid
        ) SELECT array_agg(f.oid ORDER BY f.oid = ANY (changed) DESC, f.oid) INTO family FROM f;
        part := family[1:cardinality(changed)];
        family := family[cardinality(changed) + 1:];
        WHILE part <> '{}' LOOP
            FOR relation IN
                SELECT * FROM (
{tables}
                ) r WHERE r.statements IS NOT NULL ORDER BY r.oid
            LOOP
                IF NOT relation.oid = ANY (changed) AND clock_timestamp() > deadline THEN
                    left_out := left_out || relation.sql_name;
                    CONTINUE;
                END IF;
                BEGIN
                    EXECUTE relation.statements;
                EXCEPTION WHEN others THEN
                    RAISE WARNING 'notifyman: table % is not covered: %', relation.sql_name, SQLERRM
                        USING HINT = 'Run `notifyman build` with the same options.';
                END;
            END LOOP;
            EXIT WHEN clock_timestamp() > deadline;
            part := family[1:100];
            family := family[101:];
        END LOOP;
        IF family <> '{}' THEN
            left_out := left_out || ARRAY(
                SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = ANY (family) ORDER BY c.oid);
        END IF;
        IF left_out <> '{}' THEN
            {report}row_to_json(r){end} (
                SELECT 'incomplete' AS event, cardinality(left_out) AS count, left_out[1:10] AS tables) r;
            RAISE WARNING 'notifyman: % tables, such as %, are left to the next build, so that this statement is not delayed',
                cardinality(left_out), left_out[1] USING HINT = 'Run `notifyman build` with the same options.';
        END IF;
    END;
