//! The default files in `~/.postgresql`, tested with the program, so that it has a home directory of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::Options;
use crate::support::pki::{Authority, TlsServer};

struct Home {
    server: TlsServer,
    path: PathBuf,
}

impl Home {
    /// Creates the home directory for a server that requests a certificate.
    fn new(ca: &Authority, server: &crate::support::pki::Identity) -> Self {
        let options = Options::new().hba("hostssl all all all cert").hba("hostnossl all all all reject");
        let server = TlsServer::start(server, ca, options);
        let path = server.cluster.socket_dir().join("home");
        fs::create_dir_all(path.join(".postgresql")).unwrap();
        Self { server, path }
    }

    fn file(&self, name: &str, content: &str) {
        self.server.file(&format!("home/.postgresql/{name}"), content);
    }

    /// Sends a notification. Returns the error output if that fails.
    fn notify(&self, sslmode: &str) -> Result<(), String> {
        let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_notifyman"))
            .env("HOME", &self.path)
            .args(["notify", "channel", "payload", "--url", &self.server.dsn(&format!("sslmode={sslmode}"))])
            .output()
            .unwrap();
        if status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&stderr).into_owned()) }
    }
}

#[test]
fn the_files_in_the_home_directory_are_used_by_default() {
    let ca = Authority::new("home");
    let shown = ca.server(&["127.0.0.1"]);
    let home = Home::new(&ca, &shown);
    let client = ca.client("postgres");

    let error = home.notify("require").unwrap_err();
    assert!(error.contains("client certificate"), "without files: {error}");
    let error = home.notify("verify-full").unwrap_err();
    assert!(error.contains(".postgresql/root.crt"), "{error}");

    home.file("postgresql.crt", &client.certificate);
    let error = home.notify("require").unwrap_err();
    assert!(error.contains("postgresql.key"), "a certificate without its key: {error}");
    home.file("postgresql.key", &client.key);
    home.notify("require").unwrap();

    home.file("root.crt", &Authority::new("stranger").pem());
    let error = home.notify("require").unwrap_err();
    assert!(error.contains("not signed by a trusted"), "a root file makes require check: {error}");
    home.file("root.crt", &ca.pem());
    for mode in ["require", "verify-ca", "verify-full"] {
        home.notify(mode).unwrap();
    }

    home.file("root.crl", &ca.crl(&[&shown], 4000));
    let error = home.notify("require").unwrap_err();
    assert!(error.contains("has been revoked"), "{error}");
}
