//! No role gains privileges of another role by an installation: rule G04.

use notifyman::changes::{DeliveryMode, Installer, Oversize, Shape};
use serde_json::json;

use super::support::{Site, site, site_in};
use crate::support::Options;
use crate::support::server::start;

/// Returns an installer for each set of functions.
fn installers() -> Vec<Installer> {
    let mut all = Vec::new();
    for shape in [Shape::Rows, Shape::Keys] {
        for schema_events in [true, false] {
            let installer = Installer::new().shape(shape).schema_events(schema_events);
            all.push(installer.clone());
            all.push(installer.clone().oversize(Oversize::Spill));
            all.push(installer.delivery(DeliveryMode::Log).with_query(true));
        }
    }
    all
}

/// Creates a role that owns a schema, and a table in which its code records the executing role.
fn tenant(site: &mut Site) -> String {
    let role = format!("tenant_{}", std::process::id());
    site.run(&format!(
        "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         CREATE SCHEMA tn AUTHORIZATION {role}; CREATE TABLE public.caught (role name, code text);
         GRANT ALL ON public.caught TO PUBLIC"
    ));
    role
}

/// Returns a function of the tenant that records the executing role, and tries to gain privileges for the tenant.
fn trap(name: &str, arguments: &str, returns: &str, result: &str) -> String {
    format!(
        "CREATE FUNCTION tn.{name}({arguments}) RETURNS {returns} LANGUAGE plpgsql AS $f$ BEGIN
            INSERT INTO public.caught VALUES (current_user, '{name}');
            BEGIN EXECUTE format('ALTER ROLE %I SUPERUSER', session_user);
            EXCEPTION WHEN others THEN NULL; END;
            RETURN {result};
         END $f$;"
    )
}

#[test]
fn g04_the_owner_of_a_table_gets_no_privileges_of_other_roles() {
    for installer in installers() {
        let mut site = site();
        let role = tenant(&mut site);
        site.build(&installer);
        let mut db = site.session();
        db.execute(&format!("SET SESSION AUTHORIZATION {role}; SET search_path = tn")).unwrap();
        let traps = [
            trap("to_j", "tn.mood", "json", "'1'::json"),
            trap("to_t", "tn.mood", "text", "'1'"),
            trap("checked", "int", "boolean", "true"),
            trap("is_equal", "text, text", "boolean", "true"),
            trap("octet_length", "text", "int", "1"),
            trap("concat", "text, text", "text", "'{}'"),
            trap("own", "", "trigger", "NULL"),
        ];
        db.execute(&format!(
            "CREATE TYPE mood AS ENUM ('x'); {}
             CREATE CAST (mood AS json) WITH FUNCTION to_j(mood) AS IMPLICIT; CREATE CAST (mood AS text) WITH FUNCTION to_t(mood) AS IMPLICIT;
             CREATE DOMAIN even AS int CHECK (tn.checked(VALUE));
             CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = is_equal)",
            traps.concat()
        ))
        .unwrap();
        for change in [
            "ALTER TABLE t ALTER c TYPE mood USING 'x'",
            "SET notifyman.is_covering = 'true'; ALTER TABLE t ALTER c TYPE mood USING 'x'; RESET notifyman.is_covering",
            "DO $$ DECLARE n text; BEGIN
                FOR n IN SELECT tgname FROM pg_trigger WHERE tgrelid = 't'::regclass LOOP
                    EXECUTE format('DROP TRIGGER %I ON t', n);
                    EXECUTE format('CREATE TRIGGER %I AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION own()', n);
                END LOOP;
            END $$; ALTER TABLE t ALTER c TYPE mood USING 'x'",
            "ALTER TABLE t ADD d even DEFAULT 2, ADD m mood DEFAULT 'x'",
            "ALTER TABLE t RENAME c TO \"x');ALTER ROLE CURRENT_USER SUPERUSER;--\"",
        ] {
            db.execute("CREATE TABLE t (id int PRIMARY KEY, c int)").unwrap();
            db.execute(change).unwrap();
            db.execute(
                "INSERT INTO t VALUES (1); UPDATE t SET id = 2; SET search_path = tn, pg_catalog; UPDATE t SET id = 3;
                 DELETE FROM t; SET search_path = tn; TRUNCATE t; DROP TABLE t",
            )
            .unwrap();
        }
        let super_users = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}' AND rolsuper");
        assert_eq!(site.ask(&super_users), "0", "{installer:?}");
        assert_eq!(site.ask("SELECT coalesce(string_agg(DISTINCT role, ' '), '') FROM caught"), role, "{installer:?}");
        // The tenant's code runs as any role that writes to its table, as always. It never runs as the owner of a DBA's table.
        site.run("TRUNCATE caught; CREATE TABLE public.dba (id int PRIMARY KEY, c text); INSERT INTO public.dba VALUES (1, 'x');
                  UPDATE public.dba SET c = 'y'; ALTER TABLE public.dba ADD d int; DROP TABLE public.dba");
        assert_eq!(site.ask("SELECT count(*) FROM caught"), "0", "{installer:?}");
    }
}

