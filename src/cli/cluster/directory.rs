//! The directory of a throwaway server, and the guard process that removes it.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use super::error::ClusterError;

/// Waits until its standard input is closed. Then it lets the command that works on the directory `$1` end, stops the
/// server, and removes the directory.
///
/// If `initdb` were killed, its shared memory would stay, and its name would be lost; `initdb` needs less than a second.
/// A server that was killed leaves a System V memory segment; line 7 of its `postmaster.pid` contains its id.
const GUARD: &str = r#"
    while read -r _; do :; done
    busy=
    if read -r busy 2>/dev/null <"$1/busy"; then
        tries=0
        while [ "$tries" -lt 100 ] && kill -s 0 -- "-$busy" 2>/dev/null; do sleep 0.1; tries=$((tries + 1)); done
        kill -s KILL -- "-$busy" 2>/dev/null
    fi
    if read -r pid 2>/dev/null <"$1/server" && kill -s QUIT "$pid" 2>/dev/null; then
        kill -s CONT "$pid" 2>/dev/null
        tries=0
        while [ "$tries" -lt 40 ] && kill -s 0 "$pid" 2>/dev/null; do sleep 0.2; tries=$((tries + 1)); done
        kill -s KILL "$pid" 2>/dev/null
    fi
    memory=$(sed -n '7s/.* //p' "$1/data/postmaster.pid" 2>/dev/null) && ipcrm -m "$memory" 2>/dev/null
    rm -rf "$1"
    tries=0
    while [ -n "$busy" ] && [ "$tries" -lt 10 ]; do sleep 0.1; rm -rf "$1"; tries=$((tries + 1)); done
"#;

/// A directory that belongs to the account of one server, with the guard that removes it.
#[derive(Debug)]
pub struct ServerDirectory {
    pub path: PathBuf,
    /// The account that runs the server's programs, if this process is run by root, which servers refuse.
    pub account: Option<(u32, u32)>,
    guard: Option<Child>,
}

impl ServerDirectory {
    pub fn new() -> Result<Self, ClusterError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("notifyman-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = parent_directory().join(name);
        let created = fs::DirBuilder::new().mode(0o700).create(&path).and_then(|()| fs::metadata(&path));
        let created = created.map_err(ClusterError::context("could not create a directory for a throwaway server"))?;
        let mut directory = Self { path, account: None, guard: None };
        if created.uid() == 0 {
            let no_account = "root cannot run a server, and there is no account nobody to run it";
            let (uid, gid) = nobody().ok_or_else(|| ClusterError(no_account.into()))?;
            directory.account = Some((uid, gid));
            chown(&directory.path, Some(uid), Some(gid))
                .map_err(ClusterError::context("could not give a directory to nobody"))?;
        }
        let mut guard = directory.command("sh");
        guard.args(["-c", GUARD, "sh"]).arg(&directory.path);
        let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let guard = guard.map_err(ClusterError::context("could not start the guard of a throwaway server"))?;
        directory.guard = Some(guard);
        Ok(directory)
    }

    /// Returns a command that runs as the server's account, without the `PG*` variables, and that a Ctrl-C in this
    /// terminal does not reach.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.path).process_group(0).env("LC_ALL", "C").env("TZ", "UTC");
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Runs a command with this input until it ends; an exit status other than 0 is an error.
    pub fn run(&self, command: &mut Command, input: &str) -> Result<(), ClusterError> {
        let name = command.get_program().display().to_string();
        // The command may outlive this process, so its output must not be a pipe that breaks.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let output = child.and_then(|mut child| {
            // For the guard, in case this process is killed now.
            fs::write(self.path.join("busy"), format!("{}\n", child.id()))?;
            child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()))?;
            child.wait_with_output()
        });
        let _ = fs::remove_file(self.path.join("busy"));
        let output = output.map_err(ClusterError::context(&format!("could not run {name}")))?;
        let (text, status) = (String::from_utf8_lossy(&output.stderr), output.status);
        let failed = || ClusterError(format!("{name} failed ({status}): {}", text.trim()));
        status.success().then_some(()).ok_or_else(failed)
    }
}

impl Drop for ServerDirectory {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            // `wait` closes the guard's input first, which starts its work.
            let _ = guard.wait();
        }
        // The guard may not be able to remove files of other accounts.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Returns `/dev/shm` if a gigabyte is free there, unless the directory for temporary files is in it; else that
/// directory.
fn parent_directory() -> PathBuf {
    let free = Command::new("df").args(["-Pk", "/dev/shm"]).output().map(|output| output.stdout).unwrap_or_default();
    let free = String::from_utf8_lossy(&free);
    let kilobytes = free.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    let is_open_to_all =
        |directory: &Path| directory.ancestors().all(|it| fs::metadata(it).is_ok_and(|it| it.mode() & 1 != 0));
    let is_writable = fs::metadata("/dev/shm").is_ok_and(|it| it.mode() & 0o003 == 0o003);
    let temporary = env::temp_dir();
    if is_writable && kilobytes.is_some_and(|free| free > 1 << 20) && !temporary.starts_with("/dev/shm") {
        return "/dev/shm".into();
    }
    // If this process is run by root, the server is run by nobody. The path of a socket has at most 107 bytes, on macOS
    // 103.
    Some(temporary).filter(|it| is_open_to_all(it) && it.as_os_str().len() < 60).unwrap_or_else(|| "/tmp".into())
}

/// Returns the user id and the group id of the account `nobody`, which are negative on macOS.
fn nobody() -> Option<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = accounts.lines().find(|line| line.starts_with("nobody:"))?.split(':').skip(2);
    let mut id = || Some(fields.next()?.parse::<i64>().ok()? as u32);
    Some((id()?, id()?))
}
