//! Subscribers that are disconnected because their queue is full.

use notifyman::Notifier;
use notifyman::notifier::{Policy, Queue};

use super::support::*;

#[test]
fn n07_a_channel_without_subscribers_is_unlistened_after_a_disconnect() {
    const NAME: &str = "a notifier that disconnects";
    let queue = Queue::new(Policy::Disconnect).items(1);
    let n: Notifier<u32> = Notifier::builder(config().application_name(NAME)).unwrap().queue(queue).start().unwrap();
    let (recorder, records) = recorder();
    let (channel, latch) = (new_channel(), Latch::default());
    n.subscribe(1, &channel, blocking(&latch, &recorder)).unwrap();
    let mut db = session();
    send(&mut db, &channel, ["0"]);
    assert_eq!(records.next(), "blocked");
    send(&mut db, &channel, ["1", "2"]);
    eventually("the subscriber is unsubscribed", || n.subscriptions().is_empty());
    let last = format!("SELECT string_agg(query, ' ') FROM pg_stat_activity WHERE application_name = '{NAME}'");
    let unlisten = format!("UNLISTEN \"{channel}\"");
    eventually("the channel is unlistened", || ask(&mut db, &last) == unlisten);
    latch.open();
    assert_eq!(records.take(3), ["0", "1", "[unsubscribed 1]"]);
}
