//! M03 and M19: events after a stop.

use std::thread;
use std::time::Duration;

use notifyman::{Event, NotificationManager};

use super::fake::Fake;
use super::support::payloads;

const T: Duration = Duration::from_millis(20);

/// Returns a manager that was stopped just after it polled its sockets for an idle event that is due, and the server's
/// end of its connection.
fn stopped_before_an_idle_event(fake: &mut Fake) -> (NotificationManager, super::fake::Line) {
    let (db, mut line) = fake.open();
    let mut nm = NotificationManager::new([db]).timeout(T);
    assert!(matches!(nm.next_event(), Some(Event::Idle)));
    thread::sleep(2 * T);
    line.notify("before");
    let Some(Event::Notifies(_, batch)) = nm.next_event() else {
        panic!("notifications are reported before the idle event")
    };
    assert_eq!(payloads(&batch), ["before"]);
    nm.handle().stop();
    assert!(nm.next_event().is_none());
    (nm, line)
}

#[test]
fn m03_after_a_stop_the_sockets_are_polled_again_before_an_idle_event() {
    let mut fake = Fake::new();
    let (mut nm, mut line) = stopped_before_an_idle_event(&mut fake);
    line.notify("after");
    let event = nm.next_event();
    let Some(Event::Notifies(_, batch)) = event else { panic!("{event:?} is reported before the notifications") };
    assert_eq!(payloads(&batch), ["after"]);
    assert!(matches!(nm.next_event(), Some(Event::Idle)));
}

#[test]
fn m03_after_a_change_of_the_timeout_the_sockets_are_polled_again_before_an_idle_event() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let mut nm = NotificationManager::new([db]).timeout(T);
    assert!(matches!(nm.next_event(), Some(Event::Idle)));
    thread::sleep(2 * T);
    line.notify("before");
    assert!(matches!(nm.next_event(), Some(Event::Notifies(..))));
    nm.set_timeout(10 * T);
    line.notify("after");
    let event = nm.next_event();
    let Some(Event::Notifies(_, batch)) = event else { panic!("{event:?} is reported before the notifications") };
    assert_eq!(payloads(&batch), ["after"]);
}
