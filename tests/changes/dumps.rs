//! Dumps and restores: rule G01.

use std::path::PathBuf;
use std::process::Command;

use notifyman::changes::{DeliveryMode, Installer, Oversize, Status};

use super::support::{Site, client_program, site_in};
use crate::support::server::{connect, start};
use crate::support::{Cluster, Options};

/// A server, a database with an installation, and the directory of the client programs.
struct Dumps {
    server: Cluster,
    site: Site,
    bin: PathBuf,
}

/// Builds in a database. Returns `None` if the client programs are missing.
fn dumps() -> Option<Dumps> {
    let bin = client_program("pg_dump")?.parent()?.to_owned();
    let server = start(Options::new());
    let mut site = site_in(&server);
    site.run(
        "CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, m mood, v text);
         CREATE TABLE m (id int) PARTITION BY RANGE (id); CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (9)",
    );
    site.build(&installer());
    site.run("INSERT INTO t VALUES (1, 'ok', 'x')");
    Some(Dumps { server, site, bin })
}

fn installer() -> Installer {
    Installer::new().oversize(Oversize::Spill)
}

impl Dumps {
    /// Runs a client program in the data directory of the server, and returns its standard error.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let run =
            Command::new(self.bin.join(program)).args(arguments).current_dir(self.server.data_dir()).output().unwrap();
        String::from_utf8_lossy(&run.stderr).into_owned()
    }

    fn file(&self, name: &str) -> String {
        self.server.data_dir().join(name).to_str().unwrap().to_owned()
    }

    /// Dumps with these options into a file, and returns its path.
    fn dump(&self, options: &[&str]) -> String {
        let file = self.file("dump");
        let text = self.run("pg_dump", &[options, &["-f", &file, &self.site.url]].concat());
        assert_eq!(text, "", "{options:?}");
        file
    }

    /// Restores into a new database. A dump of schemas contains the schema `public`.
    fn restore(&self, dump: &str, options: &[&str], role: &str) -> (Site, String) {
        let mut new = site_in(&self.server);
        if dump.ends_with("schemas") {
            new.run("DROP SCHEMA public");
        }
        let url = new.url.replace("postgres@", &format!("{role}@"));
        let text = self.run("pg_restore", &[options, &["-d", &url, dump]].concat());
        (Site::at(new.url), text)
    }
}

