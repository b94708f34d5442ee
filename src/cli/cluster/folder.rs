//! A folder for a throwaway server, and what sees to it that it goes.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use super::ClusterError;

/// Waits until nobody can write to its input any more; then lets what works on the folder `$1` come to its end, stops
/// its server, and removes both.
///
/// An `initdb` that is killed would leave shared memory behind, whose name nobody knows; it needs less than a second.
/// A server that was killed leaves a piece of System V memory; line 7 of its `postmaster.pid` has the name.
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

/// A folder for one server, of the account that it runs as, together with the guard that removes it.
#[derive(Debug)]
pub struct Folder {
    pub path: PathBuf,
    /// The account to run programs as, where it isn't ours: servers refuse root.
    account: Option<(u32, u32)>,
    guard: Option<Child>,
}

impl Folder {
    pub fn new() -> Result<Self, ClusterError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let base = base_folder();
        let path = base.join(format!("notifyman-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let made = fs::DirBuilder::new().mode(0o700).create(&path).and_then(|()| fs::metadata(&path));
        let made = made.map_err(ClusterError::because("making a folder for a throwaway server"))?;
        let mut folder = Self { path, account: None, guard: None };
        if made.uid() == 0 {
            let (uid, gid) =
                nobody().ok_or_else(|| ClusterError("servers refuse root, and nobody isn't known".into()))?;
            folder.account = Some((uid, gid));
            chown(&folder.path, Some(uid), Some(gid)).map_err(ClusterError::because("giving a folder to nobody"))?;
        }
        let mut guard = folder.command("sh");
        guard.args(["-c", GUARD, "sh"]).arg(&folder.path);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        folder.guard = Some(guard.spawn().map_err(ClusterError::because("starting the guard of a throwaway server"))?);
        Ok(folder)
    }

    /// A command as the server's account, untouched by this environment, and by Ctrl-C in this terminal.
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

    /// Runs a command with this input to its successful end.
    pub fn run(&self, command: &mut Command, input: &str) -> Result<(), ClusterError> {
        let name = command.get_program().display().to_string();
        // It may outlive this process, and must not die of having nobody to talk to.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let said = child.and_then(|mut child| {
            // For the guard, should this process be killed meanwhile.
            fs::write(self.path.join("busy"), format!("{}\n", child.id()))?;
            child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()))?;
            child.wait_with_output()
        });
        let _ = fs::remove_file(self.path.join("busy"));
        let said = said.map_err(ClusterError::because(&format!("running {name}")))?;
        let text = String::from_utf8_lossy(&said.stderr);
        let end = said.status;
        end.success().then_some(()).ok_or_else(|| ClusterError(format!("{name} failed ({end}): {}", text.trim())))
    }

    /// Writes a file that belongs to the server's account alone.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), ClusterError> {
        let path = self.path.join(name);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(content));
        let (uid, gid) = self.account.unzip();
        written.and_then(|()| chown(&path, uid, gid)).map_err(ClusterError::because(&path.display().to_string()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.wait(); // which closes its input first, and that is its sign
        }
        // What others than the server have put there, the guard may not remove.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Returns `/dev/shm` if a gigabyte is free there, unless the directory for temporary files is in it; else that
/// directory.
fn base_folder() -> PathBuf {
    let free = Command::new("df").args(["-Pk", "/dev/shm"]).output().map(|said| said.stdout).unwrap_or_default();
    let free = String::from_utf8_lossy(&free);
    let kilobytes = free.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    let open_to_all = |folder: &Path| folder.ancestors().all(|it| fs::metadata(it).is_ok_and(|it| it.mode() & 1 != 0));
    let writable = fs::metadata("/dev/shm").is_ok_and(|it| it.mode() & 0o003 == 0o003);
    let given = env::temp_dir();
    if writable && kilobytes.is_some_and(|free| free > 1 << 20) && !given.starts_with("/dev/shm") {
        return "/dev/shm".into();
    }
    // As root the server runs as nobody, and a socket's path has 107 bytes at most, on macOS 103.
    Some(given).filter(|it| open_to_all(it) && it.as_os_str().len() < 60).unwrap_or_else(|| "/tmp".into())
}

/// The user and the group of the account `nobody`, which have negative numbers on macOS.
fn nobody() -> Option<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = accounts.lines().find(|line| line.starts_with("nobody:"))?.split(':').skip(2);
    let mut id = || Some(fields.next()?.parse::<i64>().ok()? as u32);
    Some((id()?, id()?))
}
