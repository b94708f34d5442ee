//! Dumps and restores as DBAs make them: rule G1.

use std::path::PathBuf;
use std::process::Command;

use notifyman::changes::{DeliveryMode, Installer, Oversize, Status};

use super::support::{Site, client_program, site_in};
use crate::support::server::{connect, start};
use crate::support::{Cluster, Options};

/// A server, a database in it that is built, and the directory of the client programs.
struct Dumps {
    server: Cluster,
    site: Site,
    bin: PathBuf,
}

/// Builds in a database; nothing where the client programs are missing.
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
    /// Runs a client program, in the directory of the server's data, and returns what it says on standard error.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let run =
            Command::new(self.bin.join(program)).args(arguments).current_dir(self.server.data_dir()).output().unwrap();
        String::from_utf8_lossy(&run.stderr).into_owned()
    }

    fn file(&self, name: &str) -> String {
        self.server.data_dir().join(name).to_str().unwrap().to_owned()
    }

    /// Dumps with these options into a file.
    fn dump(&self, options: &[&str]) -> String {
        let file = self.file("dump");
        let said = self.run("pg_dump", &[options, &["-f", &file, &self.site.url]].concat());
        assert_eq!(said, "", "{options:?}");
        file
    }

    /// Restores into a new database, whose schema `public` the dump brings where it names schemas.
    fn restore(&self, dump: &str, options: &[&str], role: &str) -> (Site, String) {
        let mut new = site_in(&self.server);
        if dump.ends_with("schemas") {
            new.run("DROP SCHEMA public");
        }
        let url = new.url.replace("postgres@", &format!("{role}@"));
        let said = self.run("pg_restore", &[options, &["-d", &url, dump]].concat());
        (Site::at(new.url), said)
    }
}

