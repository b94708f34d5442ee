//! Injects faults, one after the other, from the seed.

use std::thread;
use std::time::Duration;

use notifyman::{Config, Connection};

use crate::args::Random;
use crate::process::RelayProcess;
use crate::proxy::Proxy;
use crate::{Deployment, RelaySite};

/// Injects a fault, and ends it unless it lasts by itself. Returns its description.
pub fn inject(deployment: &mut Deployment, random: &mut Random) -> Result<String, String> {
    let leader = deployment.relays.iter().position(RelaySite::is_leader);
    // Mostly the leader: faults of the other relay do less.
    let at = leader.filter(|_| random.below(4) > 0).unwrap_or_else(|| random.below(2));
    let name = format!("relay {}{}", at + 1, if leader == Some(at) { ", the leader," } else { "" });
    let site = &mut deployment.relays[at];
    Ok(match random.below(26) {
        0..=4 => {
            site.process = None;
            thread::sleep(random.millis(0, 1500));
            site.start();
            format!("{name} was killed, and started again")
        }
        5..=7 => {
            let time = random.millis(100, 4000);
            site.process.iter().for_each(|process| process.signal("STOP"));
            thread::sleep(time);
            site.process.iter().for_each(|process| process.signal("CONT"));
            format!("{name} was stopped for {time:?}")
        }
        8 => {
            site.process.iter().for_each(|process| process.signal("TERM"));
            site.process.take().into_iter().for_each(RelayProcess::wait);
            site.start();
            format!("{name} was terminated, and started again")
        }
        9..=12 => format!("{name} from the engine: {}", cut(&site.engine, random)),
        13..=16 => format!("{name} from PostgreSQL: {}", cut(&site.postgres, random)),
        17 => {
            deployment.relays.iter().for_each(|site| site.postgres.black_hole());
            let time = random.millis(100, 4000);
            thread::sleep(time);
            deployment.relays.iter().for_each(|site| site.postgres.resume());
            format!("both relays were cut off from PostgreSQL for {time:?}")
        }
        18 => {
            deployment.relays.iter().for_each(|site| site.engine.black_hole());
            let time = random.millis(100, 4000);
            thread::sleep(time);
            deployment.relays.iter().for_each(|site| site.engine.resume());
            format!("both relays were cut off from the engine for {time:?}")
        }
        19 => {
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted";
            let url = deployment.postgres.url();
            let config = Config::without_env(&url).map_err(|error| error.to_string())?;
            // The server may be starting.
            let ended = Connection::connect(config).and_then(|mut db| db.query(sql)).is_ok();
            format!("the session of the leader was terminated ({ended})")
        }
        20 => {
            let result = match random.below(2) {
                0 => deployment.postgres.kill(),
                _ => deployment.postgres.stop_immediate(),
            };
            result.and_then(|()| deployment.postgres.restart()).map_err(|error| error.to_string())?;
            "PostgreSQL was restarted".to_owned()
        }
        21..=22 => {
            let engine = &mut deployment.engine;
            engine.stop_with("KILL").map_err(|error| error.to_string())?;
            thread::sleep(random.millis(0, 1000));
            engine.launch().map_err(|error| error.to_string())?;
            "the engine was killed, and started again without data".to_owned()
        }
        23 => {
            let engine = &deployment.engine;
            let pid = engine.process.as_ref().map(std::process::Child::id).unwrap_or_default();
            let time = random.millis(100, 3000);
            crate::cluster::signal(pid, "STOP").map_err(|error| error.to_string())?;
            thread::sleep(time);
            crate::cluster::signal(pid, "CONT").map_err(|error| error.to_string())?;
            format!("the engine was stopped for {time:?}")
        }
        _ => {
            let command = *random.pick(&["DEL notifyman:shop", "FLUSHALL", "XTRIM notifyman:shop MAXLEN 2"]).unwrap();
            ask(deployment.engine.port, command).map_err(|error| format!("{command}: {error}"))?;
            command.to_owned()
        }
    })
}

/// Disturbs a link, and lets it work again.
fn cut(proxy: &Proxy, random: &mut Random) -> String {
    let time = random.millis(100, 3000);
    let what = match random.below(7) {
        0 => {
            proxy.cut_fin();
            return "closed".to_owned();
        }
        1 => {
            proxy.cut_rst();
            return "reset".to_owned();
        }
        2 => {
            proxy.black_hole();
            "nothing forwarded"
        }
        3 => {
            proxy.black_hole_to_server();
            "nothing forwarded to the server"
        }
        4 => {
            proxy.black_hole_to_client();
            "nothing forwarded from the server"
        }
        5 => {
            proxy.slow(1 + random.below(200), random.millis(1, 8));
            "slow"
        }
        _ => {
            proxy.refuse();
            proxy.cut_rst();
            "refused"
        }
    };
    thread::sleep(time);
    proxy.resume();
    format!("{what} for {time:?}")
}

/// Lets everything work.
pub fn end_all(deployment: &mut Deployment) -> Result<(), String> {
    for site in &mut deployment.relays {
        site.postgres.resume();
        site.engine.resume();
        site.start();
    }
    if deployment.postgres.pid().is_none() {
        deployment.postgres.restart().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Sends a command whose words contain no spaces to the engine, and reads the first bytes of its answer.
fn ask(port: u16, command: &str) -> std::io::Result<()> {
    use std::io::{Read as _, Write as _};
    let mut connection = std::net::TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    connection.write_all(format!("{command}\r\n").as_bytes())?;
    connection.read(&mut [0; 64]).map(drop)
}
