//! What a login may be: how the wire is protected, and by which method the server may ask who we are.

use std::fmt;

use super::tls;

/// Whether the connection is encrypted, as libpq's `sslmode`.
///
/// It takes the feature `tls`. Without that, `Disable`, `Allow` and `Prefer` connect in clear, which is what they mean
/// where one side has no TLS; the others are refused before anything is sent.
///
/// Only `VerifyFull` keeps out somebody between who pretends to be the server, and `VerifyCa` where the authority
/// signs for nobody else. Where there is a file of trusted roots
/// ([`sslrootcert`](crate::Config::sslrootcert), by default `~/.postgresql/root.crt`), the certificate's signature is
/// checked in every mode, so that `Require` is as strict as `VerifyCa`. A Unix socket is never encrypted, whatever the
/// mode.
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
    /// Never encrypted.
    Disable,
    /// In clear; encrypted only where the server refuses that.
    Allow,
    /// Encrypted where that can be done, else in clear; the default, as in libpq.
    #[default]
    Prefer,
    /// Encrypted or not at all, without looking at the certificate.
    Require,
    /// Encrypted, with a certificate from a trusted authority.
    VerifyCa,
    /// Encrypted, with a trusted certificate that names the host.
    VerifyFull,
}

impl SslMode {
    const NAMES: [(&'static str, SslMode); 6] = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        by_name(&Self::NAMES, text, "sslmode")
    }

    /// Whether nothing ever goes on in clear.
    pub(crate) fn is_strict(self) -> bool {
        matches!(self, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull)
    }

    /// Refuses what can't be kept without TLS.
    pub(super) fn check(self) -> Result<(), String> {
        if self.is_strict() && !tls::BUILT_IN { Err(tls::needs_feature(&format!("sslmode={self}"))) } else { Ok(()) }
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, *self))
    }
}

/// Whether a SCRAM login is tied to the TLS channel it runs in, as libpq's `channel_binding`.
///
/// A bound login can't be relayed by somebody between, even where the certificate isn't checked. It needs TLS, SCRAM,
/// and a certificate whose signature has a hash: not Ed25519.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ChannelBinding {
    /// Never bound.
    Disable,
    /// Bound where both sides can; the default, as in libpq.
    #[default]
    Prefer,
    /// Bound, or no login.
    Require,
}

impl ChannelBinding {
    const NAMES: [(&'static str, ChannelBinding); 3] = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        by_name(&Self::NAMES, text, "channel_binding")
    }

    /// Refuses what can't be kept without TLS.
    pub(super) fn check(self) -> Result<(), String> {
        match self {
            ChannelBinding::Require if !tls::BUILT_IN => Err(tls::needs_feature("channel_binding=require")),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, *self))
    }
}

/// One way in which a server may ask a client to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthMethod {
    /// The server asks for nothing (`trust`, `peer`, a client certificate).
    None,
    /// The password in clear.
    Password,
    /// The password as an MD5 digest.
    Md5,
    /// SCRAM-SHA-256: neither side shows the password, and the server proves that it knows it.
    ScramSha256,
}

impl AuthMethod {
    const NAMES: [(&'static str, AuthMethod); 4] = [
        ("none", AuthMethod::None),
        ("password", AuthMethod::Password),
        ("md5", AuthMethod::Md5),
        ("scram-sha-256", AuthMethod::ScramSha256),
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, *self))
    }
}

/// The methods that `require_auth` leaves open to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct AuthMethods(u8);

impl AuthMethods {
    /// No limit: the default.
    pub(crate) const ALL: AuthMethods = AuthMethods(0b1111);
    const EMPTY: AuthMethods = AuthMethods(0);
    /// What libpq also knows and no version of ours answers.
    const FOREIGN: [&'static str; 3] = ["gss", "sspi", "oauth"];

    pub(crate) fn allows(self, method: AuthMethod) -> bool {
        self.0 & method.bit() != 0
    }

    /// Reads libpq's comma-separated list: either what is allowed, or with `!` before each what isn't.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::ALL);
        }
        let negated = text.starts_with('!');
        let mut listed = Self::EMPTY;
        let mut seen = Vec::new();
        for item in text.split(',') {
            let name = match (item.strip_prefix('!'), negated) {
                (Some(name), true) => name,
                (None, false) => item,
                _ => return Err("require_auth mixes methods with and without '!': use one kind".into()),
            };
            if let Some((_, method)) = AuthMethod::NAMES.iter().find(|(known, _)| *known == name) {
                listed.0 |= method.bit();
            } else if !Self::FOREIGN.contains(&name) {
                return Err(
                    "require_auth holds an unknown method: known are none, password, md5, scram-sha-256, gss, \
                            sspi and oauth, comma-separated without spaces"
                        .into(),
                );
            }
            if seen.contains(&name) {
                return Err(format!("require_auth names {name} twice"));
            }
            seen.push(name);
        }
        let allowed = if negated { AuthMethods(Self::ALL.0 & !listed.0) } else { listed };
        if allowed == Self::EMPTY {
            return Err("require_auth leaves no method that this version can answer: add none, password, md5 or \
                        scram-sha-256"
                .into());
        }
        Ok(allowed)
    }
}

impl FromIterator<AuthMethod> for AuthMethods {
    /// No method at all means no limit, as an empty `require_auth` does.
    fn from_iter<I: IntoIterator<Item = AuthMethod>>(methods: I) -> Self {
        match methods.into_iter().fold(0, |bits, method| bits | method.bit()) {
            0 => Self::ALL,
            bits => AuthMethods(bits),
        }
    }
}

/// Written as `require_auth` is; nothing where there is no limit.
impl fmt::Display for AuthMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return Ok(());
        }
        let mut separator = "";
        for (name, _) in AuthMethod::NAMES.iter().filter(|(_, method)| self.allows(*method)) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

/// Finds a value by its exact name; the error lists what would be right and doesn't repeat what was given.
pub(super) fn by_name<T: Copy + Default>(names: &[(&'static str, T)], text: &str, keyword: &str) -> Result<T, String> {
    if text.is_empty() {
        return Ok(T::default());
    }
    names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        format!("unknown value of {keyword}: known are {}", known.join(", "))
    })
}

pub(super) fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    names.iter().find(|(_, known)| *known == value).map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> String {
        let methods = AuthMethods::parse(text).unwrap();
        AuthMethod::NAMES.iter().filter(|(_, m)| methods.allows(*m)).map(|(n, _)| *n).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn require_auth_lists_what_is_allowed() {
        assert_eq!(allowed(""), "none password md5 scram-sha-256");
        assert_eq!(allowed("scram-sha-256"), "scram-sha-256");
        assert_eq!(allowed("gss,password,none"), "none password");
    }

    #[test]
    fn require_auth_with_exclamation_marks_lists_what_is_not() {
        assert_eq!(allowed("!none"), "password md5 scram-sha-256");
        assert_eq!(allowed("!password,!md5,!sspi"), "none scram-sha-256");
    }

    #[test]
    fn require_auth_refuses_what_libpq_refuses() {
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
    fn what_needs_tls_is_refused_where_there_is_none() {
        assert!(SslMode::Prefer.check().is_ok());
        for checked in [SslMode::Require.check(), SslMode::VerifyFull.check(), ChannelBinding::Require.check()] {
            assert_eq!(checked.is_ok(), tls::BUILT_IN);
            assert!(checked.err().is_none_or(|error| error.contains("feature `tls`")));
        }
        assert!(SslMode::parse("Disable").unwrap_err().contains("verify-full"));
    }
}
