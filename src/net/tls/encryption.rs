//! The encryption of streams to a server: turns settings and files into a configuration of rustls.
//!
//! Equal settings with equal files share one configuration as long as it is used, so that a thousand connections store
//! the roots once.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use rustls::client::{Resumption, UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use sha2::Digest as _;

use super::fault;
use super::files::{self, File, Files, Roots};
use super::identity::{Identity, RequestRecorder};
use super::verify::{Trust, Verifier};
use crate::config::{Config, SslCertMode, SslMode, SslNegotiation, TlsSettings, TlsVersion};
use crate::error::{TlsError, TlsErrorKind};
use crate::net::offload::{OffloadJob, OffloadQueue, ThreadLimit};
use crate::net::reactor::PollWaker;

/// The protocol name of PostgreSQL for direct TLS.
const ALPN: &[u8] = b"postgresql";

/// The provider that is always used, regardless of the process's default.
pub(super) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

type Fingerprint = [u8; 32];

/// The configurations in use, and the fingerprints of their settings and files.
static IN_USE: Mutex<Vec<(Fingerprint, Weak<ClientConfig>)>> = Mutex::new(Vec::new());

/// The encryption of streams to a server.
#[derive(Clone)]
pub(crate) struct Encryption {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    direct: bool,
    /// Records whether the server has requested the client certificate, if it must.
    requested: Option<Arc<RequestRecorder>>,
}

impl Encryption {
    /// Creates the encryption for a host with this name and this address. `client` is from the files, unless the settings
    /// contain a configuration of the caller.
    ///
    /// # Errors
    /// Returns [`WrongName`](TlsErrorKind::WrongName) if no certificate can be valid for the name.
    fn new(
        config: &Config,
        host: Option<&str>,
        ip: Option<IpAddr>,
        mut client: Arc<ClientConfig>,
    ) -> Result<Self, TlsError> {
        let settings = config.tls();
        let direct = settings.negotiation == SslNegotiation::Direct;
        let name = server_name(host, ip, config.get_sslmode() == SslMode::VerifyFull)?;
        if direct && !client.alpn_protocols.iter().any(|protocol| protocol == ALPN) {
            Arc::make_mut(&mut client).alpn_protocols.push(ALPN.to_vec());
        }
        let mut requested = None;
        if settings.own.is_none() && settings.cert_mode == SslCertMode::Require {
            let client = Arc::make_mut(&mut client);
            let recorder = RequestRecorder::instead_of(Arc::clone(&client.client_auth_cert_resolver));
            client.client_auth_cert_resolver = Arc::clone(&recorder) as _;
            requested = Some(recorder);
        }
        Ok(Self { config: client, name, direct, requested })
    }

    /// Returns `true` if TLS begins immediately, without an SSLRequest.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    /// Creates a session that has not begun.
    pub(super) fn session(&self) -> Result<UnbufferedClientConnection, TlsError> {
        UnbufferedClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(|e| fault::of(e, true))
    }

    /// Checks a session after its handshake.
    pub(super) fn check(&self, session: &UnbufferedClientConnection) -> Result<(), TlsError> {
        if self.direct && session.alpn_protocol() != Some(ALPN) {
            let message = "the peer supports TLS, but not the protocol postgresql (ALPN): check host and port, or use \
                           sslnegotiation=postgres";
            return Err(TlsError::new(TlsErrorKind::NotOffered, message));
        }
        if self.requested.as_ref().is_some_and(|requested| !requested.was()) {
            let message = "sslcertmode=require, but the server does not request a certificate: set its ssl_ca_file";
            return Err(TlsError::new(TlsErrorKind::RefusedByServer, message));
        }
        Ok(())
    }
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").field("name", &self.name).field("direct", &self.direct).finish()
    }
}

