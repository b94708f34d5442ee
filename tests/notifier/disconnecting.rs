//! N7: a subscriber that is disconnected because its queue is full costs the server nothing more.

use notifyman::Notifier;
use notifyman::notifier::{Policy, Queue};

use super::support::*;

#[test]
fn n07_a_channel_without_subscribers_is_unlistened_after_a_disconnect() {
    const NAME: &str = "a notifier that disconnects";
    let queue = Queue::new(Policy::Disconnect).items(1);
    let n: Notifier<u32> = Notifier::builder(config().application_name(NAME)).unwrap().queue(queue).start().unwrap();
    let (scribe, told) = scribe();
    let (channel, door) = (fresh(), Door::default());
    n.subscribe(1, &channel, at_the_door(&door, &scribe)).unwrap();
    let mut db = session();
    send(&mut db, &channel, ["0"]);
    assert_eq!(told.next(), "at the door");
    send(&mut db, &channel, ["1", "2"]);
    eventually("it is unsubscribed", || n.subscriptions().is_empty());
    let last = format!("SELECT string_agg(query, ' ') FROM pg_stat_activity WHERE application_name = '{NAME}'");
    let unlisten = format!("UNLISTEN \"{channel}\"");
    eventually("the channel is unlistened", || ask(&mut db, &last) == unlisten);
    door.open();
    assert_eq!(told.take(3), ["0", "1", "[unsubscribed 1]"]);
}
