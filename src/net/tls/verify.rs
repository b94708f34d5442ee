//! Verification of the server's certificate: libpq's rules, with the chain building of web PKI.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use super::{fault, names};

/// Verifies a server's certificate as `sslmode` and the root file require.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Without roots, every certificate is accepted.
    pub(super) trust: Option<Trust>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// The requirements for a certificate.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) chain: Arc<WebPkiServerVerifier>,
    /// The roots in their original form, to find the server's own certificate among them.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// `sslmode=verify-full`.
    pub(super) by_name: bool,
}

impl Trust {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        // It checks the name last, so a wrong name means that everything else is right.
        let checked = self.chain.verify_server_cert(end_entity, intermediates, name, &[], now);
        let named = match checked {
            Err(Error::InvalidCertificate(CertificateError::Other(other)))
                if fault::is_authority(&other) && self.roots.contains(end_entity) =>
            {
                // The server's certificate is itself trusted: it is self-signed, and its own authority. Its validity
                // has been checked before the rule about authorities.
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)
            }
            other => other.map(drop),
        };
        match named {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.by_name || names::are_for(end_entity, name) => Ok(()),
            other => other,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trust) = &self.trust {
            trust.check(end_entity, intermediates, server_name, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    /// Checks the signature also if the certificate is not verified: a login bound to the certificate is worthless
    /// unless the server has its key.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls13_signature(message, cert, dss, &self.algorithms) {
            // The old form has no place in a chain, but its key is a key.
            Err(Error::InvalidCertificate(CertificateError::Other(other))) if fault::is_version_1(&other) => {
                let key = public_key(cert).ok_or(CertificateError::BadEncoding)?;
                verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
            }
            other => other,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn public_key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    Some(parsed.tbs_certificate.subject_public_key_info.to_der().ok()?.into())
}
