//! libpq, for comparisons: a small C program loads it, and receives requests through a pipe.
//!
//! The library is that of the server that the tests run (`NOTIFYMAN_PG_BIN`), or else the system's. If there is none, or no
//! C compiler, the tests that compare fail, with a message that says how to get it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

const SOURCE: &str = include_str!("libpq.c");
const HOW_TO_GET: &str = "these tests compare with libpq: run them with tests/with-postgres, whose servers contain it, or \
                          install it (tests/tools; Debian: libpq5; macOS: brew install libpq) and a C compiler (cc)";

/// The settings that libpq reads from a connection string, or its error.
pub type Parsed = Result<BTreeMap<String, Vec<u8>>, String>;

/// The running helper program, which ends when this value is dropped.
pub struct Libpq {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Libpq {
    /// Starts a helper that parses connection strings, without the environment.
    pub fn parser() -> Self {
        Self::start("parse", &[])
    }

    /// Starts a helper that connects, with only these environment variables.
    pub fn connecting(environment: &[(&str, &str)]) -> Self {
        Self::start("connect", environment)
    }

    fn start(mode: &str, environment: &[(&str, &str)]) -> Self {
        let mut helper = command(mode, environment);
        let mut child = helper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (requests, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, requests, answers: BufReader::new(answers) }
    }

    /// Parses a connection string, which must not contain NUL.
    pub fn parse(&mut self, text: &str) -> Parsed {
        let words = self.ask(text)?;
        let pairs = words.iter().map(|word| word.split_once(':').unwrap());
        Ok(pairs.map(|(keyword, value)| (keyword.to_owned(), from_hex(value))).collect())
    }

    /// Connects and closes the connection.
    pub fn connect(&mut self, text: &str) -> Result<(), String> {
        self.ask(text).map(drop)
    }

    fn ask(&mut self, text: &str) -> Result<Vec<String>, String> {
        assert!(!text.contains('\0'), "a C string cannot contain NUL");
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        writeln!(self.requests, "{hex}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let mut words = answer.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("ok") => Ok(words.collect()),
            Some("error") => Err(String::from_utf8_lossy(&from_hex(&words.next().unwrap_or_default())).into_owned()),
            _ => panic!("the libpq helper ended at {text:?}"),
        }
    }
}

impl Drop for Libpq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns libpq's version, such as 150018, and its keywords, with their environment variables if they have any.
pub fn keywords() -> (u32, BTreeMap<String, Option<String>>) {
    let output = command("keywords", &[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut pairs = text.lines().map(|line| line.split_once(' ').unwrap());
    let (_, version) = pairs.next().unwrap();
    let known = pairs.map(|(keyword, variable)| {
        (keyword.to_owned(), Some(variable).filter(|variable| *variable != "-").map(str::to_owned))
    });
    (version.parse().unwrap(), known.collect())
}

fn command(mode: &str, environment: &[(&str, &str)]) -> Command {
    let (helper, library) = found();
    let mut command = Command::new(helper);
    command.arg(library).arg(mode).env_clear().envs(environment.iter().copied());
    command
}

/// Returns the paths of the helper and of the library that it loads.
fn found() -> &'static (PathBuf, PathBuf) {
    static FOUND: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    FOUND.get_or_init(|| {
        let helper = compiled();
        let works = |library: &PathBuf| {
            let mut command = Command::new(&helper);
            command.arg(library).arg("keywords").env_clear().output().is_ok_and(|output| output.status.success())
        };
        let library = candidates().into_iter().find(works);
        let library = library.unwrap_or_else(|| panic!("no libpq was found; {HOW_TO_GET}"));
        (helper, library)
    })
}

/// Returns the paths where libpq may be: next to the server, and the names that the system's linker searches.
fn candidates() -> Vec<PathBuf> {
    let names = if cfg!(target_os = "macos") { ["libpq.5.dylib", "libpq.dylib"] } else { ["libpq.so.5", "libpq.so"] };
    let of_server = super::cluster::find_server().ok().and_then(|bin| Some(bin.parent()?.join("lib")));
    let directories =
        of_server.into_iter().chain(["/opt/homebrew/opt/libpq/lib", "/usr/local/opt/libpq/lib"].map(PathBuf::from));
    let mut candidates: Vec<PathBuf> =
        directories.flat_map(|directory| names.map(|name| directory.join(name))).collect();
    candidates.retain(|path| path.exists());
    candidates.extend(names.map(PathBuf::from));
    candidates
}

/// Compiles the helper into the directory of the tests, unless it exists.
fn compiled() -> PathBuf {
    let directory = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let helper = directory.join(format!("libpq-helper-{:016x}", digest(SOURCE)));
    if helper.exists() {
        return helper;
    }
    let mine = |suffix: &str| directory.join(format!("libpq-helper-{}.{suffix}", std::process::id()));
    let (source, fresh) = (mine("c"), mine("new"));
    fs::write(&source, SOURCE).unwrap();
    let compile = |linked: &[&str]| Command::new("cc").arg("-o").args([&fresh, &source]).args(linked).output();
    let output = compile(&["-ldl"]).unwrap_or_else(|error| panic!("cc: {error}; {HOW_TO_GET}"));
    assert!(output.status.success(), "cc: {}; {HOW_TO_GET}", String::from_utf8_lossy(&output.stderr));
    // Another process may have created the same file.
    fs::rename(&fresh, &helper).unwrap();
    let _ = fs::remove_file(Path::new(&source));
    helper
}

/// Returns a hash of a text (FNV-1a).
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
