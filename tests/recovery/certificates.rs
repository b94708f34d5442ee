//! The row "the server's certificate was replaced": by a good one, by a stranger's, by one that had run out; and a
//! certificate of ours that is renewed in two steps.

use std::time::Duration;

use notifyman::{Connection, TlsErrorKind};
use rcgen::date_time_ymd;

use super::support::*;
use crate::support::pki::{Authority, Identity, TlsServer};
use crate::support::server::{config, eventually, terminate};
use crate::support::{Cluster, Options};

/// A name that only the certificate has that comes later.
const LATER: &str = "later.example";

struct Scene {
    ca: Authority,
    server: TlsServer,
    root: String,
}

impl Scene {
    fn set(options: Options) -> Self {
        let ca = Authority::new("the right one");
        let server = TlsServer::start(&ca.server(&["127.0.0.1"]), &ca, options);
        let root = server.file("root.crt", ca.pem());
        Self { ca, server, root }
    }

    /// A reader that checks the server fully, and a writer that does not.
    fn story(&self, more: &str) -> Story {
        Story::begin(&self.reading(more), &self.server.cluster.url())
    }

    fn reading(&self, more: &str) -> String {
        self.server.dsn(&format!("connect_timeout=2 sslmode=verify-full sslrootcert={} {more}", self.root))
    }

    /// Has the server show another certificate, made for [`LATER`] too, and waits until it does.
    fn replace(&self, identity: &Identity, authority: &Authority) {
        self.server.renew(identity);
        let root = self.server.file("later.crt", authority.pem());
        let mode = format!("host={LATER} hostaddr=127.0.0.1 sslrootcert={root} sslmode=verify-full");
        eventually("the other certificate is shown", || match Connection::connect(config(&self.server.dsn(&mode))) {
            Ok(_) => true,
            Err(error) => error.tls().is_some_and(|tls| tls.kind() == TlsErrorKind::Expired),
        });
    }

    fn cluster(&self) -> &Cluster {
        &self.server.cluster
    }
}

/// The reason in the garbage, where there is one.
fn reason(story: &Story) -> Option<TlsErrorKind> {
    let (_, dead) = story.nm.garbage().next()?;
    dead.error().tls().map(notifyman::TlsError::kind)
}

#[test]
fn m13_a_certificate_that_its_authority_has_renewed_is_taken() {
    let scene = Scene::set(Options::new());
    let story = scene.story("");
    scene.replace(&scene.ca.server(&["127.0.0.1", LATER]), &scene.ca);
    terminate(scene.cluster(), pid(&story.nm));
    let ledger = story.end_well();
    assert_eq!(ledger.last_gap().cause().sqlstate(), Some("57P01"));
}

#[test]
fn m13_a_certificate_of_a_stranger_ends_in_the_garbage_with_the_reason() {
    let scene = Scene::set(Options::new());
    let mut story = scene.story("");
    let stranger = Authority::new("stranger");
    scene.replace(&stranger.server(&["127.0.0.1", LATER]), &stranger);
    terminate(scene.cluster(), pid(&story.nm));
    story.perish();
    assert_eq!(reason(&story), Some(TlsErrorKind::UnknownAuthority));

    // The stranger turns out to be a new authority: the root file is read again.
    let (id, dead) = story.nm.take_garbage().pop().unwrap();
    scene.server.file("root.crt", stranger.pem());
    assert_eq!(story.nm.revive(id, dead), id);
    story.end_well();
}

#[test]
fn m13_a_certificate_for_another_host_ends_in_the_garbage_with_the_reason() {
    let scene = Scene::set(Options::new());
    let mut story = scene.story("");
    scene.replace(&scene.ca.server(&[LATER]), &scene.ca);
    terminate(scene.cluster(), pid(&story.nm));
    story.perish();
    assert_eq!(reason(&story), Some(TlsErrorKind::WrongName));

    let (id, dead) = story.nm.take_garbage().pop().unwrap();
    scene.replace(&scene.ca.server(&["127.0.0.1", LATER]), &scene.ca);
    eventually("the right one is shown", || Connection::connect(config(&scene.reading(""))).is_ok());
    assert_eq!(story.nm.revive(id, dead), id);
    story.end_well();
}

#[test]
fn m13_a_certificate_that_has_expired_is_waited_for_until_it_is_renewed() {
    let scene = Scene::set(Options::new());
    let mut story = scene.story("");
    let expired = scene.ca.sign(&["127.0.0.1", LATER], |params| params.not_after = date_time_ymd(2020, 1, 1));
    scene.replace(&expired, &scene.ca);
    terminate(scene.cluster(), pid(&story.nm));
    story.notice();
    story.ledger.read_for(&mut story.nm, Duration::from_millis(700));
    assert_eq!(story.nm.restoring().count(), 1, "it continues trying");
    scene.server.renew(&scene.ca.server(&["127.0.0.1"]));
    story.end_well();
}

#[test]
fn m13_a_certificate_of_ours_that_is_half_renewed_is_waited_for() {
    let scene = Scene::set(Options::new().hba("hostssl all all 127.0.0.1/32 cert").hba("local all all trust"));
    let (old, new) = (scene.ca.client("postgres"), scene.ca.client("postgres"));
    let certificate = scene.server.file("client.crt", &old.certificate);
    let key = scene.server.file("client.key", &old.key);
    let directory = scene.cluster().socket_dir().display().to_string();
    let writing = scene.server.dsn(&format!("host={directory}"));
    let mut story = Story::begin(&scene.reading(&format!("sslcert={certificate} sslkey={key}")), &writing);

    scene.server.file("client.crt", &new.certificate);
    open(&writing).query(&format!("SELECT pg_terminate_backend({})", pid(&story.nm))).unwrap();
    story.notice();
    story.ledger.read_for(&mut story.nm, Duration::from_millis(700));
    assert_eq!(story.nm.restoring().count(), 1, "it continues trying");
    scene.server.file("client.key", &new.key);
    story.end_well();
}
