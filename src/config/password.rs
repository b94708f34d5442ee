//! A password that a function of the program computes for each connection attempt.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::secret::Secret;

/// The server, the role and the database for which a password is needed: the argument of the function of
/// [`Config::password_with`](crate::Config::password_with).
///
/// ```
/// use notifyman::PasswordRequest;
///
/// /// Names the secret in a vault.
/// fn path_of(request: &PasswordRequest) -> String {
///     format!("postgres/{}/{}", request.host(), request.user())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordRequest {
    host: String,
    port: u16,
    user: String,
    dbname: String,
}

impl PasswordRequest {
    pub(super) fn new(host: String, port: u16, user: &str, dbname: &str) -> Self {
        Self { host, port, user: user.into(), dbname: dbname.into() }
    }

    /// Returns the host: the name if one is configured, otherwise the address, or the path of the Unix socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the database.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }
}

/// The result of a provider's function.
type Provided = Result<String, Box<dyn StdError + Send + Sync>>;

/// A function that computes passwords. Two values are equal only if they share the function.
#[derive(Clone)]
pub(crate) struct PasswordProvider(Arc<dyn Fn(&PasswordRequest) -> Provided + Send + Sync>);

impl PasswordProvider {
    pub(super) fn new(provide: impl Fn(&PasswordRequest) -> Provided + Send + Sync + 'static) -> Self {
        Self(Arc::new(provide))
    }

    /// Calls the function, which may block, and panic. An error is its text with those of its sources.
    pub(crate) fn provide(&self, request: &PasswordRequest) -> Result<Secret, String> {
        match (self.0)(request) {
            Ok(password) => Ok(Secret(password)),
            Err(error) => {
                let mut reason = error.to_string();
                let mut source = error.source();
                while let Some(error) = source {
                    let text = error.to_string();
                    // Some errors contain the text of their source.
                    if !reason.ends_with(&text) {
                        reason = format!("{reason}: {text}");
                    }
                    source = error.source();
                }
                Err(reason)
            }
        }
    }
}

impl PartialEq for PasswordProvider {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for PasswordProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a function")
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::Config;
    use super::*;

    #[derive(Debug)]
    struct Wrapped(&'static str, io::Error);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Wrapped {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.1)
        }
    }

    fn reason(text: &'static str) -> String {
        let provider = PasswordProvider::new(move |_| Err(Wrapped(text, io::Error::other("refused")).into()));
        provider.provide(&PasswordRequest::new("db1".into(), 5432, "app", "shop")).unwrap_err()
    }

    #[test]
    fn c17_the_text_of_an_error_has_every_source_once() {
        assert_eq!(reason("no token"), "no token: refused");
        assert_eq!(reason("no token: refused"), "no token: refused");
    }

    #[test]
    fn c17_configurations_with_a_provider_are_equal_only_if_they_share_it() {
        let config = || Config::new().user("app").password_with(|_| Ok("secret".into()));
        let one = config();
        assert_eq!(one, one.clone());
        assert!(one.shares_session_with(&one.clone().application_name("other")));
        assert_ne!(one, config());
        assert!(!one.shares_session_with(&config()));
        assert!(!one.shares_session_with(&Config::new().user("app")));
    }

    #[test]
    fn c17_the_last_password_that_was_set_counts() {
        let config = Config::new().password("s3cr3t").password_with(|_| Ok("s3cr3t".into()));
        assert_eq!(config.get_password(), None);
        assert!(config.password_provider().is_some());
        let shown = format!("{config:?}");
        assert!(shown.contains("password_provider: Some(a function)") && !shown.contains("s3cr3t"), "{shown}");
        let config = config.passfile("/nowhere");
        assert_eq!(config.passfile_to_read(), None, "the file is not read in vain");
        assert_eq!(config.password("fixed").password_provider(), None);
    }
}
