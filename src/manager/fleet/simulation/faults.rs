//! The sessions at the server's end of the network, and the accidents that happen to them.

use std::time::Duration;

use super::network::{Arrival, LinkEnd, Network};
use super::server::{AFTER_CONNECT, CANARY, Effect, Message};
use super::tickets::marked;
use crate::proto::script;

impl Network {
    /// Handles bytes of a client at the server.
    pub(super) fn receive(&mut self, id: u64, bytes: Option<Vec<u8>>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match bytes {
            Some(bytes) => {
                link.room = link.room.saturating_add(bytes.len());
                let was_blocked = std::mem::take(&mut link.is_blocked);
                if was_blocked && link.watch.is_some_and(|(_, writable)| writable) {
                    self.edges.insert(id);
                }
                if !link.backend.is_over {
                    link.backend.receive(&bytes);
                    self.serve(id);
                }
            }
            None => {
                link.backend.is_over = true;
                if link.is_dropped {
                    self.remove(id);
                }
            }
        }
    }

    /// Answers the messages that have arrived.
    pub(super) fn serve(&mut self, id: u64) {
        while let Some(message) = self.links.get_mut(&id).and_then(|link| link.backend.next_message()) {
            self.answer(id, message);
        }
    }

    fn answer(&mut self, id: u64, message: Message) {
        let chance = if self.faults.is_on { self.below(100) } else { 100 };
        let is_starting = self.faults.starting.is_some_and(|starting| self.now < starting);
        self.log(|| format!("server {id}: {message:?}"));
        let Some(link) = self.links.get_mut(&id) else { return };
        match message {
            Message::Startup if self.faults.is_silent => {}
            Message::Startup if is_starting => {
                self.counts.add("login refused: starting");
                self.end_with(id, "57P03", "the database system is starting up");
            }
            Message::Startup if chance < 5 => {
                self.counts.add("login refused: too many clients");
                self.end_with(id, "53300", "sorry, too many clients already");
            }
            Message::Startup => {
                let login = link.backend.login(id);
                self.say(id, login);
            }
            Message::Cancel(pid) => {
                self.counts.add("CancelRequest");
                if let Some(of) = self.links.get_mut(&pid)
                    && std::mem::take(&mut of.backend.is_busy)
                {
                    let is_open = of.backend.status != b'I';
                    of.backend.status = if is_open { b'E' } else { b'I' };
                    of.backend.effects.clear();
                    self.complete(pid, script::error("ERROR", "57014", "canceling statement due to user request"));
                    self.serve(pid);
                }
                self.end(id, LinkEnd::Eof);
            }
            Message::Sync => {
                self.counts.add("Sync");
                self.complete(id, Vec::new());
            }
            Message::Terminate => self.end(id, LinkEnd::Eof),
            Message::Query(query) => {
                if query == AFTER_CONNECT {
                    self.counts.add("prepared");
                }
                let executed = link.backend.execute(&query, chance < 4);
                link.backend.is_busy = true;
                link.backend.statement += 1;
                // Longer than a call may take.
                link.is_intact &= executed.lasts < Duration::from_millis(500);
                if executed.lasts.is_zero() {
                    link.backend.is_busy = false;
                    let mark = marked(&query).filter(|_| !link.is_garbled && !executed.is_refused);
                    self.complete(id, executed.reply);
                    if let (Some(mark), Some(link)) = (mark, self.links.get_mut(&id)) {
                        link.answers.push((link.sent, mark));
                    }
                } else {
                    let statement = link.backend.statement;
                    self.schedule(self.now + executed.lasts, Arrival::Executed(id, statement, executed.reply));
                }
            }
        }
    }

    /// Ends a statement: commits it, unless a transaction is open, and answers.
    pub(super) fn complete(&mut self, id: u64, reply: Vec<u8>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.backend.status == b'I' {
            let effects = std::mem::take(&mut link.backend.effects);
            // The statement still runs for other sessions' notifications.
            link.backend.is_busy = true;
            for effect in effects {
                self.apply(id, effect);
            }
            // Another session commits before the acknowledgement is sent.
            if self.faults.is_on && self.chance(6) {
                self.commit("c1");
            }
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        link.backend.is_busy = false;
        let status = link.backend.status;
        let held = if status == b'I' { std::mem::take(&mut link.backend.held) } else { Vec::new() };
        self.say(id, [reply, held, script::ready(status)].concat());
    }

    fn apply(&mut self, id: u64, effect: Effect) {
        let committed = self.committed.clone();
        let Some(link) = self.links.get_mut(&id) else { return };
        let backend = &mut link.backend;
        match effect {
            Effect::Listen(channel) => {
                if !backend.registered.contains_key(&channel) {
                    let before = committed.get(&channel).copied().unwrap_or_default();
                    backend.registered.insert(channel.clone(), before);
                    backend.registered_at.insert(channel, before);
                }
            }
            Effect::Unlisten(channel) => _ = backend.unlisten(&channel, &committed),
            Effect::UnlistenAll => {
                for channel in backend.registered.keys().cloned().collect::<Vec<_>>() {
                    backend.unlisten(&channel, &committed);
                }
            }
            Effect::Notify(channel, payload) if channel == CANARY => {
                self.counts.add("canary");
                self.deliver(CANARY, id, &payload);
            }
            Effect::Notify(channel, _) => self.commit(&channel),
        }
    }

    /// Commits the next notification on a channel: its payload is its number, and its number on the channel.
    pub(super) fn commit(&mut self, channel: &str) {
        if self.faults.down.is_some_and(|down| self.now < down) {
            return;
        }
        self.number += 1;
        let count = self.committed.entry(channel.to_owned()).or_default();
        *count += 1;
        self.commits.entry(channel.to_owned()).or_default().push(self.now);
        let payload = format!("{} {count}", self.number);
        self.counts.add("notification");
        self.deliver(channel, 0, &payload);
    }

    fn deliver(&mut self, channel: &str, from: u64, payload: &str) {
        let pid = i32::try_from(from).unwrap_or_default();
        let frame = script::notification(pid, channel, payload);
        let listens = |backend: &super::server::Backend| {
            backend.registered.contains_key(channel) && !backend.is_mute && !backend.is_over
        };
        let listeners = self.links.iter().filter(|(_, link)| listens(&link.backend)).map(|(id, _)| *id);
        for id in listeners.collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(&id) else { continue };
            let backend = &mut link.backend;
            match backend.is_busy || backend.status != b'I' || backend.holds_back {
                true => backend.held.extend(&frame),
                false => self.say(id, frame.clone()),
            }
        }
    }

