//! The files that the settings name, and those in `~/.postgresql` that they don't: found and read as libpq does.
//!
//! Read at each dial, so that what was renewed is used; what is made of them is shared while nothing has changed.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest as _, Sha256};

use super::pem::{self, Rated};
use crate::config::{Config, SslCertMode, SslMode, TlsSettings};
use crate::error::{TlsError, TlsErrorKind};

/// A file, and what is in it.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) content: Vec<u8>,
}

impl File {
    /// Every certificate in it; at least one.
    pub(super) fn certificates(&self, what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        Ok(self.rated_certificates(what)?.into_iter().map(|rated| rated.certificate).collect())
    }

    /// Returns every certificate in the file that may be a trust anchor for servers; at least one.
    pub(super) fn roots(&self, what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let rated = self.rated_certificates(what)?.into_iter().filter(|rated| rated.for_servers);
        let roots: Vec<_> = rated.map(|rated| rated.certificate).collect();
        if roots.is_empty() {
            return Err(self.unusable(what, &"no certificate in it is trusted for servers"));
        }
        Ok(roots)
    }

    fn rated_certificates(&self, what: &str) -> Result<Vec<Rated>, TlsError> {
        match pem::certificates(&self.content) {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(self.unusable(what, &"it holds no certificate in PEM form")),
            Err(e) => Err(self.unusable(what, &e)),
        }
    }

    /// Returns every list of revoked certificates in the file.
    pub(super) fn lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        pem::lists(&self.content).map_err(|e| self.unusable("the list of revoked certificates", &e))
    }

    /// What is wrong with it.
    pub(super) fn unusable(&self, what: &str, why: &dyn fmt::Display) -> TlsError {
        fault(format!("{what} {:?} can't be used: {why}", self.path))
    }
}

/// Whom to believe.
pub(super) enum Roots {
    /// Anybody.
    Nobody,
    /// Whom the operating system trusts.
    System,
    File(File),
}

/// Everything that was read.
pub(super) struct Files {
    pub(super) roots: Roots,
    /// Our certificate and its key.
    pub(super) identity: Option<(File, File)>,
    /// Lists of revoked certificates.
    pub(super) crls: Vec<File>,
}

impl Files {
    /// # Errors
    /// What is missing, can't be read, or may be read by too many.
    pub(super) fn read(config: &Config) -> Result<Self, TlsError> {
        let settings = config.tls();
        let roots = roots(settings, config.get_sslmode())?;
        // Without roots nothing is checked, and so nothing can be revoked.
        let crls = if matches!(roots, Roots::Nobody) { Vec::new() } else { crls(settings)? };
        Ok(Self { roots, identity: identity(settings)?, crls })
    }

    /// Tells whether anything has changed.
    pub(super) fn fingerprint(&self) -> Sha256 {
        let mut hash = Sha256::new();
        let mut add = |kind: u8, content: &[u8]| {
            hash.update([kind]);
            hash.update(content.len().to_be_bytes());
            hash.update(content);
        };
        match &self.roots {
            Roots::Nobody => add(0, b""),
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
            "there is no root file{}, so the server's certificate can't be checked: name one with sslrootcert, use \
             sslrootcert=system for the authorities that the operating system trusts, or an sslmode that doesn't check",
            missing.map_or_else(String::new, |path| format!(" {path:?}"))
        ))),
        _ => Ok(Roots::Nobody),
    }
}

fn identity(settings: &TlsSettings) -> Result<Option<(File, File)>, TlsError> {
    if settings.cert_mode == SslCertMode::Disable {
        return Ok(None);
    }
    let path = settings.cert.clone().or_else(|| in_home("postgresql.crt"));
    let there = path.map(|path| (path.metadata(), path));
    let certificate = match there {
        Some((Ok(_), path)) => read(path, "our certificate")?,
        // As for libpq, a certificate that isn't there is none; the server tells if it wants one.
        Some((Err(e), path)) if !is_absent(&e) && settings.cert.is_some() => {
            return Err(fault(format!("our certificate {path:?} can't be read ({e})")));
        }
        _ if settings.cert_mode == SslCertMode::Require => {
            return Err(fault("sslcertmode=require, but there is no certificate of ours: name one with sslcert"));
        }
        _ => return Ok(None),
    };
    let key = settings.key.clone().or_else(|| in_home("postgresql.key"));
    let Some(key) = key else { return Err(fault("our certificate has no key: name its file with sslkey")) };
    check_key_file(&key)?;
    Ok(Some((certificate, read(key, "the key of our certificate")?)))
}

/// A list that is named must be one, or what it revokes would be let in without a word.
fn crls(settings: &TlsSettings) -> Result<Vec<File>, TlsError> {
    const WHAT: &str = "the list of revoked certificates";
    const NONE: &str = "it holds no such list in PEM form (BEGIN X509 CRL)";
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
    if let Some(folder) = &settings.crl_dir {
        let unusable = |why: &dyn fmt::Display| fault(format!("sslcrldir {folder:?} can't be used: {why}"));
        let entries = fs::read_dir(folder).map_err(|e| unusable(&e))?;
        let paths: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut paths = paths.map_err(|e| unusable(&e))?;
        paths.sort();
        let files: Result<Vec<_>, _> =
            paths.into_iter().filter(|path| path.is_file()).map(|path| read(path, WHAT)).collect();
        // There may be others beside them.
        let lists: Vec<_> = files?.into_iter().filter(holds_a_list).collect();
        if lists.is_empty() {
            return Err(unusable(&NONE));
        }
        found.extend(lists);
    }
    Ok(found)
}

/// Returns `true` also for a damaged list, whose fault is reported when it is used.
fn holds_a_list(file: &File) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN X509 CRL-----";
    file.content.windows(BEGIN.len()).any(|window| window == BEGIN)
}

/// libpq's rule: nobody else may read it, except that root's own may be read by a group.
fn check_key_file(path: &Path) -> Result<(), TlsError> {
    let there = match path.metadata() {
        Ok(there) => there,
        Err(e) if is_absent(&e) => {
            return Err(fault(format!(
                "there is a certificate of ours, but no key {path:?} for it: name its file with sslkey, or set \
                 sslcertmode=disable"
            )));
        }
        Err(e) => return Err(fault(format!("the key of our certificate {path:?} can't be read ({e})"))),
    };
    if !there.is_file() {
        return Err(fault(format!("the key of our certificate {path:?} isn't a regular file")));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let too_many = if there.uid() == 0 { 0o037 } else { 0o077 };
        if there.mode() & too_many != 0 {
            return Err(fault(format!(
                "others can read or write the key of our certificate {path:?} (its mode is {:04o}): chmod 0600 it; \
                 0640 is allowed where it belongs to root",
                there.mode() & 0o7777
            )));
        }
    }
    Ok(())
}

fn read(path: PathBuf, what: &str) -> Result<File, TlsError> {
    // A pipe would make everybody wait until somebody writes.
    let content = path.metadata().and_then(|there| match there.is_file() {
        true => fs::read(&path),
        false => Err(io::Error::other("it is not a regular file")),
    });
    match content {
        Ok(content) => Ok(File { path, content }),
        Err(e) => Err(fault(format!("{what} {path:?} can't be read ({e})"))),
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
