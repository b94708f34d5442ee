//! The program on a terminal.

use std::fs::File;
use std::io::Read as _;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{LIMIT, PROGRAM, cluster, command, connect};

/// The program on a terminal of this width, with everything that it has printed.
struct Terminal {
    child: Child,
    pieces: Receiver<String>,
    text: String,
}

impl Terminal {
    fn start(columns: u16, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let path = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let side = || File::options().read(true).write(true).open(&path).unwrap();
        let mut program = command(PROGRAM);
        program.env("TERM", "xterm").args(args).envs(environment.iter().copied());
        let child = program.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        // The sides of this process are closed with the command, so that reading ends with the program.
        drop(program);
        let (sender, pieces) = channel();
        thread::spawn(move || {
            let (mut terminal, mut piece) = (File::from(terminal), [0; 4096]);
            while let Ok(read @ 1..) = terminal.read(&mut piece) {
                let _ = sender.send(String::from_utf8_lossy(&piece[..read]).into_owned());
            }
        });
        Self { child, pieces, text: String::new() }
    }

    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let begin = Instant::now();
        while !self.text.contains(text) {
            let piece = self.pieces.recv_timeout(LIMIT.saturating_sub(begin.elapsed()));
            self.text.push_str(&piece.unwrap_or_else(|_| panic!("{text} is missing: {}", self.text)));
        }
    }

    /// Waits for the program's end; returns everything that it has printed.
    fn finish(mut self) -> String {
        while let Ok(piece) = self.pieces.recv_timeout(LIMIT) {
            self.text.push_str(&piece);
        }
        self.child.wait().unwrap();
        self.text
    }
}

#[test]
fn listen_prints_text_on_a_terminal_unless_json_is_wanted() {
    let cluster = cluster();
    let connection = format!("127.0.0.1:{}/postgres#1", cluster.port());
    for (args, environment, expected) in [
        (["-n1"].as_slice(), [].as_slice(), format!("Z\x1b[0m {connection} \x1b[36ma\x1b[0m x\\ty")),
        (&["-n1"], &[("NO_COLOR", "1")], format!("Z {connection} a x\\ty")),
        (&["-n1"], &[("TERM", "dumb")], format!("Z {connection} a x\\ty")),
        (&["-n1", "--json"], &[], "\"payload\":\"x\\ty\"".to_owned()),
    ] {
        let url = cluster.url();
        let args = [&["listen", "--url", &url, "a"], args].concat();
        let mut listener = Terminal::start(80, &args, environment);
        listener.wait_for("listens to a at");
        connect(&cluster).notify("a", "x\ty").unwrap();
        let text = listener.finish();
        assert!(text.contains(&expected), "{text:?}");
    }
}

#[test]
fn listen_notices_the_end_of_nothing_on_a_terminal() {
    let cluster = cluster();
    let text = Terminal::start(80, &["listen", "--url", &cluster.url(), "-t", "300ms", "a"], &[]).finish();
    assert!(text.contains("listens to a") && text.lines().count() == 1, "{text:?}");
}

#[test]
fn doctor_has_colors_on_a_terminal_unless_they_are_disabled() {
    let cluster = cluster();
    let text = Terminal::start(80, &["doctor", &cluster.url()], &[]).finish();
    assert!(text.contains("\x1b[32mok\x1b[0m       delivery"), "{text:?}");
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let text = Terminal::start(80, &["doctor", &cluster.url()], &[environment]).finish();
        assert!(text.contains("ok       delivery") && !text.contains('\x1b'), "{text:?}");
    }
}

#[test]
fn lines_of_the_doctor_are_as_wide_as_the_terminal_up_to_a_hundred_columns() {
    let nowhere = "postgres://app@127.0.0.1:1/nowhere";
    for (columns, widest) in [(60, 50..60), (100, 85..100), (200, 85..101)] {
        let text = Terminal::start(columns, &["doctor", nowhere], &[("NO_COLOR", "1")]).finish();
        let width = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest.contains(&width), "{columns}: {width} {text}");
    }
}

#[test]
fn with_120_columns_the_demo_shows_the_whole_reason_of_a_loss() {
    let args = ["demo", "--clusters", "2", "--connections", "6", "--duration", "3s"];
    let reason = "FATAL 57P01: terminating connection due to administrator command";
    let text = Terminal::start(120, &args, &[]).finish();
    // It is in the event, and in the redrawn part.
    assert!(text.matches(reason).count() > 1 && !text.contains('…'), "{text}");
    assert!(text.contains("nothing lost outside the reported gap (server 2, "), "{text}");
    let text = Terminal::start(60, &args, &[("NO_COLOR", "1")]).finish();
    assert!(!text.contains(reason) && text.contains("FATAL 57P01") && text.contains('…'), "{text}");
}
