//! What a login is bound to: the hash of the server's certificate, RFC 5929's `tls-server-end-point`.
//!
//! The hash function is the one of the certificate's own signature, except that SHA-256 stands in for MD5 and SHA-1.
//! A signature without one (Ed25519) has no such binding.

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, ContextSpecific, ObjectIdentifier};
use x509_cert::der::{Decode as _, Encode as _, SliceReader, TagNumber};
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef};

/// The hash; `None` where there is none, or none that is known.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    Some(match hash_of(&parsed.signature_algorithm)? {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// By name in RFC 8017 (RSA), RFC 5758 (ECDSA, DSA) and NIST's list of hashes.
fn hash_of(signature: &AlgorithmIdentifierOwned) -> Option<Hash> {
    match signature.oid.to_string().as_str() {
        // MD5 and SHA-1, with RSA, DSA and ECDSA.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10040.4.3" | "1.2.840.10045.4.1" => {
            Some(Hash::Sha256)
        }
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" | "2.16.840.1.101.3.4.3.1" => Some(Hash::Sha224),
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" | "2.16.840.1.101.3.4.3.2" => Some(Hash::Sha256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Hash::Sha384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Hash::Sha512),
        "1.2.840.113549.1.1.10" => hash_of_pss(signature),
        _ => None,
    }
}

/// RSASSA-PSS names its hash among its parameters: `SEQUENCE { [0] hashAlgorithm DEFAULT sha1, .. }`.
fn hash_of_pss(signature: &AlgorithmIdentifierOwned) -> Option<Hash> {
    let parameters = signature.parameters.as_ref()?.to_der().ok()?;
    let parameters = AnyRef::from_der(&parameters).ok()?;
    let mut inside = SliceReader::new(parameters.value()).ok()?;
    let hash = ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode_explicit(&mut inside, TagNumber::N0).ok()?;
    let Some(ContextSpecific { value: AlgorithmIdentifierRef { oid, .. }, .. }) = hash else {
        return Some(Hash::Sha256);
    };
    named(oid)
}

fn named(hash: ObjectIdentifier) -> Option<Hash> {
    match hash.to_string().as_str() {
        "1.2.840.113549.2.5" | "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => Some(Hash::Sha256),
        "2.16.840.1.101.3.4.2.4" => Some(Hash::Sha224),
        "2.16.840.1.101.3.4.2.2" => Some(Hash::Sha384),
        "2.16.840.1.101.3.4.2.3" => Some(Hash::Sha512),
        _ => None,
    }
}
