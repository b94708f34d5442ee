//! Certificates that are created for a test, and servers that use them.
//!
//! ```text
//! let ca = Authority::new("a");
//! let server = TlsServer::start(&ca.server(&["localhost", "127.0.0.1"]), &ca, Options::new());
//! let root = server.file("root.crt", ca.pem());
//! connect(&server.dsn(&format!("sslmode=verify-full sslrootcert={root}")));
//! ```

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::{Cluster, Options, server};

/// A certificate and its key, both in PEM format.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
    /// The serial number, which a certificate revocation list contains.
    pub serial: u64,
}

/// A certificate authority.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn next_serial() -> u64 {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    SERIAL.fetch_add(1, Ordering::Relaxed)
}

impl Authority {
    /// Creates a root authority.
    pub fn new(name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().unwrap());
        Self { certificate: params.self_signed(&key).unwrap(), issuer: Issuer::new(params, key) }
    }

    /// Creates an intermediate authority, with a certificate signed by this one.
    pub fn below(&self, name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().unwrap());
        Self { certificate: params.signed_by(&key, &self.issuer).unwrap(), issuer: Issuer::new(params, key) }
    }

    /// Returns the authority's certificate in PEM format.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Issues a certificate for a server with these names and addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.sign(names, |_| {})
    }

    /// Issues a certificate for a client with this role.
    pub fn client(&self, role: &str) -> Identity {
        self.sign(&[], |params| {
            params.distinguished_name.push(DnType::CommonName, role);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// Issues a certificate with any parameters.
    pub fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        self.sign_for(KeyPair::generate().unwrap(), names, change)
    }

    /// Issues a certificate for this key with any parameters.
    pub fn sign_for(&self, key: KeyPair, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let serial = next_serial();
        let mut params = params(names, serial);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate: certificate.pem(), key: key.serialize_pem(), serial }
    }

    /// Returns a certificate revocation list that expires in the year `until`.
    pub fn crl(&self, revoked: &[&Identity], until: i32) -> String {
        let revoked = revoked.iter().map(|it| RevokedCertParams {
            serial_number: SerialNumber::from(it.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(next_serial()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(&[], next_serial());
    params.distinguished_name.push(DnType::CommonName, format!("authority {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(names: &[&str], serial: u64) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// Returns a self-signed certificate.
pub fn self_signed(names: &[&str]) -> Identity {
    let key = KeyPair::generate().unwrap();
    let serial = next_serial();
    let certificate = params(names, serial).self_signed(&key).unwrap();
    Identity { certificate: certificate.pem(), key: key.serialize_pem(), serial }
}

/// A throwaway server with TLS.
pub struct TlsServer {
    pub cluster: Cluster,
}

impl TlsServer {
    /// Starts a server with this certificate, which accepts client certificates signed by `clients`.
    pub fn start(identity: &Identity, clients: &Authority, options: Options) -> Self {
        let options = options
            .setting("ssl", "on")
            .setting("ssl_cert_file", "server.crt")
            .setting("ssl_key_file", "server.key")
            .setting("ssl_ca_file", "clients.crt")
            .file("server.crt", identity.certificate.clone())
            .file("server.key", identity.key.clone())
            .file("clients.crt", clients.pem());
        Self { cluster: server::start(options) }
    }

    /// Replaces the server's certificate, for new connections.
    pub fn renew(&self, identity: &Identity) {
        // The files are written in place, so that their owner does not change.
        fs::write(self.cluster.data_dir().join("server.crt"), &identity.certificate).unwrap();
        fs::write(self.cluster.data_dir().join("server.key"), &identity.key).unwrap();
        super::cluster::signal(self.cluster.pid().unwrap(), "HUP").unwrap();
    }

    /// Creates a private file for a client, which is removed with the server; returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.cluster.socket_dir().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Creates a directory for a client's files, which the server's guard can empty even as another user.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.cluster.socket_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        path
    }

    /// Returns a connection string with the address and these settings, which can contain another `host`.
    pub fn dsn(&self, settings: &str) -> String {
        let port = self.cluster.port();
        format!("host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=60 {settings}")
    }
}
