//! Tests of the fleet with real descriptors, by way of the manager.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::turn::WATCHING;
use crate::config::Config;
use crate::connection::{Connection, Link, TraceLabel};
use crate::error::Error;
use crate::manager::conn_id::ConnId;
use crate::manager::event::Event;
use crate::manager::handle::Handle;
use crate::manager::ticket::Ticket;
use crate::manager::{Dead, NotificationManager};
use crate::net::Stream;
use crate::proto::Session;

fn connection_over(fd: impl Into<OwnedFd>) -> Connection {
    let config = Config::new().host("127.0.0.1").user("app");
    let session = Session::new(&config).unwrap();
    Link::new(session, Stream::from_fd(fd.into()), config, Instant::now(), TraceLabel::default()).into()
}

/// A poll of Linux watches sockets, and refuses a file.
#[cfg(target_os = "linux")]
#[test]
fn m10_a_connection_that_cannot_be_watched_is_lost_and_no_other() {
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut manager = NotificationManager::new([connection_over(file), connection_over(socket)]);
    let Some(Event::Lost(id, Error::Io { action: WATCHING, .. })) = manager.next_event() else { panic!() };
    assert_eq!(id, ConnId::for_test(1));
    assert_eq!(manager.garbage().map(|(id, _)| id).collect::<Vec<_>>(), [id]);
    assert_eq!(manager.connections().map(|(id, _)| id).collect::<Vec<_>>(), [ConnId::for_test(2)]);
}

#[test]
fn m18_a_manager_and_its_handle_can_be_sent_to_another_thread() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<NotificationManager>();
    is_send::<Connection>();
    is_send::<Dead>();
    is_send::<Handle>();
    is_sync::<Handle>();
    is_send::<Ticket<Connection>>();
    is_send::<Error>();
    is_sync::<Error>();
}
