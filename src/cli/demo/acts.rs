//! What happens under way, and when: a server is shut down, its connections die and are revived, and there is silence.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use notifyman::{ConnId, Error, Gap, NotificationManager};

use super::Show;
use super::outage::{Outage, Stage};
use super::summary::Before;
use super::view;
use super::writer::{Orders, Writer};

/// When a server is shut down, when it is started again, and when all fall silent: in percent of the whole time.
const SHUTDOWN: u32 = 35;
const RETURN: u32 = 55;
const SILENCE: u32 = 80;

impl Show {
    /// Has happen what is to happen by now.
    pub(super) fn direct(&mut self, now: Instant) -> io::Result<()> {
        let passed = now - self.meter.began();
        if self.outage.is_none()
            && self.plan.clusters > 1
            && passed >= self.length * SHUTDOWN / 100
            && let Some(server) = self.servers.pop()
        {
            self.say(&format!("server {} is shut down, under way", self.plan.clusters))?;
            self.outage = Some(Outage::begin(self.plan.clusters - 1, server));
        }
        if passed >= self.length * RETURN / 100
            && let Some(outage) = self.outage.as_mut().filter(|outage| outage.stage == Stage::Down)
        {
            outage.start_again();
            self.say(&format!("server {} is started again", self.plan.clusters))?;
        }
        if passed >= self.length * SILENCE / 100 && !self.silence.swap(true, Relaxed) {
            self.say("nobody notifies any more: only idle events from here on")?;
        }
        Ok(())
    }

    pub(super) fn lost(&mut self, id: ConnId, error: Error) -> io::Result<()> {
        let reason = error.to_string();
        let Some(cluster) = self.meter.lost(id, error) else { return Ok(()) };
        self.untold = Some((cluster, 0));
        self.say(&format!("connection {id} goes to the garbage:\n         {}", view::cut(&reason, 69)))
    }

    /// An idle event: the place to tell what has happened, and to bring back whom the garbage holds.
    pub(super) fn idle(&mut self, now: Instant, nm: &mut NotificationManager) -> io::Result<()> {
        self.meter.idles += 1;
        self.idle_at = Some(now);
        self.tell_losses()?;
        let Some(outage) = &mut self.outage else { return Ok(()) };
        let Some(server) = outage.take_server() else { return Ok(()) };
        match server {
            Ok(server) => self.servers.push(server),
            // Its connections stay in the garbage, and the verdict says so.
            Err(error) => return self.say(&format!("it doesn't start: {error}")),
        }
        outage.stage = Stage::Reviving;
        self.meter.clusters[outage.cluster].reviving = true;
        let garbage = nm.take_garbage();
        self.say(&format!("it is up: {} connections are taken from the garbage, and revived", garbage.len()))?;
        for (id, dead) in garbage {
            nm.revive(id, dead);
        }
        Ok(())
    }

    /// Once there are no more of them: what the end of a server has touched.
    fn tell_losses(&mut self) -> io::Result<()> {
        let Some((cluster, before)) = self.untold.take() else { return Ok(()) };
        let lost = self.meter.clusters[cluster].lost;
        if lost > before {
            self.untold = Some((cluster, lost));
            return Ok(());
        }
        let (good, _) = view::totals(&self.meter);
        self.say(&format!("the garbage holds {lost} connections of server {}; {good} others go on", cluster + 1))
    }

    pub(super) fn restored(&mut self, id: ConnId, gap: &Gap) -> io::Result<()> {
        let Some(cluster) = self.meter.restored(id, gap.duration()) else { return Ok(()) };
        let tally = &self.meter.clusters[cluster];
        let (first, all_back, back) = (tally.revived == 1, tally.lost == 0, tally.revived);
        if first {
            let channels: Vec<&str> = gap.channels().iter().map(|channel| &**channel).collect();
            let what = view::cut(&channels.join(", "), 50);
            let seconds = gap.duration().as_secs_f64();
            self.say(&format!("connection {id} is back; its gap: {seconds:.1} s in\n         {what}"))?;
        }
        if let Some(outage) = self.outage.as_mut().filter(|outage| all_back && outage.cluster == cluster) {
            outage.stage = Stage::Over;
            self.say(&format!("all {back} are back, under their old ids, and hear again"))?;
            self.write_again(cluster);
        }
        Ok(())
    }

    /// Has another writer go on where the first was cut off.
    fn write_again(&mut self, cluster: usize) {
        if self.silence.load(Relaxed) {
            return;
        }
        let Some(orders) = self.orders(cluster) else { return };
        let Some(place) = self.writers.get_mut(cluster) else { return };
        // What the server took last, it may not have acknowledged: so that no number comes twice, some are left out.
        let gap = u64::from(orders.rate) * 2;
        let (sent, due, _) = std::mem::replace(place, Writer::idle()).join();
        *place = Writer::start(Orders { first: sent + gap, ..orders });
        self.before = Some(Before { sent, due, received: self.meter.clusters[cluster].received });
    }

    /// What the writer of a server is to do; nothing where the server is away.
    pub(super) fn orders(&self, cluster: usize) -> Option<Orders> {
        let (number, clusters) = (u32::try_from(cluster).ok()?, u32::try_from(self.plan.clusters).ok()?);
        Some(Orders {
            config: self.servers.get(cluster)?.config().clone(),
            listeners: self.plan.listeners(cluster),
            first: 0,
            rate: (self.rate + number) / clusters,
            began: self.meter.began(),
            offset: super::IDLE * number / clusters,
            stop: Arc::clone(&self.silence),
        })
    }
}
