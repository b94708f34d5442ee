//! Policies for the login: encryption, and the authentication methods that the server may request.

use std::fmt;

use super::feature;
use super::names::{Named as _, named};

/// The encryption of a connection, as in libpq's `sslmode`.
///
/// Encryption requires the feature `tls`. Without it, `Disable`, `Allow` and `Prefer` connect without encryption, as
/// they do if the server does not support TLS; the other modes are rejected before anything is sent.
///
/// Only `VerifyFull` prevents another machine from impersonating the server; `VerifyCa` does so only if the certificate
/// authority signs for no other host. If there is a file of trusted roots ([`sslrootcert`](crate::Config::sslrootcert),
/// by default `~/.postgresql/root.crt`), the certificate's signature is verified in every mode, so that `Require` is as
/// strict as `VerifyCa`. Unix sockets are never encrypted.
///
/// ```
/// use notifyman::{Config, SslMode};
///
/// let config = Config::without_env("host=db sslmode=disable")?;
/// assert_eq!(config.get_sslmode(), SslMode::Disable);
/// # Ok::<(), notifyman::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SslMode {
    /// No encryption.
    Disable,
    /// Encrypted only if the server rejects an unencrypted connection.
    Allow,
    /// Encrypted if possible, otherwise unencrypted. This is the default, as in libpq.
    #[default]
    Prefer,
    /// Encrypted, without verification of the certificate.
    Require,
    /// Encrypted, with a certificate from a trusted certificate authority.
    VerifyCa,
    /// Encrypted, with a certificate from a trusted certificate authority that is valid for the host.
    VerifyFull,
}

impl SslMode {
    /// Returns `true` if the connection is never unencrypted.
    pub(crate) fn is_strict(self) -> bool {
        matches!(self, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull)
    }

    /// Rejects the mode if it needs TLS and the feature is disabled.
    pub(super) fn check(self) -> Result<(), String> {
        feature::check(self.is_strict(), format_args!("sslmode={self}"))
    }
}

named!(SslMode {
    Disable: "disable",
    Allow: "allow",
    Prefer: "prefer",
    Require: "require",
    VerifyCa: "verify-ca",
    VerifyFull: "verify-full",
});

/// The binding of SCRAM authentication to the TLS channel, as in libpq's `channel_binding`.
///
/// With channel binding, authentication cannot be relayed by a machine in the middle, even if the certificate is not
/// verified. It requires TLS, SCRAM, and a certificate whose signature algorithm has a hash function, which Ed25519 has
/// not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ChannelBinding {
    /// Never used.
    Disable,
    /// Used if both sides support it. This is the default, as in libpq.
    #[default]
    Prefer,
    /// Required: without it, the client does not authenticate.
    Require,
}

impl ChannelBinding {
    /// Rejects the policy if it needs TLS and the feature is disabled.
    pub(super) fn check(self) -> Result<(), String> {
        feature::check(self == ChannelBinding::Require, "channel_binding=require")
    }
}

named!(ChannelBinding { Disable: "disable", Prefer: "prefer", Require: "require" });

/// An authentication method that a server may request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthMethod {
    /// No authentication request (`trust`, `peer`, or a client certificate).
    None,
    /// The password in clear text.
    Password,
    /// The password as an MD5 hash.
    Md5,
    /// SCRAM-SHA-256: neither side reveals the password, and the server proves that it knows it.
    ScramSha256,
}

