//! M13: a primary that stops, and a standby that is promoted while the manager is reconnecting.

use std::time::Duration;

use notifyman::{Backoff, Config, Connection, Event, NotificationManager};

use super::support::*;
use crate::support::server::{ask, primary_and_standby, promote, start};
use crate::support::{Cluster, Options};

/// Returns a manager that listens at the primary, with the standby first in its configuration.
fn listening_at(primary: &Cluster, standby: &Cluster, channel: &str) -> NotificationManager {
    let dsn = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user=postgres target_session_attrs=primary connect_timeout=10",
        standby.port(),
        primary.port()
    );
    let mut db = Connection::connect(Config::without_env(&dsn).unwrap()).unwrap();
    db.listen([channel]).unwrap();
    let backoff = Backoff::default().first(Duration::from_millis(20)).longest(Duration::from_millis(200));
    NotificationManager::new([db]).timeout(Duration::from_millis(50)).reconnect(backoff)
}

#[test]
fn m13_after_a_failover_the_new_primary_is_found_once_there_is_one() {
    let (mut primary, standby) = primary_and_standby();
    let channel = channel();
    connect(&primary.url()).execute("CREATE TABLE replicated ()").unwrap();
    let arrived = "SELECT to_regclass('replicated') IS NOT NULL";
    until("the standby follows", || ask(&mut connect(&standby.url()), arrived) == "t");
    let mut nm = listening_at(&primary, &standby, &channel);
    let id = ids(&nm)[0];

    primary.stop_immediate().unwrap();
    let Some(Event::Disconnected(lost, _)) = event(&mut nm) else { panic!("the loss of the primary is reported") };
    assert_eq!(lost, id);
    // While there is only a standby, the manager continues to retry.
    for _ in 0..10 {
        assert!(matches!(nm.next_event(), Some(Event::Idle)));
    }
    assert_eq!((nm.restoring().count(), nm.garbage().count()), (1, 0));

    promote(&standby);
    let Some(Event::Restored(restored, gap)) = event(&mut nm) else { panic!("the new primary is found") };
    assert_eq!((restored, gap.channels()), (id, &[channel.as_str().into()][..]));
    connect(&standby.url()).notify(&channel, "from the new one").unwrap();
    assert_eq!(receive(&mut nm, 1), [(id, "from the new one".to_owned())]);
}

#[test]
fn m13_the_next_attempt_reads_a_changed_password_file() {
    let mut server = start(Options::new().auth("scram-sha-256", "first"));
    let directory = server.socket_dir().join("client");
    std::fs::create_dir(&directory).unwrap();
    let passfile = directory.join("pgpass");
    let write = |password: &str| {
        std::fs::write(&passfile, format!("127.0.0.1:{}:*:postgres:{password}\n", server.port())).unwrap();
        std::fs::set_permissions(&passfile, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write("first");
    let dsn = format!("host=127.0.0.1 port={} user=postgres passfile={}", server.port(), passfile.display());
    let mut db = Connection::connect(Config::without_env(&dsn).unwrap()).unwrap();
    let channel = channel();
    db.listen([&channel]).unwrap();
    assert!(!format!("{db:?} {:?}", db.config()).contains("first"));

    // Before version 14, SCRAM is not the default.
    db.execute("SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD 'second'").unwrap();
    write("second");
    let mut nm = NotificationManager::new([db]).timeout(Duration::from_millis(50)).reconnect(Backoff::default());
    server.restart().unwrap();
    assert!(matches!(event(&mut nm), Some(Event::Disconnected(..))));
    assert!(matches!(event(&mut nm), Some(Event::Restored(..))));
}
