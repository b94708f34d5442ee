//! The channel binding: the hash of the server's certificate, RFC 5929's `tls-server-end-point`.
//!
//! The hash function is that of the certificate's signature, with SHA-256 instead of MD5 and SHA-1. A signature
//! algorithm without a hash function (Ed25519) does not support this binding.

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, ContextSpecific, ObjectIdentifier};
use x509_cert::der::{Decode as _, Encode as _, SliceReader, TagNumber};
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef};

/// Returns the hash, or `None` if there is none or its function is unknown.
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

/// Returns the hash function of an algorithm in RFC 8017 (RSA), RFC 5758 (ECDSA, DSA) or NIST's list of hashes.
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

/// RSASSA-PSS has its hash function in its parameters: `SEQUENCE { [0] hashAlgorithm DEFAULT sha1, .. }`.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    fn shown(file: &str) -> CertificateDer<'static> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/fixtures");
        CertificateDer::from_pem_file(format!("{directory}/{file}.crt")).unwrap()
    }

    #[test]
    fn the_hash_is_the_one_of_the_certificates_signature() {
        for kind in ["rsa", "pss", "ecdsa"] {
            for (bits, hash) in [("256", Hash::Sha256), ("384", Hash::Sha384), ("512", Hash::Sha512)] {
                let certificate = shown(&format!("{kind}-sha{bits}"));
                let parsed = Certificate::from_der(&certificate).unwrap();
                assert_eq!(hash_of(&parsed.signature_algorithm), Some(hash), "{kind} {bits}");
                assert_eq!(of(&certificate).unwrap().len(), bits.parse::<usize>().unwrap() / 8);
            }
        }
        assert_eq!(of(&shown("rsa-sha1")), Some(Sha256::digest(shown("rsa-sha1")).to_vec()));
        assert_eq!(of(&shown("ed25519")), None);
    }

    #[test]
    fn pss_without_a_hash_means_sha_1() {
        let mut algorithm = Certificate::from_der(&shown("pss-sha384")).unwrap().signature_algorithm;
        algorithm.parameters = Some(x509_cert::der::Any::from_der(&[0x30, 0]).unwrap());
        assert_eq!(hash_of(&algorithm), Some(Hash::Sha256));
        algorithm.parameters = None;
        assert_eq!(hash_of(&algorithm), None);
    }

    proptest! {
        #[test]
        fn damaged_certificates_are_harmless(
            kind in prop_oneof![Just("rsa-sha256"), Just("pss-sha512"), Just("ed25519")],
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut damaged = shown(kind).to_vec();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            of(&damaged.into());
        }
    }
}