/// Returns the name for which the certificate must be valid, and which is sent to the server unless it is an address.
fn server_name(host: Option<&str>, ip: Option<IpAddr>, must_match: bool) -> Result<ServerName<'static>, TlsError> {
    let named = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    match (named, host, ip) {
        (Some(name), ..) => Ok(name),
        (None, Some(host), _) if must_match => {
            let message = format!("no certificate can be valid for {host:?}: use the host's DNS name");
            Err(TlsError::new(TlsErrorKind::WrongName, message))
        }
        (None, _, Some(ip)) => Ok(ServerName::from(ip)),
        (None, _, None) => Err(TlsError::new(TlsErrorKind::WrongName, "there is no name to verify: set host")),
    }
}

static FILES: OffloadQueue<(SslMode, TlsSettings), Result<Arc<ClientConfig>, TlsError>> = OffloadQueue::new(
    "notifyman-file",
    ThreadLimit::any(),
    |(mode, settings)| shared(*mode, settings),
    |error| Err(files::fault(format!("could not start a thread to read the files for TLS: {error}"))),
);

/// An [`Encryption`], or the settings for one whose files are being read, which may block for as long as their file system
/// does.
#[derive(Debug)]
pub(crate) enum EncryptionJob {
    /// The encryption of another stream to the same server.
    Ready(Encryption),
    Settings {
        config: Config,
        host: Option<String>,
        ip: Option<IpAddr>,
        /// `None` if the caller of this crate has given a configuration of rustls.
        files: Option<OffloadJob<Result<Arc<ClientConfig>, TlsError>>>,
    },
}

impl EncryptionJob {
    /// Starts to read the files for a host with this name and this address. The waker, if there is one, is called when
    /// they were read.
    pub(crate) fn start(config: &Config, host: Option<String>, ip: Option<IpAddr>, waker: Option<PollWaker>) -> Self {
        let settings = config.tls();
        let files = settings.own.is_none().then(|| FILES.ask((config.get_sslmode(), settings.clone()), waker));
        Self::Settings { config: config.clone(), host, ip, files }
    }

    /// Returns `true` if TLS begins immediately, without an SSLRequest.
    pub(crate) fn is_direct(&self) -> bool {
        match self {
            Self::Ready(encryption) => encryption.direct,
            Self::Settings { config, .. } => config.tls().negotiation == SslNegotiation::Direct,
        }
    }

    /// Returns the encryption, or `None` while the files are being read.
    ///
    /// # Errors
    /// Returns an error of kind [`File`](TlsErrorKind::File) or [`WrongName`](TlsErrorKind::WrongName).
    pub(crate) fn poll(&self) -> Option<Result<Encryption, TlsError>> {
        let (config, host, ip, files) = match self {
            Self::Ready(encryption) => return Some(Ok(encryption.clone())),
            Self::Settings { config, host, ip, files } => (config, host.as_deref(), *ip, files),
        };
        let client = match &config.tls().own {
            Some(own) => Ok(Arc::clone(&own.0)),
            None => files.as_ref()?.poll()?,
        };
        Some(client.and_then(|client| Encryption::new(config, host, ip, client)))
    }
}

/// Returns the configuration for these settings and the current files.
fn shared(mode: SslMode, settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let files = Files::read(mode, settings)?;
    let mut fingerprint = files.fingerprint();
    let by_name = mode == SslMode::VerifyFull;
    let rest = format!("{by_name} {} {:?} {:?}", settings.omits_sni, settings.min_version, settings.max_version);
    fingerprint.update(rest);
    let fingerprint: Fingerprint = fingerprint.finalize().into();

    let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    in_use.retain(|(_, config)| config.strong_count() > 0);
    if let Some(config) = in_use.iter().find(|(known, _)| *known == fingerprint).and_then(|(_, found)| found.upgrade())
    {
        return Ok(config);
    }
    let made = Arc::new(make(settings, &files, by_name)?);
    in_use.push((fingerprint, Arc::downgrade(&made)));
    Ok(made)
}

