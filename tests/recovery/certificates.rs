//! M13: the server's certificate is replaced by a valid one, by one of an unknown authority, or by an expired one; and the
//! client's certificate and key are replaced one after the other.

use std::time::Duration;

use notifyman::{Connection, TlsErrorKind};
use rcgen::date_time_ymd;

use super::support::*;
use crate::support::pki::{Authority, Identity, TlsServer};
use crate::support::server::{config, eventually, terminate};
use crate::support::{Cluster, Options};

/// A host name that only the later certificate contains.
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

    /// A reader that verifies the server fully, and a writer that does not verify it.
    fn story(&self, more: &str) -> Story {
        Story::begin(&self.reading(more), &self.server.cluster.url())
    }

    fn reading(&self, more: &str) -> String {
        self.server.dsn(&format!("connect_timeout=2 sslmode=verify-full sslrootcert={} {more}", self.root))
    }

    /// Replaces the server's certificate with one that also contains [`LATER`], and waits until the server uses it.
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

/// Returns the reason in the garbage, if there is one.
fn reason(story: &Story) -> Option<TlsErrorKind> {
    let (_, dead) = story.nm.garbage().next()?;
    dead.error().tls().map(notifyman::TlsError::kind)
}

#[test]
fn m13_a_renewed_certificate_of_the_same_authority_is_accepted() {
    let scene = Scene::set(Options::new());
    let story = scene.story("");
    scene.replace(&scene.ca.server(&["127.0.0.1", LATER]), &scene.ca);
    terminate(scene.cluster(), pid(&story.nm));
    let ledger = story.end_well();
    assert_eq!(ledger.last_gap().cause().sqlstate(), Some("57P01"));
}

#[test]
fn m13_a_certificate_of_an_unknown_authority_is_a_final_failure() {
    let scene = Scene::set(Options::new());
    let mut story = scene.story("");
    let stranger = Authority::new("stranger");
    scene.replace(&stranger.server(&["127.0.0.1", LATER]), &stranger);
    terminate(scene.cluster(), pid(&story.nm));
    story.end_in_garbage();
    assert_eq!(reason(&story), Some(TlsErrorKind::UnknownAuthority));

    // The root file is read again, and now contains the new authority.
    let (id, dead) = story.nm.take_garbage().pop().unwrap();
    scene.server.file("root.crt", stranger.pem());
    assert_eq!(story.nm.revive(id, dead), id);
    story.end_well();
}

#[test]
fn m13_a_certificate_for_another_host_is_a_final_failure() {
    let scene = Scene::set(Options::new());
    let mut story = scene.story("");
    scene.replace(&scene.ca.server(&[LATER]), &scene.ca);
    terminate(scene.cluster(), pid(&story.nm));
    story.end_in_garbage();
    assert_eq!(reason(&story), Some(TlsErrorKind::WrongName));

    let (id, dead) = story.nm.take_garbage().pop().unwrap();
    scene.replace(&scene.ca.server(&["127.0.0.1", LATER]), &scene.ca);
    eventually("the right one is shown", || Connection::connect(config(&scene.reading(""))).is_ok());
    assert_eq!(story.nm.revive(id, dead), id);
    story.end_well();
}

#[test]
fn m13_an_expired_certificate_is_retried_until_it_is_renewed() {
    let scene = Scene::set(Options::new());
    let mut story = scene.story("");
    let expired = scene.ca.sign(&["127.0.0.1", LATER], |params| params.not_after = date_time_ymd(2020, 1, 1));
    scene.replace(&expired, &scene.ca);
    terminate(scene.cluster(), pid(&story.nm));
    story.notice();
    story.ledger.read_for(&mut story.nm, Duration::from_millis(700));
    assert_eq!(story.nm.restoring().count(), 1, "it continues to retry");
    scene.server.renew(&scene.ca.server(&["127.0.0.1"]));
    story.end_well();
}

#[test]
fn m13_a_client_certificate_that_does_not_match_its_key_is_retried() {
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
    assert_eq!(story.nm.restoring().count(), 1, "it continues to retry");
    scene.server.file("client.key", &new.key);
    story.end_well();
}
