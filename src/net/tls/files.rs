//! The files that the settings name, and the default files in `~/.postgresql`, found and read as libpq does.
//!
//! The files are read for each connection attempt, so that renewed files are used. The configuration made from them is
//! shared while they are unchanged.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest as _, Sha256};

use super::pem::{self, RatedCertificate};
use crate::config::{SslCertMode, SslMode, TlsSettings};
use crate::error::{TlsError, TlsErrorKind};

/// A file and its contents.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) content: Vec<u8>,
}

impl File {
    /// Returns the certificates in the file; at least one.
    pub(super) fn certificates(&self, what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        Ok(self.rated_certificates(what)?.into_iter().map(|rated| rated.certificate).collect())
    }

    /// Returns the certificates in the file that may be a trust anchor for servers; at least one.
    pub(super) fn roots(&self, what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let rated = self.rated_certificates(what)?.into_iter().filter(|rated| rated.for_servers);
        let roots: Vec<_> = rated.map(|rated| rated.certificate).collect();
        if roots.is_empty() {
            return Err(self.unusable(what, &"no certificate in it is trusted for servers"));
        }
        Ok(roots)
    }

    fn rated_certificates(&self, what: &str) -> Result<Vec<RatedCertificate>, TlsError> {
        match pem::certificates(&self.content) {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(self.unusable(what, &"it contains no certificate in PEM format")),
            Err(e) => Err(self.unusable(what, &e)),
        }
    }

    /// Returns the certificate revocation lists in the file.
    pub(super) fn lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        pem::lists(&self.content).map_err(|e| self.unusable("the list of revoked certificates", &e))
    }

    /// Returns the error for a file that is invalid.
    pub(super) fn unusable(&self, what: &str, why: &dyn fmt::Display) -> TlsError {
        fault(format!("{what} {:?} is invalid: {why}", self.path))
    }
}

/// The trusted certificate authorities.
pub(super) enum Roots {
    /// Certificates are not verified.
    Unverified,
    /// The authorities that the operating system trusts.
    System,
    File(File),
}

/// All files that were read.
pub(super) struct Files {
    pub(super) roots: Roots,
    /// The client certificate and its key.
    pub(super) identity: Option<(File, File)>,
    /// The certificate revocation lists.
    pub(super) crls: Vec<File>,
}

impl Files {
    /// # Errors
    /// Returns an error if a file is missing or cannot be read, or if other users can read the key.
    pub(super) fn read(mode: SslMode, settings: &TlsSettings) -> Result<Self, TlsError> {
        let roots = roots(settings, mode)?;
        // Without roots, nothing is verified, so nothing can be revoked.
        let crls = if matches!(roots, Roots::Unverified) { Vec::new() } else { crls(settings)? };
        Ok(Self { roots, identity: identity(settings)?, crls })
    }

    /// Returns a hash that changes if any file changes.
    pub(super) fn fingerprint(&self) -> Sha256 {
        let mut hash = Sha256::new();
        let mut add = |kind: u8, content: &[u8]| {
            hash.update([kind]);
            hash.update(content.len().to_be_bytes());
            hash.update(content);
        };
        match &self.roots {
            Roots::Unverified => add(0, b""),
            Roots::System => add(1, b""),
            Roots::File(file) => add(2, &file.content),
        }
        if let Some((certificate, key)) = &self.identity {
            add(3, &certificate.content);
            add(4, &key.content);
        }
        self.crls.iter().for_each(|list| add(5, &list.content));
        hash
    }
}

fn roots(settings: &TlsSettings, mode: SslMode) -> Result<Roots, TlsError> {
    if settings.trusts_system() {
        return Ok(Roots::System);
    }
    match settings.root_cert.clone().or_else(|| in_home("root.crt")) {
        Some(path) if path.metadata().is_ok() => Ok(Roots::File(read(path, "the root file")?)),
        missing if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) => Err(fault(format!(
            "there is no root file{}, so the server's certificate cannot be verified: set sslrootcert to a file, use \
             sslrootcert=system for the authorities that the operating system trusts, or use sslmode=require",
            missing.map_or_else(String::new, |path| format!(" {path:?}"))
        ))),
        _ => Ok(Roots::Unverified),
    }
}