impl AuthMethod {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

named!(AuthMethod { None: "none", Password: "password", Md5: "md5", ScramSha256: "scram-sha-256" });

/// The methods that `require_auth` allows, as the bits of those that it does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AuthMethods(u8);

impl AuthMethods {
    /// All methods: the default.
    pub(crate) const ALL: AuthMethods = AuthMethods(0);
    const BITS: u8 = 0b1111;
    /// The methods that libpq knows and this crate does not support.
    const FOREIGN: [&'static str; 3] = ["gss", "sspi", "oauth"];

    pub(crate) fn allows(self, method: AuthMethod) -> bool {
        self.0 & method.bit() == 0
    }

    /// Parses libpq's comma-separated list, which contains either the allowed methods, or the forbidden ones, each with
    /// `!`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::ALL);
        }
        let negated = text.starts_with('!');
        let mut listed = 0;
        let mut seen = Vec::new();
        for item in text.split(',') {
            let name = match (item.strip_prefix('!'), negated) {
                (Some(name), true) => name,
                (None, false) => item,
                _ => return Err("require_auth mixes methods with and without '!': use only one form".into()),
            };
            if let Some((_, method)) = AuthMethod::NAMES.iter().find(|(known, _)| *known == name) {
                listed |= method.bit();
            } else if !Self::FOREIGN.contains(&name) {
                return Err(
                    "require_auth contains an unknown method: valid are none, password, md5, scram-sha-256, gss, \
                            sspi and oauth, comma-separated without spaces"
                        .into(),
                );
            }
            if seen.contains(&name) {
                return Err(format!("require_auth names {name} twice"));
            }
            seen.push(name);
        }
        let refused = if negated { listed } else { Self::BITS & !listed };
        if refused == Self::BITS {
            return Err("require_auth allows no method that this version supports: add none, password, md5 or \
                        scram-sha-256"
                .into());
        }
        Ok(AuthMethods(refused))
    }
}

impl FromIterator<AuthMethod> for AuthMethods {
    /// Collects methods. No method means no restriction, like an empty `require_auth`.
    fn from_iter<I: IntoIterator<Item = AuthMethod>>(methods: I) -> Self {
        match methods.into_iter().fold(0, |bits, method| bits | method.bit()) {
            0 => Self::ALL,
            bits => AuthMethods(Self::BITS & !bits),
        }
    }
}

/// Formats the methods as in `require_auth`. The text is empty if there is no restriction.
impl fmt::Debug for AuthMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return Ok(());
        }
        let allowed = AuthMethod::NAMES.iter().filter(|(_, method)| self.allows(*method));
        f.write_str(&allowed.map(|(name, _)| *name).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> String {
        let methods = AuthMethods::parse(text).unwrap();
        AuthMethod::NAMES.iter().filter(|(_, m)| methods.allows(*m)).map(|(n, _)| *n).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn require_auth_lists_the_allowed_methods() {
        assert_eq!(allowed(""), "none password md5 scram-sha-256");
        assert_eq!(allowed("scram-sha-256"), "scram-sha-256");
        assert_eq!(allowed("gss,password,none"), "none password");
    }

    #[test]
    fn require_auth_with_exclamation_marks_lists_the_forbidden_methods() {
        assert_eq!(allowed("!none"), "password md5 scram-sha-256");
        assert_eq!(allowed("!password,!md5,!sspi"), "none scram-sha-256");
    }

    #[test]
    fn require_auth_rejects_what_libpq_rejects() {
        for (text, part) in [
            ("md5,!password", "mixes"),
            ("!md5,password", "mixes"),
            ("md5,md5", "twice"),
            ("!gss,!gss", "twice"),
            ("md5,", "unknown"),
            ("md5, password", "unknown"),
            ("!", "unknown"),
            ("kerberos", "unknown"),
            ("gss,oauth", "no method"),
            ("!none,!password,!md5,!scram-sha-256", "no method"),
        ] {
            let error = AuthMethods::parse(text).err().unwrap();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn settings_that_need_tls_are_rejected_without_it() {
        assert!(SslMode::Prefer.check().is_ok());
        for checked in [SslMode::Require.check(), SslMode::VerifyFull.check(), ChannelBinding::Require.check()] {
            assert_eq!(checked.is_ok(), feature::BUILT_IN);
            assert!(checked.err().is_none_or(|error| error.contains("feature `tls`")));
        }
        assert!(SslMode::by_name("Disable", "sslmode").unwrap_err().contains("verify-full"));
    }
}
