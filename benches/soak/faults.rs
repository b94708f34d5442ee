//! What happens to servers and links: one fault after the other, from the seed; and in the end all is well again.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use notifyman::{Config, Connection};

use crate::Site;
use crate::args::{Args, Dice};
use crate::books::{Books, Breach};
use crate::cluster::signal;

/// Takes the servers, and lets them go when the soak has ended.
pub fn strike(mut sites: Vec<Site>, books: &Books, args: &Args) -> Result<(), Breach> {
    let mut dice = Dice::new(args.seed);
    // The fleet first comes together in peace.
    rest(books, Duration::from_secs(1));
    while !books.is_called_off() {
        let at = dice.below(sites.len());
        strike_once(&mut sites[at], books, &mut dice)?;
        books.faults.fetch_add(1, Relaxed);
        rest(books, dice.millis(20, 300));
    }
    for site in &mut sites {
        site.proxies.iter().for_each(|proxy| proxy.resume());
        if site.server.pid().is_none() {
            site.server.restart().map_err(Breach::because("a server didn't start again"))?;
        }
    }
    books.busy.fetch_sub(1, Relaxed);
    while !books.has_ended() {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sleeps, unless it is over.
fn rest(books: &Books, time: Duration) {
    let slice = Duration::from_millis(20);
    let mut left = time;
    while !left.is_zero() && !books.is_called_off() {
        thread::sleep(left.min(slice));
        left = left.saturating_sub(slice);
    }
}

fn strike_once(site: &mut Site, books: &Books, dice: &mut Dice) -> Result<(), Breach> {
    let proxy = &site.proxies[dice.below(site.proxies.len())];
    match dice.below(32) {
        0..=3 => proxy.cut_fin(),
        4..=7 => proxy.cut_rst(),
        8..=11 => {
            proxy.black_hole();
            rest(books, dice.millis(100, 2500));
            proxy.resume();
        }
        12..=14 => {
            proxy.slow(1 + dice.below(60), dice.millis(1, 8));
            rest(books, dice.millis(100, 1000));
            proxy.resume();
        }
        15..=17 => {
            proxy.one_byte_at_a_time();
            rest(books, dice.millis(100, 700));
            proxy.resume();
        }
        18..=20 => {
            books.forge();
            proxy.inject(dice.pick::<&[u8]>(&[b"\x00\xff\x00\xff garbage", b"Z\xff\xff\xff\xffI", b"A"]).unwrap());
        }
        21..=22 => {
            proxy.refuse();
            rest(books, dice.millis(50, 800));
            proxy.resume();
        }
        23..=26 => {
            if let Some((mut admin, pid)) = some_session(site, dice) {
                let _ = admin.query(&format!("SELECT pg_terminate_backend({pid})"));
            }
        }
        27..=29 => {
            if let Some((_, pid)) = some_session(site, dice)
                && signal(pid, "STOP").is_ok()
            {
                rest(books, dice.millis(100, 2500));
                // It may have ended, which is as good.
                let _ = signal(pid, "CONT");
            }
        }
        30 => {
            // The server takes it for a crash, and ends all its sessions.
            if let Some((_, pid)) = some_session(site, dice) {
                let _ = signal(pid, "KILL");
            }
        }
        _ => {
            site.server.stop_immediate().map_err(Breach::because("a server didn't stop"))?;
            rest(books, dice.millis(0, 1000));
            site.server.restart().map_err(Breach::because("a server didn't start again"))?;
        }
    }
    Ok(())
}

/// A session of the server by its process, and a session of ours.
fn some_session(site: &Site, dice: &mut Dice) -> Option<(Connection, u32)> {
    let mut admin = Connection::connect(Config::without_env(&site.server.url()).ok()?).ok()?;
    let others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
                  AND query NOT LIKE '%pg_notify%' ORDER BY pid";
    let rows = admin.query(others).ok()?;
    let pid = dice.pick(&rows)?.get(0)?.parse().ok()?;
    Some((admin, pid))
}
