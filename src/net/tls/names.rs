//! Two forms of host names in certificates that libpq accepts and web browsers do not: the common name of the subject,
//! and an address in a DNS name.

use rustls::pki_types::{CertificateDer, ServerName};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Returns `true` if the certificate names the host in one of these forms.
///
/// As in libpq, the common name is used only if there is no alternative name of the host's kind.
pub(super) fn are_for(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let Ok(parsed) = Certificate::from_der(certificate) else { return false };
    let is_address = matches!(host, ServerName::IpAddress(_));
    let host = host.to_str();
    let Ok(alternatives) = parsed.tbs_certificate.get::<SubjectAltName>() else { return false };
    let alternatives = alternatives.map_or_else(Vec::new, |(_, names)| names.0);
    let mut of_its_kind = false;
    for name in &alternatives {
        match name {
            GeneralName::DnsName(name) if matches(name.as_str(), &host) => return true,
            GeneralName::DnsName(_) => of_its_kind |= !is_address,
            GeneralName::IpAddress(_) => of_its_kind |= is_address,
            _ => {}
        }
    }
    let common_name = || {
        let mut attributes = parsed.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
        let name = attributes.find(|attribute| attribute.oid == COMMON_NAME)?;
        std::str::from_utf8(name.value.value()).ok().map(str::to_owned)
    };
    !of_its_kind && common_name().is_some_and(|name| matches(&name, &host))
}

/// Compares without case; a `*` matches the whole first label.
fn matches(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(rest), Some((first, domain))) => {
            !is_address && !first.is_empty() && !rest.is_empty() && rest.eq_ignore_ascii_case(domain)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        for (pattern, host) in [("db.example", "DB.example"), ("*.example", "db.example"), ("127.0.0.1", "127.0.0.1")] {
            assert!(matches(pattern, host), "{pattern} {host}");
        }
        for (pattern, host) in [
            ("*.example", "example"),
            ("*.example", "a.b.example"),
            ("*.example", ".example"),
            ("*", "example"),
            ("*.", "example."),
            ("d*.example", "db.example"),
            ("*.0.0.1", "127.0.0.1"),
            ("", "db"),
        ] {
            assert!(!matches(pattern, host), "{pattern} {host}");
        }
    }
}