/// The caller's search path has a type, operators and functions that hide PostgreSQL's.
#[test]
fn g04_the_callers_search_path_does_not_affect_code_of_another_role() {
    for installer in installers() {
        let mut site = site();
        let role = tenant(&mut site);
        site.run(&format!("CREATE TABLE t (id int PRIMARY KEY, v text); GRANT ALL ON t TO {role}"));
        site.build(&installer);
        site.received();
        let mut db = site.session();
        db.execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
        db.execute(&trap("seen", "pg_catalog.text", "boolean", "true")).unwrap();
        db.execute(&trap("is_equal", "pg_catalog.text, pg_catalog.text", "boolean", "false")).unwrap();
        db.execute(
            "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (tn.seen(VALUE)); CREATE DOMAIN pg_temp.oid AS pg_catalog.oid;
             CREATE DOMAIN pg_temp.json AS pg_catalog.json; CREATE DOMAIN tn.bool AS pg_catalog.bool;
             CREATE OPERATOR tn.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = tn.is_equal);
             CREATE OPERATOR tn.<> (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = tn.is_equal);
             SET search_path = pg_temp, tn, pg_catalog",
        )
        .unwrap();
        db.execute("INSERT INTO public.t VALUES (1, 'a'); UPDATE public.t SET v = 'b'; DELETE FROM public.t").unwrap();
        let others = format!("SELECT count(*) FROM caught WHERE role <> '{role}'");
        assert_eq!(site.ask(&others), "0", "{installer:?}");
        let methods: Vec<_> = site.received().iter().map(|it| it["method"].as_str().unwrap().to_owned()).collect();
        if !installer_uses_a_table(&installer) {
            assert_eq!(methods, ["INSERT", "UPDATE", "DELETE"], "{installer:?}");
        }
    }
}

fn installer_uses_a_table(installer: &Installer) -> bool {
    format!("{installer:?}").contains("delivery: Log")
}

