//! The password for one address: from the configuration, from the password file or from a function of the program.

use std::borrow::Cow;

use crate::config::{Config, Endpoint, Host, Passfile, Secret};
use crate::error::Error;
use crate::net::{Address, OffloadJob, PollWaker, read_passfile, request_password};

/// The password for an address, while it is being obtained and after that.
#[derive(Debug)]
pub(super) enum PasswordLookup {
    /// The configuration is complete.
    Unneeded,
    ReadingFile(OffloadJob<Passfile>),
    File(Passfile),
    /// A function computes it as soon as the server has accepted the connection.
    ToRequest,
    Requested(OffloadJob<Result<Secret, String>>),
    Computed(Result<Secret, String>),
}

impl PasswordLookup {
    /// Begins to obtain the password for the first attempt at an address.
    pub(super) fn begin(config: &Config, waker: Option<&PollWaker>) -> Self {
        match (config.passfile_to_read(), config.password_provider()) {
            (Some(path), _) => Self::ReadingFile(read_passfile(path.to_owned(), waker.cloned())),
            (None, Some(_)) => Self::ToRequest,
            (None, None) => Self::Unneeded,
        }
    }

    /// Continues, for a connection that the server has accepted. Returns `true` once the password is known, or cannot be
    /// known.
    pub(super) fn advance(&mut self, config: &Config, place: Option<&Endpoint>, waker: Option<&PollWaker>) -> bool {
        if let Self::ToRequest = self
            && let (Some(provider), Some(Ok(request))) =
                (config.password_provider(), place.map(|place| config.password_request(place)))
        {
            *self = Self::Requested(request_password(provider.clone(), request, waker.cloned()));
        }
        let known = match self {
            Self::ReadingFile(job) => job.poll().map(Self::File),
            Self::Requested(job) => job.poll().map(Self::Computed),
            Self::Unneeded | Self::ToRequest | Self::File(_) | Self::Computed(_) => return true,
        };
        let is_known = known.is_some();
        *self = known.unwrap_or(std::mem::replace(self, Self::Unneeded));
        is_known
    }

    /// Returns the current step, for errors.
    pub(super) fn action(&self) -> &'static str {
        match self {
            Self::Requested(_) => "computing the password",
            _ => "reading the password file",
        }
    }

    /// Returns the configuration with the password for this address, and a note on its source for the error of a failed
    /// login.
    ///
    /// # Errors
    ///
    /// [`Error::Password`] if the program's function has failed.
    pub(super) fn apply(&self, config: &Config, place: Option<&Endpoint>) -> Result<(Config, Option<String>), Error> {
        let with_file = |file| match place {
            Some(place) => config.with_password_for(place, file),
            None => (config.clone(), None),
        };
        match self {
            Self::Unneeded => Ok((config.clone(), None)),
            Self::File(file) => Ok(with_file(file)),
            Self::Computed(Ok(Secret(password))) => {
                let note = "the password is from the function of password_with";
                Ok((config.clone().password(password), Some(note.into())))
            }
            Self::Computed(Err(reason)) => Err(Error::Password { reason: reason.as_str().into() }),
            // There is no address, role or database for which it could be requested.
            Self::ReadingFile(_) | Self::ToRequest | Self::Requested(_) => {
                Err(Error::Password { reason: "it is not known for which role and address".into() })
            }
        }
    }
}

/// Returns the endpoint of an address: the given one, or for the peer of another connection that of the configuration to
/// which the address most likely belongs.
pub(super) fn place<'c>(
    config: &Config,
    endpoint: Option<&'c Endpoint>,
    address: Option<&Address>,
) -> Option<Cow<'c, Endpoint>> {
    if let Some(endpoint) = endpoint {
        return Some(Cow::Borrowed(endpoint));
    }
    let (address, mut places) = (address?, config.endpoints().ok()?);
    let is_there = |place: &Endpoint| match (&place.host, address) {
        (Host::Name(_), Address::Tcp(at)) => place.port == at.port(),
        (host, Address::Tcp(at)) => (host.ip(), place.port) == (Some(at.ip()), at.port()),
        (Host::Socket(path), Address::Unix(at)) => path == at,
        _ => false,
    };
    let found = places.iter().position(is_there)?;
    Some(Cow::Owned(places.swap_remove(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c17_the_function_is_called_once_the_server_has_accepted_the_connection() {
        let config = Config::new().host("db1").user("app").password_with(|request| Ok(request.host().to_owned()));
        let place = config.endpoints().unwrap().remove(0);
        let mut password = PasswordLookup::begin(&config, None);
        assert!(matches!(password, PasswordLookup::ToRequest));
        while !password.advance(&config, Some(&place), None) {
            assert!(matches!(password, PasswordLookup::Requested(_)));
            std::thread::yield_now();
        }
        let (with_password, note) = password.apply(&config, Some(&place)).unwrap();
        assert_eq!(with_password.get_password(), Some("db1"));
        assert!(note.is_some() && config.get_password().is_none());
        // Without an address there is nothing to request.
        let mut password = PasswordLookup::begin(&config, None);
        assert!(password.advance(&config, None, None));
        assert!(matches!(password.apply(&config, None), Err(Error::Password { .. })));
    }
}
