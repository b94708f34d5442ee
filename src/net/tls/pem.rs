//! Parses PEM like OpenSSL, which accepts more than RFC 7468: a byte order mark, white space at the ends of lines,
//! lines of any length, text between the blocks, older labels, and certificates with trust settings (`openssl x509
//! -trustout`).
//!
//! This module finds the blocks; `rustls-pki-types` decodes them.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// The contents of a file, or the reason why they cannot be read.
type PemResult<T> = Result<T, String>;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const TRUSTED: &str = "TRUSTED CERTIFICATE";

/// A certificate, and `true` if its trust settings allow it as a trust anchor for servers.
pub(super) struct RatedCertificate {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) for_servers: bool,
}

/// Returns the certificates in a file.
pub(super) fn certificates(file: &[u8]) -> PemResult<Vec<RatedCertificate>> {
    let is_certificate = |label: &str| matches!(label, "CERTIFICATE" | "X509 CERTIFICATE" | TRUSTED);
    let blocks = blocks(file)?.into_iter().filter(|block| is_certificate(&block.label));
    let rated = blocks.map(|block| {
        let whole: CertificateDer<'_> = block.decode("CERTIFICATE")?;
        if block.label != TRUSTED {
            return Ok(RatedCertificate { certificate: whole, for_servers: true });
        }
        let (_, behind) = element(&whole).ok_or("a certificate in it is damaged")?;
        let certificate = whole.get(..whole.len() - behind.len()).unwrap_or_default().to_vec();
        Ok(RatedCertificate { certificate: certificate.into(), for_servers: is_for_servers(behind) })
    });
    rated.collect()
}

/// Returns the certificate revocation lists in a file.
pub(super) fn lists(file: &[u8]) -> PemResult<Vec<CertificateRevocationListDer<'static>>> {
    let blocks = blocks(file)?.into_iter().filter(|block| block.label == "X509 CRL");
    blocks.map(|block| block.decode("X509 CRL")).collect()
}

/// Returns the first private key in a file, if there is one that can be read without a password.
pub(super) fn key(file: &[u8]) -> Option<PrivateKeyDer<'static>> {
    let block = blocks(file).ok()?.into_iter().find(|block| block.label.ends_with("PRIVATE KEY"))?;
    block.decode(&block.label).ok()
}

/// The content between `BEGIN` and `END`.
struct PemBlock {
    label: String,
    base64: Vec<u8>,
}

impl PemBlock {
    fn decode<T: PemObject>(&self, label: &str) -> PemResult<T> {
        let mut pem = format!("-----BEGIN {label}-----\n").into_bytes();
        for line in self.base64.chunks(64) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend(format!("-----END {label}-----\n").into_bytes());
        T::from_pem_slice(&pem).map_err(|e| format!("a block in it, BEGIN {}, cannot be read: {e}", self.label))
    }
}

fn blocks(file: &[u8]) -> PemResult<Vec<PemBlock>> {
    let text = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    let mut found = Vec::new();
    let mut open: Option<PemBlock> = None;
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii_end();
        match (&mut open, mark(line, b"-----BEGIN "), mark(line, b"-----END ")) {
            (None, Some(label), _) => open = Some(PemBlock { label, base64: Vec::new() }),
            (None, None, _) => {}
            (Some(block), _, Some(label)) if label == block.label => found.extend(open.take()),
            (Some(block), Some(_), _) | (Some(block), _, Some(_)) => return Err(endless(block)),
            // A header, such as Proc-Type.
            (Some(_), None, None) if line.contains(&b':') => {}
            (Some(block), None, None) => block.base64.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace())),
        }
    }
    open.as_ref().map_or(Ok(found), |block| Err(endless(block)))
}

fn endless(block: &PemBlock) -> String {
    format!("a block in it, BEGIN {}, has no end", block.label)
}

fn mark(line: &[u8], begin: &[u8]) -> Option<String> {
    let label = line.strip_prefix(begin)?.strip_suffix(b"-----")?;
    Some(String::from_utf8_lossy(label).into_owned())
}

/// Reads OpenSSL's `X509_CERT_AUX`, which follows a certificate with trust settings: the uses that it is trusted for,
/// and those that it is rejected for. As in OpenSSL, a certificate without trusted uses is trusted for all.
fn is_for_servers(settings: &[u8]) -> bool {
    /// id-kp-serverAuth and anyExtendedKeyUsage.
    const SERVERS: [&[u8]; 2] = [&[0x2b, 6, 1, 5, 5, 7, 3, 1], &[0x55, 0x1d, 0x25, 0]];
    const SEQUENCE: u8 = 0x30;
    const REJECTED: u8 = 0xa0;
    if settings.is_empty() {
        return true;
    }
    let Some(((SEQUENCE, fields), _)) = element(settings) else { return false };
    let (mut is_trusted, mut rest) = (true, fields);
    while let Some(((tag, uses), behind)) = element(rest) {
        let (mut uses, mut names_servers) = (uses, false);
        if !matches!(tag, SEQUENCE | REJECTED) {
            break;
        }
        while let Some(((_, usage), others)) = element(uses) {
            names_servers |= SERVERS.contains(&usage);
            uses = others;
        }
        is_trusted &= names_servers == (tag == SEQUENCE);
        rest = behind;
    }
    is_trusted
}