#[test]
fn g04_public_may_only_execute_what_triggers_call() {
    for installer in installers() {
        let mut site = site();
        site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
        site.build(&installer);
        let owned = "SELECT string_agg(DISTINCT concat(rolname, ' ', rolsuper, ' ', rolcanlogin), ', ')
            FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner WHERE p.pronamespace = 'notifyman'::regnamespace AND prosecdef";
        assert_eq!(site.ask(owned), "notifyman_owner f f", "the SECURITY DEFINER functions");
        let callable = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'notifyman'::regnamespace
            AND has_function_privilege('public', oid, 'EXECUTE') AND prorettype <> 'trigger'::regtype AND NOT prosecdef";
        assert_eq!(site.ask(callable), "0");
        let open = "SELECT concat(has_schema_privilege('public', 'notifyman', 'USAGE'), has_schema_privilege('public', 'notifyman', 'CREATE'),
            has_schema_privilege('notifyman_owner', 'notifyman', 'CREATE'), has_sequence_privilege('public', 'notifyman.number', 'USAGE, SELECT, UPDATE'),
            (SELECT count(*) FROM pg_class WHERE relnamespace = 'notifyman'::regnamespace AND relkind = 'r'
             AND has_table_privilege('public', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')))";
        assert_eq!(site.ask(open), "tfff0");
        // A caller only gets a payload, which it could also write itself.
        let mut db = site.session();
        let role = tenant(&mut site);
        db.execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
        let forged =
            "SELECT notifyman.payload('pg_authid'::regclass, 'a', '\"b', 'x\",', NULL, '{\"a\": 1}', 'y', 7999)";
        assert!(db.query(forged).unwrap()[0].get(0).unwrap().contains(r#""table_name":"\"b""#));
        db.query("SELECT notifyman.payload(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)").unwrap();
        assert!(db.query("SELECT nextval('notifyman.number')").is_err_and(|error| error.sqlstate() == Some("42501")));
    }
}

/// The names end a quote, or look like a part of the generated code.
#[test]
fn g04_a_column_of_any_name_is_reported_under_that_name() {
    let names = [
        "{delivered}",
        "{key}",
        "$body0$",
        "$body0$; ALTER ROLE x SUPERUSER; --",
        "a'b",
        "a\"b",
        "a\\b",
        "%s %I %1$s",
        "new\nline",
        "é{unnumbered}'",
        "NEW",
        "payload",
        "\\'; SELECT 1; --",
        "E'\\\\'",
    ];
    let quoted = names.map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
    for installer in installers() {
        for setting in ["on", "off"] {
            let mut site = site();
            site.run(&format!("SET escape_string_warning = off; SET standard_conforming_strings = {setting}"));
            let columns = quoted.each_ref().map(|name| format!("{name} text"));
            site.run(&format!(
                "CREATE TABLE \"{{whole}} '\" ({}, PRIMARY KEY ({}))",
                columns.join(", "),
                quoted.join(", ")
            ));
            site.build(&installer);
            site.received();
            let mut db = site.session();
            db.execute(&format!("SET escape_string_warning = off; SET standard_conforming_strings = {setting}"))
                .unwrap();
            let values = vec!["'v'"; names.len()].join(", ");
            db.execute(&format!("INSERT INTO \"{{whole}} '\" VALUES ({values})")).unwrap();
            // The value is too long, so the key is reported, which also uses names.
            db.execute(&format!("UPDATE \"{{whole}} '\" SET {} = repeat('x', 2000)", quoted[0])).unwrap();
            if installer_uses_a_table(&installer) {
                continue;
            }
            let reported = site.received();
            let row = if reported[0]["keys"].is_array() { &reported[0]["keys"][0] } else { &reported[0]["new_data"] };
            let wanted: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), json!("v"))).collect();
            assert_eq!(row.as_object(), Some(&wanted));
            assert_eq!(reported[0]["table_name"], "{whole} '");
            assert_eq!(site.problems(), [] as [&str; 0]);
        }
    }
}

#[test]
fn g04_a_foreign_trigger_with_the_same_name_is_not_changed() {
    let mut site = site();
    site.run(
        "CREATE TABLE t (id int PRIMARY KEY);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER \"0_notifyman\" AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    );
    for _ in 0..2 {
        let report = Installer::new().build(&mut site.db).unwrap();
        let [(table, error)] = report.failed() else { panic!("{report:?}") };
        assert!(table == "public.t" && format!("{error:#}").contains("is not notifyman's"), "{error}");
        site.db.take_notices();
        site.run("ALTER TABLE t ADD COLUMN IF NOT EXISTS v text");
    }
    let notices = site.db.take_notices();
    assert!(notices.iter().any(|notice| notice.message().contains("public.t is not covered")), "{notices:?}");
    assert_eq!(site.ask("SELECT tgfoid::regproc FROM pg_trigger WHERE tgname = '0_notifyman'"), "f");
}

#[test]
fn g01_the_owner_is_dropped_with_the_last_installation_unless_a_dba_created_it() {
    let server = start(Options::new());
    let (mut first, mut second) = (site_in(&server), site_in(&server));
    first.run("CREATE ROLE theirs NOLOGIN");
    first.build(&Installer::new());
    second.build(&Installer::new());
    assert_eq!(first.ask("SELECT count(*) FROM pg_auth_members WHERE roleid = 'notifyman_owner'::regrole"), "0");
    let owners = "SELECT coalesce(string_agg(rolname, ' ' ORDER BY rolname), '') FROM pg_roles WHERE rolname IN ('notifyman_owner', 'theirs')";
    Installer::new().teardown(&mut first.db).unwrap();
    assert_eq!(first.ask(owners), "notifyman_owner theirs");
    Installer::new().teardown(&mut second.db).unwrap();
    assert_eq!(first.ask(owners), "theirs");
    // Another owner with each build, one of them with a name that must be quoted.
    first.build(&Installer::new().owner("theirs"));
    first.build(&Installer::new().owner("The 'new' \"owner\""));
    assert_eq!(first.problems(), [] as [&str; 0]);
    Installer::new().teardown(&mut first.db).unwrap();
    assert_eq!(
        first.ask("SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolname ~ 'owner|theirs' AND rolname !~ '^pg_'"),
        "theirs"
    );
}

#[test]
fn g01_the_error_for_a_role_without_createrole_has_the_statements_for_a_dba() {
    let server = start(Options::new());
    let mut site = site_in(&server);
    let database = site.ask("SELECT current_database()");
    site.run(&format!(
        "CREATE ROLE plain LOGIN; CREATE ROLE maker LOGIN CREATEROLE; CREATE SCHEMA s AUTHORIZATION plain;
        GRANT ALL ON SCHEMA s TO maker; GRANT CREATE ON DATABASE {database} TO plain, maker"
    ));
    let as_role = |role: &str| crate::support::server::connect(&site.url.replace("postgres@", &format!("{role}@")));
    let (mut plain, mut maker) = (as_role("plain"), as_role("maker"));
    plain.execute("CREATE TABLE s.p (id int PRIMARY KEY)").unwrap();
    let installer = Installer::new().schema_events(false).schemas(["s"]);
    let error = installer.build(&mut plain).unwrap_err().to_string();
    let commands = error.split_once("Have a DBA run: ").unwrap().1.split_once(" Or name").unwrap().0;
    assert!(commands.contains("CREATE ROLE \"notifyman_owner\" NOLOGIN;") && !error.contains('\n'), "{error}");
    // The statements have the promised effect.
    site.run(commands);
    assert_eq!(installer.build(&mut plain).unwrap().covered(), ["s.p"]);
    assert_eq!(site.problems(), [] as [&str; 0]);
    installer.teardown(&mut plain).unwrap();
    site.run("REVOKE notifyman_owner FROM plain; DROP ROLE notifyman_owner");

    maker.execute("CREATE TABLE s.m (id int PRIMARY KEY)").unwrap();
    let report = installer.clone().tables(["m"]).build(&mut maker).unwrap();
    assert_eq!(report.covered(), ["s.m"]);
    assert_eq!(site.report_lines("INSERT INTO s.m VALUES (1)"), [r#"INSERT m {"id":1}"#]);
    installer.teardown(&mut maker).unwrap();
    assert_eq!(site.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'notifyman_owner'"), "0");
}

/// A role that may create schemas can create a schema `notifyman` before the first build.
#[test]
fn g04_no_object_in_a_schema_of_another_role_is_used() {
    let server = start(Options::new());
    let mut site = site_in(&server);
    let role = tenant(&mut site);
    let mut model = site_in(&server);
    model.build(&Installer::new().delivery(DeliveryMode::Log));
    let comment = model.ask("SELECT obj_description('notifyman'::regnamespace, 'pg_namespace')");
    let name = site.ask("SELECT current_database()");
    site.run(&format!("GRANT CREATE ON DATABASE {name} TO {role}; CREATE TABLE t (id int PRIMARY KEY)"));
    let mut db = site.session();
    db.execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
    db.execute(&format!(
        "CREATE SCHEMA notifyman; COMMENT ON SCHEMA notifyman IS $c${comment}$c$; CREATE SEQUENCE notifyman.number;
         {} {} CREATE VIEW notifyman.outbox AS SELECT 1::bigint AS number, tn.seen('x')::text AS payload;
         CREATE VIEW notifyman.installation AS SELECT tn.seen('x') AS version",
        trap("seen", "text", "boolean", "true"),
        trap("installation", "", "integer", "1").replace("tn.installation", "notifyman.installation"),
    ))
    .unwrap();
    let error = Installer::new().build(&mut site.db).unwrap_err().to_string();
    assert!(error.contains(&format!("belongs to role \"{role}\"")), "{error}");
    notifyman::changes::Status::of(&mut site.db).unwrap();
    // A role that is not a superuser and reads a table of the schema would execute code in it.
    site.run("CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA notifyman TO reader");
    let config = notifyman::Config::without_env(&site.url.replace("postgres@", "reader@")).unwrap();
    let mut changes = notifyman::changes::Worker::new([config]).start().unwrap();
    let lost = changes.by_ref().flatten().find_map(|(_, event)| match event {
        notifyman::changes::ChangeEvent::Lost(error) => Some(format!("{error:#}")),
        _ => None,
    });
    assert!(lost.unwrap().contains("its tables are not read"));
    assert_eq!(site.ask("SELECT count(*) FROM caught"), "0");
}

/// A safe function of a DBA must also be safe if it writes to a covered table.
#[test]
fn g04_a_type_of_the_session_is_not_used_for_one_of_postgresql() {
    for installer in installers() {
        let mut site = site();
        let role = tenant(&mut site);
        site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
        site.build(&installer);
        // This table is unknown until the next build.
        site.run("CREATE TABLE new (id int PRIMARY KEY, v text, w text)");
        let later = installer.clone();
        if format!("{later:?}").contains("has_schema_events: false") {
            site.build(&later);
        }
        for table in ["t", "new"] {
            site.run(&format!(
                "CREATE FUNCTION write_{table}(i int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$ BEGIN
                    INSERT INTO public.{table} (id, v) VALUES (i, pg_catalog.repeat('x', 9000)); UPDATE public.{table} SET v = 'y';
                    DELETE FROM public.{table}; TRUNCATE public.{table};
                 END $$"
            ));
        }
        let mut db = site.session();
        db.execute(&format!("SET SESSION AUTHORIZATION {role}; SET search_path = pg_catalog")).unwrap();
        for name in ["record", "int2", "int4", "int8", "text", "oid", "json", "bool", "name", "numeric"] {
            let base = if name == "record" { "int4" } else { name };
            db.execute(&trap(&format!("seen_{name}"), &format!("pg_catalog.{base}"), "pg_catalog.bool", "true"))
                .unwrap();
            let domain = format!("CREATE DOMAIN pg_temp.{name} AS pg_catalog.{base} CHECK (tn.seen_{name}(VALUE))");
            db.execute(&domain).unwrap();
        }
        db.execute("SELECT public.write_t(1); SELECT public.write_new(1)").unwrap();
        let others = format!(
            "SELECT coalesce(string_agg(concat(role, ' ', code), ', '), '') FROM caught WHERE role <> '{role}'"
        );
        assert_eq!(site.ask(&others), "", "{installer:?}");
    }
}

#[test]
fn g04_a_type_of_another_role_is_not_read_and_fails_no_write() {
    for installer in installers() {
        let mut site = site();
        let role = tenant(&mut site);
        let mut db = site.session();
        db.execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
        db.execute(
            "CREATE TYPE tn.mood AS ENUM ('x'); CREATE TYPE tn.pair AS (a int); GRANT USAGE ON SCHEMA tn TO PUBLIC",
        )
        .unwrap();
        site.run("CREATE TYPE whole AS (m tn.mood[]); CREATE TABLE t (id int PRIMARY KEY, w whole)");
        site.build(&installer);
        db.execute(&trap("to_j", "tn.mood", "json", "'1'::json")).unwrap();
        db.execute("CREATE CAST (tn.mood AS json) WITH FUNCTION tn.to_j(tn.mood)").unwrap();
        let status = notifyman::changes::Status::of(&mut site.db).unwrap();
        assert!(status.problems().is_empty(), "{:?}", status.problems());
        assert!(status.warnings()[0].contains("the type of a column belongs to a role"), "{:?}", status.warnings());
        site.received();
        site.run("INSERT INTO t VALUES (1, ROW('{x}')); UPDATE t SET id = 2; DELETE FROM t");
        let reported = site.received();
        if !installer_uses_a_table(&installer) {
            assert_eq!(reported.iter().filter(|it| it["truncated"] == "key").count(), 3, "{reported:?}");
        }
        // The same applies to a later table.
        site.run("CREATE TABLE u (m tn.mood); INSERT INTO u VALUES ('x')");
        assert_eq!(site.ask("SELECT count(*) FROM caught"), "0", "{installer:?}");
    }
}

#[test]
fn g04_an_owner_with_members_or_login_is_refused() {
    let server = start(Options::new());
    let mut site = site_in(&server);
    site.run(
        "CREATE ROLE app LOGIN; CREATE ROLE member NOLOGIN; GRANT member TO app; CREATE ROLE mighty SUPERUSER NOLOGIN",
    );
    for (owner, reason, remedy) in [
        ("app", "can log in", "name another role by --owner"),
        ("member", "other roles can act as role \"member\": app", "REVOKE \"member\" FROM app"),
        ("mighty", "is a superuser", "If it has no other purpose"),
    ] {
        let error = Installer::new().owner(owner).build(&mut site.db).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(remedy), "{error}");
        // The remedy must not remove a login or privileges that a role needs.
        assert!(!error.contains("ALTER ROLE"), "{error}");
    }
    // A superuser also refuses to build on the schema of another role.
    let name = site.ask("SELECT current_database()");
    site.run(&format!(
        "GRANT CREATE ON DATABASE {name} TO app; CREATE ROLE notifyman_owner; GRANT notifyman_owner TO app"
    ));
    let mut app = crate::support::server::connect(&site.url.replace("postgres@", "app@"));
    Installer::new().schema_events(false).build(&mut app).unwrap();
    site.run("REVOKE notifyman_owner FROM app");
    let error = Installer::new().build(&mut site.db).unwrap_err().to_string();
    assert!(error.contains("belongs to role \"app\""), "{error}");
    Installer::new().teardown(&mut site.db).unwrap();
    site.build(&Installer::new());
}

#[test]
fn g04_no_role_hides_a_change_in_a_log_or_a_spilled_one() {
    for (installer, function) in [
        (Installer::new().delivery(DeliveryMode::Log), "append"),
        (Installer::new().oversize(Oversize::Spill), "spill"),
    ] {
        let mut site = site();
        let role = tenant(&mut site);
        site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
        site.build(&installer);
        let mut changes = super::worker::connected(super::worker::worker(&[&site]), 1);
        let mut db = site.session();
        db.execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
        let next = "SELECT split_part(split_part(notifyman.payload(0, 'x', 'x', 'INSERT', NULL, NULL, NULL, 7999), ',', 1), ':', 2)";
        let next: i64 = db.query(next).unwrap()[0].get(0).unwrap().parse().unwrap();
        for number in next..next + 40 {
            let forged = format!(
                r#"{{"number":{number},"table_schema":"x","table_name":"x","session_user":"x","method":"INSERT","old_data":null,"new_data":null,"query":null}}"#
            );
            db.query(&format!("SELECT notifyman.{function}('{forged}')")).unwrap();
        }
        let long = format!("SELECT notifyman.{function}(repeat('x', 16000000))");
        assert!(db.query(&long).is_err_and(|error| error.sqlstate() == Some("54000")));
        site.run("INSERT INTO t SELECT g, repeat('x', 9000) FROM generate_series(1, 10) g");
        let mut ids = Vec::new();
        while ids.len() < 10 {
            if let (_, notifyman::changes::ChangeEvent::Change(change)) = super::worker::next(&mut changes)
                && change.table_name == "t"
            {
                ids.push(change.new_data.expect("the row itself")["id"].as_i64().unwrap());
            }
        }
        assert_eq!(ids, (1..=10).collect::<Vec<_>>());
    }
}