/// Asserts that changes are reported, and that the installation has exactly these problems, which a build fixes.
#[track_caller]
fn assert_reports(site: &mut Site, problems: &[&str]) {
    assert_eq!(site.report_lines("INSERT INTO t VALUES (2, 'ok', 'y')"), [r#"INSERT t {"id":2,"m":"ok","v":"y"}"#]);
    assert_eq!(site.problems(), problems);
    site.build(&installer());
    assert_eq!(site.problems(), [] as [&str; 0]);
    // Nothing depends on OIDs, which differ now.
    assert!(Status::of(&mut site.db).unwrap().tables().iter().all(|table| table.state == "right"));
}

#[test]
fn g01_a_dump_of_the_database_is_restored_also_in_one_transaction() {
    let Some(dumps) = dumps() else { return };
    let dump = dumps.dump(&["-Fc"]);
    for options in [[].as_slice(), &["--single-transaction"], &["--schema-only", "--single-transaction"]] {
        let (mut site, text) = dumps.restore(&dump, options, "postgres");
        assert_eq!(text, "", "{options:?}");
        assert_reports(&mut site, &[]);
        assert_eq!(site.report_lines("CREATE TABLE u (id int); INSERT INTO m VALUES (1)").len(), 2);
    }
}

#[test]
fn g01_a_dump_of_a_log_is_restored_and_written() {
    let Some(mut dumps) = dumps() else { return };
    let installer = Installer::new().delivery(DeliveryMode::Log);
    dumps.site.build(&installer);
    dumps.site.run("INSERT INTO t VALUES (7, 'ok', 'x'); SELECT setval('notifyman.log_table', 4)");
    dumps.site.run("INSERT INTO t VALUES (8, 'ok', 'x')");
    let dump = dumps.dump(&["-Fc"]);
    for options in [[].as_slice(), &["--single-transaction"]] {
        let (mut site, text) = dumps.restore(&dump, options, "postgres");
        assert_eq!(text, "", "{options:?}");
        assert_eq!(site.problems(), [] as [&str; 0]);
        site.run("INSERT INTO t VALUES (9, 'ok', 'x')");
        let tables = "SELECT string_agg(concat(tableoid::regclass, ' ', payload::json -> 'new_data' ->> 'id'), ', ' ORDER BY number)
            FROM (SELECT tableoid, * FROM notifyman.log_0 UNION ALL SELECT tableoid, * FROM notifyman.log_1) l";
        assert_eq!(site.ask(tables), "notifyman.log_0 7, notifyman.log_1 8, notifyman.log_1 9");
        assert!(!site.build(&installer).schema_changed());
    }
    // Without privileges the owner may not write to the log: a warning is raised, and the write succeeds.
    let mut site = dumps.restore(&dump, &["--no-privileges"], "postgres").0;
    site.run("INSERT INTO t VALUES (9, 'ok', 'x')");
    let problems = site.problems().join("; ");
    assert!(problems.contains("roles lack USAGE") && problems.contains("lacks a privilege"), "{problems}");
    site.build(&installer);
    site.run("INSERT INTO t VALUES (10, 'ok', 'x')");
    // The build has begun the log again, because the dump is of another database.
    assert_eq!(site.ask("SELECT count(*) FROM notifyman.log_1"), "1");
}

#[test]
fn g01_a_dump_of_schemas_includes_notifyman_or_excludes_its_triggers() {
    let Some(dumps) = dumps() else { return };
    let events_missing = "an event trigger is missing: new tables are not covered";
    let both = dumps.dump(&["-Fc", "-n", "public", "-n", "notifyman"]);
    let file = dumps.file("both-schemas");
    std::fs::rename(both, &file).unwrap();
    let (mut site, text) = dumps.restore(&file, &["--single-transaction"], "postgres");
    assert_eq!(text, "");
    assert_reports(&mut site, &[events_missing]);

    let one = dumps.dump(&["-Fc", "-n", "public"]);
    let file = dumps.file("one-schemas");
    std::fs::rename(one, &file).unwrap();
    let (_, text) = dumps.restore(&file, &["--single-transaction"], "postgres");
    assert!(text.contains("schema \"notifyman\" does not exist"), "{text}");
    // This is the procedure of the documentation.
    let listed = Command::new(dumps.bin.join("pg_restore")).args(["-l", &file]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let kept: String =
        listed.lines().filter(|line| !line.contains(" 0_notifyman")).map(|line| line.to_owned() + "\n").collect();
    std::fs::write(dumps.file("list"), kept).unwrap();
    let (mut site, text) = dumps.restore(&file, &["--single-transaction", "-L", "list"], "postgres");
    assert_eq!(text, "");
    assert_eq!(site.problems(), ["nothing is installed: run `notifyman build`"]);
    site.build(&installer());
}

#[test]
fn g01_an_incomplete_restore_is_a_problem_that_a_build_fixes() {
    let Some(mut dumps) = dumps() else { return };
    dumps.site.run("CREATE ROLE plain LOGIN SUPERUSER; GRANT ALL ON t TO PUBLIC");
    let dump = dumps.dump(&["-Fc"]);
    dumps.site.run("ALTER ROLE plain NOSUPERUSER");
    let mut new = dumps.restore(&dump, &["--no-privileges", "--single-transaction"], "postgres").0;
    let problems = new.problems().join("\n");
    assert!(problems.contains("roles lack USAGE on the schema notifyman"), "{problems}");
    // A write succeeds, and is reported by a marker.
    new.run("GRANT ALL ON t TO plain");
    new.received();
    connect(&new.url.replace("postgres@", "plain@")).execute("INSERT INTO public.t VALUES (3)").unwrap();
    assert_eq!(new.received()[0]["truncated"], "key");
    new.build(&installer());
    assert_reports(&mut new, &[]);

    // Without a superuser there are no event triggers, and the SECURITY DEFINER functions have another owner.
    let database = site_in(&dumps.server);
    let name = database.url.rsplit('/').next().unwrap().to_owned();
    dumps.site.run(&format!("ALTER DATABASE {name} OWNER TO plain"));
    let url = database.url.replace("postgres@", "plain@");
    connect(&database.url).execute("GRANT ALL ON SCHEMA public TO plain").unwrap();
    let text = dumps.run("pg_restore", &["--no-owner", "-d", &url, &dump]);
    assert!(text.contains("permission denied to create event trigger"), "{text}");
    let mut new = Site::at(database.url);
    let problems = new.problems().join("\n");
    assert!(problems.contains("an event trigger is missing") && problems.contains("notifyman.payload"), "{problems}");
    assert_eq!(new.report_lines("INSERT INTO t VALUES (2, 'ok', 'y')"), [r#"INSERT t {"id":2,"m":"ok","v":"y"}"#]);
    // A superuser refuses to build on the schema of another role.
    let error = installer().build(&mut new.db).unwrap_err().to_string();
    assert!(error.contains("belongs to role \"plain\"") && error.contains("notifyman teardown"), "{error}");
    assert!(Installer::new().teardown(&mut new.db).unwrap().failed().is_empty());
    new.build(&installer());
    assert_eq!(new.problems(), [] as [&str; 0]);
}
