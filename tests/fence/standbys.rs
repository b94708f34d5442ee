//! Fills that read a standby which applies changes late, and the position that such a standby must have replayed.

use std::sync::mpsc::{self, Receiver};

use notifyman::fence::{Admission, Fence, FenceChannel, FloorQuestion, Lsn};
use notifyman::{Connection, Notifier};

use super::support::*;
use crate::support::server::{ask, primary_and_standby, promote};

/// A fence that asks for positions, and its questions.
fn fence() -> (Fence, Receiver<FloorQuestion>) {
    let (sender, questions) = mpsc::channel();
    (Fence::builder().primary(move |question| drop(sender.send(question))).build(), questions)
}

/// Asks the primary.
fn position(primary: &mut Connection) -> (u32, Lsn) {
    let rows = primary.query(FloorQuestion::QUERY).unwrap();
    (rows[0].get(0).unwrap().parse().unwrap(), rows[0].get(1).unwrap().parse().unwrap())
}

fn answer(questions: &Receiver<FloorQuestion>, primary: &mut Connection) -> (u32, Lsn) {
    let question = questions.recv_timeout(crate::support::server::LIMIT).unwrap();
    let (timeline, lsn) = position(primary);
    question.answer(timeline, lsn);
    (timeline, lsn)
}

fn replayed(standby: &mut Connection) -> Lsn {
    ask(standby, "SELECT pg_last_wal_replay_lsn()").parse().unwrap()
}

/// Fills the cache from the standby, in the order that the documentation gives.
fn fill_on_standby(cache: &Cache, prices: &FenceChannel<u64>, standby: &mut Connection) -> Admission {
    let lease = prices.begin(&1);
    let lease = lease.on_standby(replayed(standby));
    let price = price(standby, 1);
    lease.admit(price, |entry| cache.insert(1, entry))
}

/// Delays the effect of commits on a standby.
pub(super) fn delay(standby: &mut Connection, time: &str) {
    standby.query(&format!("ALTER SYSTEM SET recovery_min_apply_delay = '{time}'")).unwrap();
    standby.query("SELECT pg_reload_conf()").unwrap();
    eventually("the delay is set", || ask(standby, "SHOW recovery_min_apply_delay") == time);
}

/// Creates the table on the primary, and waits until the standby has it.
pub(super) fn create_replicated_prices(primary: &mut Connection, standby: &mut Connection) {
    create_prices(primary);
    eventually("the standby has the table", || {
        let rows = standby.query("SELECT 1 FROM pg_tables WHERE tablename = 'prices'").unwrap();
        !rows.is_empty() && ask(standby, "SELECT count(*) FROM prices") == "1"
    });
}

#[test]
fn f04_a_fill_from_a_standby_is_refused_until_it_has_replayed_the_floor() {
    let (primary, standby) = primary_and_standby();
    let (mut on_primary, mut on_standby) = (connect(&primary.url()), connect(&standby.url()));
    create_replicated_prices(&mut on_primary, &mut on_standby);
    let ((fence, questions), cache) = (fence(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let notifier: Notifier<u32> = notifier(&primary.url()).start().unwrap();
    prices.subscribe(&notifier, 1, cache.invalidator()).unwrap();

    assert_eq!(fill_on_standby(&cache, &prices, &mut on_standby), Admission::Behind, "what was committed before?");
    answer(&questions, &mut on_primary);
    eventually("the standby is up to date", || fill_on_standby(&cache, &prices, &mut on_standby).is_stored());
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("old"));

    delay(&mut on_standby, "2s");
    set_price(&mut on_primary, 1, "new");
    eventually("the key is invalidated", || cache.fresh(&prices, 1).is_none());
    assert_eq!(price(&mut on_standby, 1), "old");
    assert_eq!(fill_on_standby(&cache, &prices, &mut on_standby), Admission::Behind, "the floor is not known");
    let (_, floor) = answer(&questions, &mut on_primary);
    assert!(replayed(&mut on_standby) < floor);
    assert_eq!(fill_on_standby(&cache, &prices, &mut on_standby), Admission::Behind, "the floor is not replayed");
    assert_eq!(cache.fresh(&prices, 1), None);
    eventually("the floor is replayed", || fill_on_standby(&cache, &prices, &mut on_standby).is_stored());
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("new"));
}

