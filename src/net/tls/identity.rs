//! Who we are, for a server that asks: our certificate and its key.

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

/// Our one certificate, whichever authorities the server names.
#[derive(Debug)]
pub(super) struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// # Errors
    /// What is wrong with the files, or that they don't go together.
    pub(super) fn load(certificate: &File, key: &File, provider: &CryptoProvider) -> Result<Self, TlsError> {
        const KEY: &str = "the key of our certificate";
        let chain = certificate.certificates("our certificate")?;
        if key.content.windows(9).any(|window| window == b"ENCRYPTED") {
            let message = "it needs a password, and such keys aren't read (sslpassword): store it without one, \
                           readable by nobody else (openssl pkey -in .. -out ..)";
            return Err(key.unusable(KEY, &message));
        }
        let der = pem::key(&key.content)
            .or_else(|| PrivateKeyDer::try_from(key.content.clone()).ok())
            .ok_or_else(|| key.unusable(KEY, &"it has no private key in PEM or DER form: PKCS#8, PKCS#1 or SEC1"))?;
        let signing = provider.key_provider.load_private_key(der).map_err(|e| {
            let can = "RSA from 2048 bits, ECDSA with P-256 or P-384, and Ed25519 can be used";
            key.unusable(KEY, &format!("{e}; {can}"))
        })?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let message = format!("it isn't the key of {:?}: renew both together", certificate.path);
                Err(key.unusable(KEY, &message))
            }
            // A certificate of the old form can't be compared; the server will.
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

/// The same for one session, remembering whether the server has asked.
#[derive(Debug)]
pub(super) struct Asked {
    inner: Arc<dyn ResolvesClientCert>,
    asked: AtomicBool,
}

impl Asked {
    pub(super) fn instead_of(inner: Arc<dyn ResolvesClientCert>) -> Arc<Self> {
        Arc::new(Self { inner, asked: AtomicBool::new(false) })
    }

    pub(super) fn was(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.inner.resolve(authorities, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}