/// The site reports, and what is wrong with it is exactly this.
#[track_caller]
fn is_right(site: &mut Site, problems: &[&str]) {
    assert_eq!(site.says("INSERT INTO t VALUES (2, 'ok', 'y')"), [r#"INSERT t {"id":2,"m":"ok","v":"y"}"#]);
    assert_eq!(site.problems(), problems);
    site.build(&installer());
    assert_eq!(site.problems(), [] as [&str; 0]);
    // OIDs are others now, and nothing depends on them.
    assert!(Status::of(&mut site.db).unwrap().tables().iter().all(|table| table.state == "right"));
}

#[test]
fn g01_a_dump_of_the_whole_database_is_restored_whole_also_in_one_transaction() {
    let Some(dumps) = dumps() else { return };
    let dump = dumps.dump(&["-Fc"]);
    for options in [[].as_slice(), &["--single-transaction"], &["--schema-only", "--single-transaction"]] {
        let (mut site, said) = dumps.restore(&dump, options, "postgres");
        assert_eq!(said, "", "{options:?}");
        is_right(&mut site, &[]);
        assert_eq!(site.says("CREATE TABLE u (id int); INSERT INTO m VALUES (1)").len(), 2);
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
        let (mut site, said) = dumps.restore(&dump, options, "postgres");
        assert_eq!(said, "", "{options:?}");
        assert_eq!(site.problems(), [] as [&str; 0]);
        site.run("INSERT INTO t VALUES (9, 'ok', 'x')");
        let tables = "SELECT string_agg(concat(tableoid::regclass, ' ', payload::json -> 'new_data' ->> 'id'), ', ' ORDER BY number)
            FROM (SELECT tableoid, * FROM notifyman.log_0 UNION ALL SELECT tableoid, * FROM notifyman.log_1) l";
        assert_eq!(site.ask(tables), "notifyman.log_0 7, notifyman.log_1 8, notifyman.log_1 9");
        assert!(!site.build(&installer).schema_changed());
    }
    // Without privileges its owner may not write it: a warning, and the write goes on.
    let mut site = dumps.restore(&dump, &["--no-privileges"], "postgres").0;
    site.run("INSERT INTO t VALUES (9, 'ok', 'x')");
    let problems = site.problems().join("; ");
    assert!(problems.contains("roles lack USAGE") && problems.contains("lacks a privilege"), "{problems}");
    site.build(&installer);
    site.run("INSERT INTO t VALUES (10, 'ok', 'x')");
    // The build has begun the log again, as the dump is of another database.
    assert_eq!(site.ask("SELECT count(*) FROM notifyman.log_1"), "1");
}

#[test]
fn g01_a_dump_of_schemas_takes_ours_along_or_leaves_the_triggers_out() {
    let Some(dumps) = dumps() else { return };
    let events_gone = "an event trigger is missing: new tables are not covered";
    let both = dumps.dump(&["-Fc", "-n", "public", "-n", "notifyman"]);
    let file = dumps.file("both-schemas");
    std::fs::rename(both, &file).unwrap();
    let (mut site, said) = dumps.restore(&file, &["--single-transaction"], "postgres");
    assert_eq!(said, "");
    is_right(&mut site, &[events_gone]);

    let one = dumps.dump(&["-Fc", "-n", "public"]);
    let file = dumps.file("one-schemas");
    std::fs::rename(one, &file).unwrap();
    let (_, said) = dumps.restore(&file, &["--single-transaction"], "postgres");
    assert!(said.contains("schema \"notifyman\" does not exist"), "{said}");
    // As the documentation says.
    let listed = Command::new(dumps.bin.join("pg_restore")).args(["-l", &file]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let kept: String =
        listed.lines().filter(|line| !line.contains(" 0_notifyman")).map(|line| line.to_owned() + "\n").collect();
    std::fs::write(dumps.file("list"), kept).unwrap();
    let (mut site, said) = dumps.restore(&file, &["--single-transaction", "-L", "list"], "postgres");
    assert_eq!(said, "");
    assert_eq!(site.problems(), ["nothing is installed: run `notifyman build`"]);
    site.build(&installer());
}

#[test]
fn g01_what_a_restore_could_not_do_is_a_problem_that_a_build_mends() {
    let Some(mut dumps) = dumps() else { return };
    dumps.site.run("CREATE ROLE plain LOGIN SUPERUSER; GRANT ALL ON t TO PUBLIC");
    let dump = dumps.dump(&["-Fc"]);
    dumps.site.run("ALTER ROLE plain NOSUPERUSER");
    let mut new = dumps.restore(&dump, &["--no-privileges", "--single-transaction"], "postgres").0;
    let problems = new.problems().join("\n");
    assert!(problems.contains("roles lack USAGE on the schema notifyman"), "{problems}");
    // A write goes on, and is reported by a marker.
    new.run("GRANT ALL ON t TO plain");
    new.heard();
    connect(&new.url.replace("postgres@", "plain@")).execute("INSERT INTO public.t VALUES (3)").unwrap();
    assert_eq!(new.heard()[0]["truncated"], "key");
    new.build(&installer());
    is_right(&mut new, &[]);

    // Without a superuser there are no event triggers, and what runs as its owner has another one.
    let database = site_in(&dumps.server);
    let name = database.url.rsplit('/').next().unwrap().to_owned();
    dumps.site.run(&format!("ALTER DATABASE {name} OWNER TO plain"));
    let url = database.url.replace("postgres@", "plain@");
    connect(&database.url).execute("GRANT ALL ON SCHEMA public TO plain").unwrap();
    let said = dumps.run("pg_restore", &["--no-owner", "-d", &url, &dump]);
    assert!(said.contains("permission denied to create event trigger"), "{said}");
    let mut new = Site::at(database.url);
    let problems = new.problems().join("\n");
    assert!(problems.contains("an event trigger is missing") && problems.contains("notifyman.payload"), "{problems}");
    assert_eq!(new.says("INSERT INTO t VALUES (2, 'ok', 'y')"), [r#"INSERT t {"id":2,"m":"ok","v":"y"}"#]);
    // A superuser does not go on with what belongs to another role.
    let error = installer().build(&mut new.db).unwrap_err().to_string();
    assert!(error.contains("belongs to role \"plain\"") && error.contains("notifyman teardown"), "{error}");
    assert!(Installer::new().teardown(&mut new.db).unwrap().failed().is_empty());
    new.build(&installer());
    assert_eq!(new.problems(), [] as [&str; 0]);
}