#[test]
fn f04_a_position_in_the_writing_transaction_lies_before_its_commit_and_is_not_enough() {
    let (primary, standby) = primary_and_standby();
    let (mut on_primary, mut on_standby) = (connect(&primary.url()), connect(&standby.url()));
    create_replicated_prices(&mut on_primary, &mut on_standby);
    let ((fence, questions), cache) = (fence(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let notifier: Notifier<u32> = notifier(&primary.url()).start().unwrap();
    prices.subscribe(&notifier, 1, cache.invalidator()).unwrap();
    fill_on_standby(&cache, &prices, &mut on_standby);
    answer(&questions, &mut on_primary);
    eventually("the standby is up to date", || fill_on_standby(&cache, &prices, &mut on_standby).is_stored());

    delay(&mut on_standby, "1h");
    on_primary.query("BEGIN; UPDATE prices SET price = 'new' WHERE item = 1; SELECT pg_notify('prices', '1')").unwrap();
    let in_transaction: Lsn = ask(&mut on_primary, "SELECT pg_current_wal_insert_lsn()").parse().unwrap();
    // The position may be the beginning of a page, which is only reached by another record.
    on_primary.query("SELECT pg_logical_emit_message(false, '', ''); COMMIT").unwrap();
    eventually("the key is invalidated", || cache.fresh(&prices, 1).is_none());
    eventually("the position is replayed", || replayed(&mut on_standby) >= in_transaction);

    let question = questions.recv_timeout(crate::support::server::LIMIT).unwrap();
    let (timeline, floor) = position(&mut on_primary);
    assert!(floor > in_transaction);
    question.answer(timeline, in_transaction);
    assert!(fill_on_standby(&cache, &prices, &mut on_standby).is_stored());
    assert_eq!(price(&mut on_primary, 1), "new");
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("old"), "stale until the next change");
}

#[test]
fn f04_a_promotion_discards_the_floors_of_the_last_timeline() {
    let (mut primary, standby) = primary_and_standby();
    let (mut on_primary, mut on_standby) = (connect(&primary.url()), connect(&standby.url()));
    create_replicated_prices(&mut on_primary, &mut on_standby);
    let ((fence, questions), cache) = (fence(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let either = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user=postgres target_session_attrs=primary connect_timeout=10",
        primary.port(),
        standby.port()
    );
    let notifier: Notifier<u32> = notifier(&either).start().unwrap();
    prices.subscribe(&notifier, 1, cache.invalidator()).unwrap();

    // The last primary is far ahead of the standby, and what is between is lost with it.
    prices.invalidate(&1, || ()).unwrap();
    let floor = Lsn::from(u64::from(position(&mut on_primary).1) + (1 << 32));
    questions.recv_timeout(crate::support::server::LIMIT).unwrap().answer(1, floor);
    let fill_at = |lsn: Lsn| prices.begin(&1).on_standby(lsn).admit((), |_| ());
    assert_eq!((fill_at(Lsn::from(u64::from(floor) - 1)), fill_at(floor)), (Admission::Behind, Admission::Stored));

    primary.stop_immediate().unwrap();
    eventually("the channel is away", || !prices.is_open());
    promote(&standby);
    eventually("the channel is back", || prices.is_open());
    let mut on_new_primary = connect(&standby.url());
    // A standby of the new primary, which has replayed everything.
    let mut fill = || {
        let lease = prices.begin(&1);
        let lease = lease.on_standby(position(&mut on_new_primary).1);
        let price = price(&mut on_new_primary, 1);
        (lease.admit(price, |entry| cache.insert(1, entry)), position(&mut on_new_primary).1)
    };
    let (admission, replayed) = fill();
    assert_eq!(admission, Admission::Behind, "the floor of the channel is not known");
    assert!(replayed < floor, "the new timeline begins before it");
    let mut primary = connect(&standby.url());
    let mut timeline = 0;
    eventually("the questions are answered", || {
        while let Ok(question) = questions.try_recv() {
            let (of_answer, lsn) = position(&mut primary);
            question.answer(of_answer, lsn);
            timeline = of_answer;
        }
        fill().0.is_stored()
    });
    assert_eq!(timeline, 2);
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("old"));
}
