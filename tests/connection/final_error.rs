//! C16: the final error of a server is the reason of a loss, even if its notices have been taken.

use std::time::Duration;

use crate::support::server::connect;
use crate::support::{Peer, Step, msg};

#[test]
fn c16_a_warning_of_a_shutdown_stays_the_reason_after_the_notices_were_taken() {
    let warning = msg::notice("WARNING", "57P02", "terminating connection because of crash of another server process");
    let (hang_up, gate) = Step::gate();
    let answer = Step::send([warning, msg::command_complete("SELECT"), msg::ready(b'I')]);
    let peer =
        Peer::play(vec![Step::startup(), Step::login_ok(), Step::expect_query("SELECT"), answer, gate, Step::close()]);
    let mut db = connect(&peer.url());
    db.query("SELECT").unwrap();
    assert_eq!(db.take_notices().len(), 1);
    assert!(db.take_notices().is_empty());
    hang_up.open();
    assert!(db.wait(Duration::from_secs(10)).next().is_none(), "the connection is closed");
    assert_eq!(db.error().and_then(|error| error.sqlstate()), Some("57P02"));
    peer.finish();
}
