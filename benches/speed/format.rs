//! Numbers in tables, and the description of the machine.

use std::fs;
use std::process::{Command, Stdio};

/// Returns the date and a description of the machine.
pub fn machine() -> String {
    let output_of = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, m)| m);
    let many = std::thread::available_parallelism().map_or(1, usize::from);
    let (system, day) = (output_of("uname", &["-sr"]), output_of("date", &["-u", "+%F"]));
    format!("{day}, {many} processors ({}), {system}", model.unwrap_or("unknown"))
}

/// Returns `true` if a program can be run here.
pub fn is_installed(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Formats a number with three significant digits, or with separated thousands.
pub fn number(value: f64) -> String {
    if value >= 100.0 {
        grouped(value.round() as usize)
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

pub fn grouped(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", grouped(n / 1000), n % 1000) }
}
