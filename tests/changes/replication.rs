//! The apply worker of logical replication: rule G07. Triggers never stop it.

use notifyman::changes::{DeliveryMode, Installer, Shape};

use super::support::Site;
use crate::support::Options;
use crate::support::server::{connect, eventually, start};

#[test]
fn g07_rows_of_an_apply_worker_are_opt_in_and_it_never_stops() {
    let options = || {
        Options::new()
            .setting("wal_level", "logical")
            .setting("max_wal_senders", "4")
            .setting("max_replication_slots", "4")
            .setting("max_worker_processes", "8")
    };
    let (publisher, subscriber) = (start(options()), start(options()));
    let mut source = connect(&publisher.url());
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR ALL TABLES").unwrap();
    let mut site = Site::at(subscriber.url());
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new());
    site.run(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={} user=postgres dbname=postgres' PUBLICATION p",
        publisher.port()
    ));

    let mut rows = 0;
    let mut replicate = |site: &mut Site| {
        rows += 1;
        source
            .execute(&format!(
                "INSERT INTO t VALUES ({rows}, repeat('x', {rows} * 3000)); UPDATE t SET v = v || 'y' WHERE id = {rows}"
            ))
            .unwrap();
        eventually("it is applied", || {
            site.ask(&format!("SELECT count(*) FROM t WHERE id = {rows} AND v LIKE '%y'")) == "1"
        });
        site.received()
    };
    assert!(replicate(&mut site).is_empty());
    site.build(&Installer::new().replicated(true));
    let reports = replicate(&mut site);
    assert!(reports.iter().any(|it| it["method"] == "INSERT"), "{reports:?}");
    // It fires row triggers only, and the keys shape has statement triggers, except in PostgreSQL 12: a build warns of that.
    let report = Installer::new().replicated(true).shape(Shape::Keys).build(&mut site.db).unwrap();
    site.received();
    let text = report.warnings().iter().any(|warning| warning.contains("fires no statement triggers"));
    assert_eq!((text, replicate(&mut site).is_empty()), (site.reports_statements(), site.reports_statements()));
    for installer in [
        Installer::new().replicated(true).delivery(DeliveryMode::Log),
        Installer::new().replicated(true).shape(Shape::Keys).delivery(DeliveryMode::Log),
    ] {
        site.build(&installer);
        replicate(&mut site);
    }
    let mut count = || site.ask("SELECT count(*) FROM notifyman.log");
    assert_ne!(count(), "0");
    site.run("ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s");
}
