//! M13 and M15: links that break silently, in separate network namespaces, so that the machine's own network is not changed.
//! Host names and clocks that change are tested here, too, because they also need an isolated environment.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::support::*;
use crate::support::{Cluster, Options, Proxy};
use crate::support::{
    subprocess,
    tools::{self, not_run, run_script},
};

const NETWORK: &[&str] = &["unshare", "-n"];
/// The script that sets up the network.
const ALIVE: &str = "{ command -v ip >/dev/null && command -v iptables >/dev/null ||
    { echo 'ip or iptables is missing: tests/tools installs them (Debian: iproute2, iptables)'; exit 1; }; } &&
    ip link set lo up";
const MOUNTS: &[&str] = &["unshare", "-m"];

/// Returns a connection string for the Unix socket, which needs no network.
fn by_socket(server: &Cluster) -> String {
    format!("host={} port={} user=postgres dbname=postgres", server.socket_dir().display(), server.port())
}

#[test]
fn m15_a_network_that_drops_packets_either_way_is_noticed_within_the_bound() {
    if tools::can_run(NETWORK) {
        subprocess::run_under(NETWORK, "recovery::network::packets_dropped", ALIVE, &[]);
    }
}

#[test]
#[ignore = "needs a network of its own; the test above starts it"]
fn packets_dropped() {
    if !subprocess::is_subprocess() {
        return;
    }
    let server = cluster();
    let port = server.port();
    let mut story = Story::begin(&format!("{}?connect_timeout=2", server.url()), &by_socket(&server));
    for ways in [&["--sport", "--dport"][..], &["--sport"], &["--dport"]] {
        for way in ways {
            run_script(&format!("iptables -A INPUT -i lo -p tcp {way} {port} -j DROP"));
        }
        story.notice();
        story.ledger.read_for(&mut story.nm, Duration::from_millis(300));
        assert_eq!(story.nm.restoring().count(), 1, "it continues to retry");
        run_script("iptables -F");
        let gaps = story.ledger.gaps();
        story.ledger.read_until(&mut story.nm, |ledger, _| ledger.gaps() > gaps);
        assert!(story.ledger.last_gap().cause().is_timeout(), "{:?}", story.ledger.last_gap());
        story.receive_more();
    }
    story.end_well();
}

#[test]
fn m15_an_unplugged_cable_is_noticed_within_the_bound_and_can_be_plugged_in_again() {
    if tools::can_run(NETWORK) {
        subprocess::run_under(NETWORK, "recovery::network::server_with_a_cable", ALIVE, &[]);
    }
}

/// A process that keeps a network namespace alive until it is dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs a network of its own; the test above starts it"]
fn server_with_a_cable() {
    if !subprocess::is_subprocess() {
        return;
    }
    let server = Cluster::start(Options::new().setting("listen_addresses", "*")).unwrap();
    let other = Command::new("unshare").args(["-n", "sleep", "60"]).stdin(Stdio::null()).spawn().unwrap();
    let pid = other.id().to_string();
    let _other = Holder(other);
    let network = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).unwrap();
    while network(&pid) == network("self") {
        std::thread::sleep(Duration::from_millis(5));
    }
    run_script(&format!(
        "ip link add here type veth peer name there netns {pid}
         ip addr add 10.77.0.1/24 dev here
         ip link set here up
         nsenter -t {pid} -n ip addr add 10.77.0.2/24 dev there
         nsenter -t {pid} -n ip link set there up"
    ));
    let url = format!("postgres://postgres@10.77.0.1:{}/postgres?connect_timeout=2", server.port());
    let ways = [("READS", url.as_str()), ("WRITES", &by_socket(&server))];
    subprocess::run_under(&["nsenter", "-t", &pid, "-n"], "recovery::network::client_with_a_cable", "true", &ways);
}

#[test]
#[ignore = "needs a server at the other end of a cable; the test above starts it"]
fn client_with_a_cable() {
    if !subprocess::is_subprocess() {
        return;
    }
    let way = |name| std::env::var(name).unwrap();
    let mut story = Story::begin(&way("READS"), &way("WRITES"));
    for _ in 0..2 {
        let gaps = story.ledger.gaps();
        run_script("ip link set there down");
        story.notice();
        story.ledger.read_for(&mut story.nm, Duration::from_millis(500));
        assert_eq!(story.nm.restoring().count(), 1, "it continues to retry");
        run_script("ip link set there up");
        story.ledger.read_until(&mut story.nm, |ledger, _| ledger.gaps() > gaps);
        story.receive_more();
    }
    story.end_well();
}