    /// Sends bytes to a client, perhaps in pieces.
    fn say(&mut self, id: u64, bytes: Vec<u8>) {
        if self.links.get(&id).is_none_or(|link| link.backend.is_over) {
            return;
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.sent += bytes.len() as u64;
        }
        let mut rest = &bytes[..];
        while rest.len() > 1 && self.chance(3) {
            let at = 1 + self.below(rest.len() as u64 - 1) as usize;
            let (piece, later) = rest.split_at(at);
            let pause = self.millis(0, 3);
            self.send(id, 0, pause, Arrival::Bytes(id, piece.to_vec()));
            rest = later;
        }
        self.send(id, 0, Duration::ZERO, Arrival::Bytes(id, rest.to_vec()));
    }

    /// Ends a process. Its answers may still be on their way.
    fn end(&mut self, id: u64, end: LinkEnd) {
        self.send(id, 0, Duration::ZERO, Arrival::End(id, end));
        let Some(link) = self.links.get_mut(&id) else { return };
        link.backend.is_over = true;
        link.backend.registered.clear();
        if link.is_dropped {
            self.remove(id);
        }
    }

    fn end_with(&mut self, id: u64, code: &str, message: &str) {
        if let Some(link) = self.links.get_mut(&id) {
            link.is_intact = false;
        }
        self.say(id, script::error("FATAL", code, message));
        self.end(id, LinkEnd::Eof);
    }

    // ---- accidents --------------------------------------------------------------------------------------------------

    /// Begins commits and accidents.
    pub(super) fn begin(&mut self) {
        self.faults.is_on = true;
        self.schedule(self.now, Arrival::Commit);
        self.schedule(self.now + Duration::from_millis(500), Arrival::Accident);
    }

    /// Lets something happen to one session, or to all.
    pub(super) fn accident(&mut self) {
        if self.chance(10) {
            return self.restart();
        }
        let ids: Vec<_> = self.links.iter().filter(|(_, link)| !link.backend.is_over).map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.below(ids.len() as u64) as usize];
        let (kind, way, late) = (self.below(13), self.below(3), self.millis(100, 3000));
        let faults = self.faults.clone();
        self.log(|| format!("accident {kind} {way} to {id}"));
        let Some(link) = self.links.get_mut(&id) else { return };
        match kind {
            0 => {
                self.counts.add("session terminated");
                self.end_with(id, "57P01", "terminating connection due to administrator command");
            }
            1 | 2 => {
                link.is_intact = false;
                self.counts.add(if kind == 1 { "session ended" } else { "session reset" });
                self.end(id, if kind == 1 { LinkEnd::Eof } else { LinkEnd::Reset });
            }
            3..=5 if faults.cuts => {
                link.is_intact = false;
                link.is_cut[0] |= way != 1;
                link.is_cut[1] |= way != 0;
                self.counts.add("link cut");
            }
            6 => {
                (link.is_intact, link.is_garbled) = (false, true);
                self.counts.add("garbage received");
                self.say(id, b"\x00\xff\x00\xff garbage".to_vec());
            }
            7 => {
                link.is_intact = false;
                link.delay = late;
                self.counts.add("link slow");
            }
            8..=10 if faults.forgets => {
                link.is_intact = false;
                let channel = if way == 0 && faults.mutes { CANARY } else { ["c0", "c1", "c2"][way as usize] };
                link.backend.forget(channel, &self.committed);
                self.counts.add("channel forgotten");
            }
            11 if faults.mutes => {
                link.is_intact = false;
                link.backend.is_mute = true;
                self.counts.add("session mute");
            }
            12 if faults.mutes => {
                link.is_intact = false;
                link.backend.holds_back = true;
                self.counts.add("notifications held back");
            }
            _ => {}
        }
    }

    /// Resets all sessions.
    pub(super) fn end_all(&mut self) {
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.end(id, LinkEnd::Reset);
        }
    }

    fn restart(&mut self) {
        let (down, starting) = (self.millis(10, 3000), self.millis(1, 1000));
        (self.faults.down, self.faults.starting) = (Some(self.now + down), Some(self.now + down + starting));
        self.counts.add("server restarted");
        let manner = self.below(3);
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(&id) else { continue };
            link.is_intact = false;
            match manner {
                0 => self.end_with(id, "57P01", "terminating connection due to administrator command"),
                1 => {
                    self.say(id, script::notice("WARNING", "57P02", "crash of another server process"));
                    self.end(id, LinkEnd::Eof);
                }
                _ => self.end(id, LinkEnd::Reset),
            }
        }
    }

    /// Ends all accidents: what is down comes up, and stays.
    pub(super) fn make_peace(&mut self) {
        (self.faults.down, self.faults.starting, self.faults.is_on) = (None, None, false);
        self.faults.is_narrow = false;
        for link in self.links.values_mut() {
            link.delay = link.delay.min(Duration::from_millis(30));
            link.room = usize::MAX / 2;
        }
    }
}
