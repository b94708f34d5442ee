//! The client certificate and its key, for a server that requests them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};

use super::files::File;
use super::pem;
use crate::error::TlsError;

/// The client certificate, regardless of the authorities that the server names.
#[derive(Debug)]
pub(super) struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// # Errors
    /// Returns an error if a file is invalid, or if certificate and key do not match.
    pub(super) fn load(certificate: &File, key: &File, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let unusable = |why: &dyn fmt::Display| key.unusable("the key of the client certificate", why);
        let chain = certificate.certificates("the client certificate")?;
        if key.content.windows(9).any(|window| window == b"ENCRYPTED") {
            let message = "it is encrypted, which is not supported (sslpassword): store it without a password, readable only by \
                           its owner (openssl pkey -in .. -out ..)";
            return Err(unusable(&message));
        }
        let der = pem::key(&key.content)
            .or_else(|| PrivateKeyDer::try_from(key.content.clone()).ok())
            .ok_or_else(|| unusable(&"it contains no private key in PEM or DER format: PKCS#8, PKCS#1 or SEC1"))?;
        let signing = provider.key_provider.load_private_key(der).map_err(|e| {
            unusable(&format!("{e}; supported are RSA from 2048 bits, ECDSA with P-256 or P-384, and Ed25519"))
        })?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(unusable(&format!("it is not the key of {:?}: renew both together", certificate.path)))
            }
            // A certificate of X.509 version 1 cannot be compared; the server checks it.
            _ => Ok(Self(Arc::new(certified))),
        }
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A certificate resolver for one session that records whether the server has requested a certificate.
#[derive(Debug)]
pub(super) struct RequestRecorder {
    inner: Arc<dyn ResolvesClientCert>,
    requested: AtomicBool,
}

impl RequestRecorder {
    pub(super) fn instead_of(inner: Arc<dyn ResolvesClientCert>) -> Arc<Self> {
        Arc::new(Self { inner, requested: AtomicBool::new(false) })
    }

    pub(super) fn was(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for RequestRecorder {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.requested.store(true, Ordering::Relaxed);
        self.inner.resolve(authorities, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}
