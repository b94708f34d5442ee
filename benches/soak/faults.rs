//! Injects faults into servers and links, one after the other, from the seed. At the end all servers and links work.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use notifyman::{Config, Connection};

use crate::Site;
use crate::args::{Args, Random};
use crate::cluster::signal;
use crate::ledger::{Ledger, Violation};

/// Injects faults until the end of the soak, and then stops the servers.
pub fn inject(mut sites: Vec<Site>, ledger: &Ledger, args: &Args) -> Result<(), Violation> {
    let mut random = Random::new(args.seed);
    // There are no faults while the first connections are opened.
    rest(ledger, Duration::from_secs(1));
    while !ledger.is_winding_down() {
        let at = random.below(sites.len());
        inject_one(&mut sites[at], ledger, &mut random)?;
        ledger.faults.fetch_add(1, Relaxed);
        rest(ledger, random.millis(20, 300));
    }
    for site in &mut sites {
        site.proxies.iter().for_each(|proxy| proxy.resume());
        if site.server.pid().is_none() {
            site.server.restart().map_err(Violation::context("a server did not restart"))?;
        }
    }
    ledger.busy.fetch_sub(1, Relaxed);
    while !ledger.has_ended() {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sleeps, until the soak winds down.
fn rest(ledger: &Ledger, time: Duration) {
    let slice = Duration::from_millis(20);
    let mut left = time;
    while !left.is_zero() && !ledger.is_winding_down() {
        thread::sleep(left.min(slice));
        left = left.saturating_sub(slice);
    }
}

fn inject_one(site: &mut Site, ledger: &Ledger, random: &mut Random) -> Result<(), Violation> {
    let proxy = &site.proxies[random.below(site.proxies.len())];
    match random.below(32) {
        0..=3 => proxy.cut_fin(),
        4..=7 => proxy.cut_rst(),
        8..=11 => {
            proxy.black_hole();
            rest(ledger, random.millis(100, 2500));
            proxy.resume();
        }
        12..=14 => {
            proxy.slow(1 + random.below(60), random.millis(1, 8));
            rest(ledger, random.millis(100, 1000));
            proxy.resume();
        }
        15..=17 => {
            proxy.one_byte_at_a_time();
            rest(ledger, random.millis(100, 700));
            proxy.resume();
        }
        18..=20 => {
            ledger.forge();
            proxy.inject(random.pick::<&[u8]>(&[b"\x00\xff\x00\xff garbage", b"Z\xff\xff\xff\xffI", b"A"]).unwrap());
        }
        21..=22 => {
            proxy.refuse();
            rest(ledger, random.millis(50, 800));
            proxy.resume();
        }
        23..=26 => {
            if let Some((mut admin, pid)) = some_session(site, random) {
                let _ = admin.query(&format!("SELECT pg_terminate_backend({pid})"));
            }
        }
        27..=29 => {
            if let Some((_, pid)) = some_session(site, random)
                && signal(pid, "STOP").is_ok()
            {
                rest(ledger, random.millis(100, 2500));
                // The process may have ended.
                let _ = signal(pid, "CONT");
            }
        }
        30 => {
            // The server treats this as a crash, and ends all its sessions.
            if let Some((_, pid)) = some_session(site, random) {
                let _ = signal(pid, "KILL");
            }
        }
        _ => {
            site.server.stop_immediate().map_err(Violation::context("a server did not stop"))?;
            rest(ledger, random.millis(0, 1000));
            site.server.restart().map_err(Violation::context("a server did not restart"))?;
        }
    }
    Ok(())
}

/// Returns the process id of a session of the server, and a connection to it.
fn some_session(site: &Site, random: &mut Random) -> Option<(Connection, u32)> {
    let mut admin = Connection::connect(Config::without_env(&site.server.url()).ok()?).ok()?;
    let others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
                  AND query NOT LIKE '%pg_notify%' ORDER BY pid";
    let rows = admin.query(others).ok()?;
    let pid = random.pick(&rows)?.get(0)?.parse().ok()?;
    Some((admin, pid))
}