fn make(settings: &TlsSettings, files: &Files, by_name: bool) -> Result<ClientConfig, TlsError> {
    let trust = roots(&files.roots)?.map(|roots| trust(roots, &files.crls, by_name)).transpose()?;
    let verifier = Verifier { trust, algorithms: PROVIDER.signature_verification_algorithms };
    let versions: &[_] = match (settings.min_version, settings.max_version) {
        (Some(TlsVersion::V1_3), _) => &[&version::TLS13],
        (_, Some(TlsVersion::V1_2)) => &[&version::TLS12],
        _ => &[&version::TLS13, &version::TLS12],
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(versions)
        .map_err(|e| fault::of(e, true))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            builder.with_client_cert_resolver(Arc::new(Identity::load(certificate, key, &PROVIDER)?))
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = !settings.omits_sni;
    // PostgreSQL sends no session tickets, and each session must be verified again.
    config.resumption = Resumption::disabled();
    Ok(config)
}

pub(super) fn roots(roots: &Roots) -> Result<Option<Vec<CertificateDer<'static>>>, TlsError> {
    match roots {
        Roots::Unverified => Ok(None),
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let why: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                return Err(files::fault(format!(
                    "the operating system has no trusted authorities ({}): install its package of CA certificates, or set \
                     sslrootcert to a file",
                    why.join("; ")
                )));
            }
            Ok(Some(found.certs))
        }
        Roots::File(file) => Ok(Some(file.roots("the root file")?)),
    }
}

fn trust(roots: Vec<CertificateDer<'static>>, crls: &[File], by_name: bool) -> Result<Trust, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let lists = crls.iter().map(File::lists).collect::<Result<Vec<_>, _>>()?.concat();
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&PROVIDER));
    if !lists.is_empty() {
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    let chain =
        builder.build().map_err(|e| files::fault(format!("the root certificates or sslcrl are invalid: {e}")))?;
    Ok(Trust { chain, roots, by_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Encryption {
        /// Like `new`, but reads the files first, on this thread.
        pub(in super::super) fn read_now(
            config: &Config,
            host: Option<&str>,
            ip: Option<IpAddr>,
        ) -> Result<Self, TlsError> {
            Self::new(config, host, ip, shared(config.get_sslmode(), config.tls())?)
        }
    }

    fn config_for(settings: &str) -> Arc<ClientConfig> {
        let config = Config::without_env(&format!("host=db {settings}")).unwrap();
        Encryption::read_now(&config, Some("db"), None).unwrap().config
    }

    #[test]
    fn equal_settings_over_equal_files_share_one_configuration() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/fixtures");
        let root = |file: &str| format!("sslmode=verify-full sslrootcert={directory}/{file}.crt");
        let one = config_for(&root("rsa-sha256"));
        assert!(Arc::ptr_eq(&one, &config_for(&root("rsa-sha256"))));
        for other in [
            root("rsa-sha384"),
            root("rsa-sha256").replace("verify-full", "verify-ca"),
            root("rsa-sha256") + " sslsni=0",
            root("rsa-sha256") + " ssl_max_protocol_version=TLSv1.2",
        ] {
            assert!(!Arc::ptr_eq(&one, &config_for(&other)), "{other}");
        }
        let weak = Arc::downgrade(&one);
        drop(one);
        assert!(weak.upgrade().is_none(), "an unused configuration is dropped");
    }

    #[test]
    fn a_certificate_must_be_valid_for_the_name_if_there_is_one() {
        let ip = Some([192, 0, 2, 7].into());
        let named = |host, must_match| server_name(host, ip, must_match).map(|name| name.to_str().into_owned());
        assert_eq!(named(Some("db.example"), true).unwrap(), "db.example");
        assert_eq!(named(Some("db_1"), true).unwrap(), "db_1");
        assert_eq!(named(Some("::1"), true).unwrap(), "::1");
        assert_eq!(named(None, true).unwrap(), "192.0.2.7");
        assert_eq!(named(Some("no name"), false).unwrap(), "192.0.2.7");
        assert_eq!(named(Some("no name"), true).unwrap_err().kind(), TlsErrorKind::WrongName);
    }
}
