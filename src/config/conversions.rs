//! Conversions of a configuration from and to strings.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::values::ConfigValues;
use super::{Config, UnknownName, environment, sources};
use crate::error::{ConfigError, Error, Escaped};

impl From<ConfigValues> for Config {
    fn from(settings: ConfigValues) -> Self {
        Config { inner: Arc::new(settings) }
    }
}

impl From<UnknownName> for Error {
    fn from(error: UnknownName) -> Self {
        ConfigError { origin: "name of a value".into(), position: None, message: error.to_string() }.into()
    }
}

impl FromStr for Config {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(sources::resolve(text, &environment::process)?.into())
    }
}

/// Parses a connection string, like [`FromStr`].
impl TryFrom<&str> for Config {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

/// Parses a connection string, like [`FromStr`].
impl TryFrom<&String> for Config {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.parse()
    }
}

/// Parses a connection string, like [`FromStr`].
impl TryFrom<String> for Config {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

/// Clones the configuration, so that functions that take `TryInto<Config>` also accept a reference.
impl From<&Config> for Config {
    fn from(config: &Config) -> Self {
        config.clone()
    }
}

/// Allows functions to accept a `Config`, whose conversion cannot fail, as well as a string.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Formats addresses, role and database on one line, such as `db1:5432,db2:5432 as "app", database "shop"`; with a
/// [label](Config::label), `berlin at db1:5432 ..`.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.endpoints() {
            Ok(endpoints) => {
                let places: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
                let label = self.label_at();
                write!(f, "{}{}{}", Escaped(&label), places.join(","), self.role_and_database())
            }
            Err(error) => write!(f, "unusable settings ({error:#})"),
        }
    }
}