/// A tag and its content.
type Element<'d> = (u8, &'d [u8]);

/// Splits the first element of DER from the rest.
fn element(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&[tag, short], rest) = der.split_first_chunk()?;
    // With the high bit set, the byte gives the number of bytes of the length.
    let (length, rest) = match short {
        short if short < 0x80 => (usize::from(short), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (inside, behind) = rest.split_at_checked(length)?;
    Some(((tag, inside), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the fixture's certificate in PEM, and its base64.
    fn pem() -> (String, String) {
        let pem = include_str!("../../../tests/tls/fixtures/rsa-sha256.crt").to_owned();
        let base64 = pem.lines().filter(|line| !line.starts_with('-')).collect();
        (pem, base64)
    }

    fn der(file: impl AsRef<[u8]>) -> Vec<Vec<u8>> {
        let found = certificates(file.as_ref()).unwrap();
        found.iter().map(|rated| rated.certificate.to_vec()).collect()
    }

    #[test]
    fn certificates_are_read_as_openssl_reads_them() {
        let (pem, base64) = pem();
        let expected = der(&pem);
        assert_eq!(expected.len(), 1);
        let short: String =
            base64.as_bytes().chunks(7).map(|line| str::from_utf8(line).unwrap().to_owned() + "\n").collect();
        for file in [
            format!("\u{feff}{pem}"),
            pem.trim_end().to_owned(),
            pem.replace('\n', "\r\n"),
            pem.replace('\n', " \t\n"),
            format!("Subject: test\n    a: b\n{pem}trailing -----BEGIN\n"),
            pem.replace("CERTIFICATE", "X509 CERTIFICATE"),
            pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
            format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----"),
            format!("-----BEGIN CERTIFICATE-----\n{short}-----END CERTIFICATE-----\n"),
            format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{pem}"),
        ] {
            assert_eq!(der(&file), expected, "{file}");
        }
        assert_eq!(der(pem.clone() + "between\n" + &pem), [&expected[..], &expected].concat());
        for damaged in [
            pem.replace("-----END CERTIFICATE-----", ""),
            pem.replace("END CERTIFICATE", "END X509 CERTIFICATE"),
            pem.replacen(&base64[..8], "????", 1),
            pem.clone() + "-----BEGIN CERTIFICATE-----\n",
        ] {
            assert!(certificates(damaged.as_bytes()).is_err(), "{damaged}");
        }
        assert!(certificates(b"").unwrap().is_empty());
    }

    #[test]
    fn trust_settings_are_respected() {
        let oid = |last: u8| vec![6, 8, 0x2b, 6, 1, 5, 5, 7, 3, last];
        let list = |tag: u8, inside: &[u8]| [&[tag, u8::try_from(inside.len()).unwrap()], inside].concat();
        let settings = |fields: &[Vec<u8>]| list(0x30, &fields.concat());
        let alias = list(0x0c, b"name");
        assert!(
            is_for_servers(b"")
                && is_for_servers(&settings(&[]))
                && is_for_servers(&settings(std::slice::from_ref(&alias)))
        );
        assert!(is_for_servers(&settings(&[list(0x30, &[oid(2), oid(1)].concat()), alias.clone()])));
        assert!(is_for_servers(&settings(&[list(0xa0, &oid(2))])));
        assert!(!is_for_servers(&settings(&[list(0x30, &oid(2)), alias])), "trusted with clients alone");
        assert!(!is_for_servers(&settings(&[list(0xa0, &oid(1))])), "rejected");
        assert!(!is_for_servers(&settings(&[list(0x30, &oid(1)), list(0xa0, &[6, 4, 0x55, 0x1d, 0x25, 0])])));
        assert!(!is_for_servers(b"\x30\x7f"), "damaged");
    }

    #[test]
    fn a_key_is_found_after_other_blocks() {
        let pem = include_str!("../../../tests/tls/fixtures/ec-pkcs8.key");
        let expected = key(pem.as_bytes()).unwrap();
        let others = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for file in [format!("\u{feff}{pem}"), format!("text\n{others}{pem}"), pem.replace('\n', "\r\n")] {
            assert_eq!(key(file.as_bytes()).unwrap(), expected);
        }
        assert!(key(b"no key").is_none());
    }
}