fn identity(settings: &TlsSettings) -> Result<Option<(File, File)>, TlsError> {
    if settings.cert_mode == SslCertMode::Disable {
        return Ok(None);
    }
    let path = settings.cert.clone().or_else(|| in_home("postgresql.crt"));
    let there = path.map(|path| (path.metadata(), path));
    let certificate = match there {
        Some((Ok(_), path)) => read(path, "the client certificate")?,
        // As in libpq, a missing certificate is no error; the server reports one if it requires a certificate.
        Some((Err(e), path)) if !is_absent(&e) && settings.cert.is_some() => {
            return Err(fault(format!("could not read the client certificate {path:?} ({e})")));
        }
        _ if settings.cert_mode == SslCertMode::Require => {
            return Err(fault("sslcertmode=require, but there is no client certificate: set sslcert"));
        }
        _ => return Ok(None),
    };
    let key = settings.key.clone().or_else(|| in_home("postgresql.key"));
    let Some(key) = key else { return Err(fault("the client certificate has no key: set sslkey")) };
    check_key_file(&key)?;
    Ok(Some((certificate, read(key, "the key of the client certificate")?)))
}

/// Reads the revocation lists. A file that is named must contain one, because otherwise revoked certificates would be
/// accepted.
fn crls(settings: &TlsSettings) -> Result<Vec<File>, TlsError> {
    const WHAT: &str = "the certificate revocation list";
    const NONE: &str = "it contains no list in PEM format (BEGIN X509 CRL)";
    let file = match (&settings.crl, &settings.crl_dir) {
        (None, None) => in_home("root.crl"),
        (file, _) => file.clone(),
    };
    let mut found = Vec::new();
    for path in file.into_iter().filter(|path| path.metadata().is_ok()) {
        let file = read(path, WHAT)?;
        if !holds_a_list(&file) {
            return Err(file.unusable(WHAT, &NONE));
        }
        found.push(file);
    }
    if let Some(directory) = &settings.crl_dir {
        let unusable = |why: &dyn fmt::Display| fault(format!("sslcrldir {directory:?} is invalid: {why}"));
        let entries = fs::read_dir(directory).map_err(|e| unusable(&e))?;
        let paths: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut paths = paths.map_err(|e| unusable(&e))?;
        paths.sort();
        let files: Result<Vec<_>, _> =
            paths.into_iter().filter(|path| path.is_file()).map(|path| read(path, WHAT)).collect();
        // The directory may contain other files.
        let lists: Vec<_> = files?.into_iter().filter(holds_a_list).collect();
        if lists.is_empty() {
            return Err(unusable(&NONE));
        }
        found.extend(lists);
    }
    Ok(found)
}

/// Returns `true` also for a damaged list, whose error is reported when it is used.
fn holds_a_list(file: &File) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN X509 CRL-----";
    file.content.windows(BEGIN.len()).any(|window| window == BEGIN)
}

/// Checks libpq's rule: no other user may read the key, except that a group may read a key of root.
fn check_key_file(path: &Path) -> Result<(), TlsError> {
    let there = match path.metadata() {
        Ok(there) => there,
        Err(e) if is_absent(&e) => {
            return Err(fault(format!(
                "there is a client certificate, but not its key {path:?}: set sslkey, or set sslcertmode=disable"
            )));
        }
        Err(e) => return Err(fault(format!("could not read the key of the client certificate {path:?} ({e})"))),
    };
    if !there.is_file() {
        return Err(fault(format!("the key of the client certificate {path:?} is not a regular file")));
    }
    let too_many = if there.uid() == 0 { 0o037 } else { 0o077 };
    if there.mode() & too_many != 0 {
        return Err(fault(format!(
            "other users can access the key of the client certificate {path:?} (its mode is {:04o}): run chmod 0600, or \
             0640 if its owner is root",
            there.mode() & 0o7777
        )));
    }
    Ok(())
}

pub(super) fn read(path: PathBuf, what: &str) -> Result<File, TlsError> {
    // Opening a pipe would block all callers until a process writes to it.
    let content = path.metadata().and_then(|there| match there.is_file() {
        true => fs::read(&path),
        false => Err(io::Error::other("it is not a regular file")),
    });
    match content {
        Ok(content) => Ok(File { path, content }),
        Err(e) => Err(fault(format!("could not read {what} {path:?} ({e})"))),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn in_home(name: &str) -> Option<PathBuf> {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty())?;
    Some(home.join(".postgresql").join(name))
}

pub(super) fn fault(message: impl Into<Box<str>>) -> TlsError {
    TlsError::new(TlsErrorKind::File, message)
}