#[test]
fn m13_a_host_name_with_a_new_address_is_resolved_again() {
    if tools::can_run(MOUNTS) {
        let hosts = std::env::temp_dir().join(format!("notifyman-hosts-{}", std::process::id()));
        fs::write(&hosts, "127.0.0.1 localhost db.notifyman.test\n").unwrap();
        let hosts = hosts.to_str().unwrap();
        let shell = "mount --bind \"$HOSTS\" /etc/hosts";
        subprocess::run_under(MOUNTS, "recovery::network::name_moved", shell, &[("HOSTS", hosts)]);
        fs::remove_file(hosts).unwrap();
    }
}

#[test]
#[ignore = "needs a table of hosts of its own; the test above starts it"]
fn name_moved() {
    if !subprocess::is_subprocess() {
        return;
    }
    let server = Cluster::start(Options::new().setting("listen_addresses", "127.0.0.1,127.0.0.2")).unwrap();
    let url = format!("postgres://postgres@db.notifyman.test:{}/postgres", server.port());
    let mut story = Story::begin(&url, &by_socket(&server));
    let address = |story: &mut Story| {
        let id = story.nm.connections().next().unwrap().0;
        let rows = story.nm.get_mut(id).unwrap().query("SELECT host(inet_server_addr())").unwrap();
        rows[0].get(0).unwrap().into_owned()
    };
    assert_eq!(address(&mut story), "127.0.0.1");
    fs::write("/etc/hosts", "127.0.0.1 localhost\n127.0.0.2 db.notifyman.test\n").unwrap();
    let end = format!("SELECT pg_terminate_backend({})", pid(&story.nm));
    open(&by_socket(&server)).query(&end).unwrap();
    story.ledger.read_until(&mut story.nm, |ledger, _| ledger.gaps() == 1);
    assert_eq!(address(&mut story), "127.0.0.2");
    story.end_well();
}

/// A command that runs a process with a time of day that is read from a file. (Processes that load the library without this program
/// leave shared memory behind; the variable that the program sets would take precedence over the file.)
const CLOCK: &[&str] = &["faketime", "-f", "+0", "env", "-u", "FAKETIME"];

#[test]
fn m15_setting_the_clock_neither_ends_a_session_nor_delays_anything() {
    if cfg!(not(target_os = "linux")) {
        return not_run("a process's clock can be set on Linux only");
    }
    let file = std::env::temp_dir().join(format!("notifyman-clock-{}", std::process::id()));
    fs::write(&file, "+0\n").unwrap();
    // The server runs under another account, which cannot share the library's memory, so it uses the machine's clock.
    let server = cluster();
    let environment = [
        ("NOTIFYMAN_TEST_URL", &*server.url()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    subprocess::run_under(CLOCK, "recovery::network::clock_set", "true", &environment);
    fs::remove_file(file).unwrap();
}

#[test]
#[ignore = "needs a clock of its own; the test above starts it"]
fn clock_set() {
    if !subprocess::is_subprocess() {
        return;
    }
    let clock = std::env::var("FAKETIME_TIMESTAMP_FILE").unwrap();
    let hour = Duration::from_secs(3600);
    let url = std::env::var("NOTIFYMAN_TEST_URL").unwrap();
    let proxy = Proxy::start(url.split(['@', '/']).nth(3).unwrap().parse().unwrap());
    let mut story = Story::begin(&through(&proxy), &url);
    let (wall, monotonic) = (SystemTime::now(), Instant::now());
    fs::write(&clock, "+7200\n").unwrap();
    assert!(wall.elapsed().unwrap() > hour && monotonic.elapsed() < hour, "only the time of day has changed");
    story.ledger.read_for(&mut story.nm, 3 * IDLE);
    fs::write(&clock, "-7200\n").unwrap();
    assert!(SystemTime::now() < wall);
    story.ledger.read_for(&mut story.nm, 3 * IDLE);
    assert_eq!(story.nm.stats().losses, 0);

    // The clock is also set during a restore, which lasts until the proxy accepts connections again.
    proxy.refuse();
    proxy.cut_rst();
    story.notice();
    fs::write(&clock, "+7200\n").unwrap();
    proxy.resume();
    let ledger = story.end_well();
    let gap = ledger.last_gap();
    assert!(gap.duration() < hour && gap.since_wall() < gap.until_wall() - hour, "{gap:?}");
}
