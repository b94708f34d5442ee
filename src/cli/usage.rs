//! Errors of the command line: with a suggestion where one is likely, and without passwords.

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Args;
use super::target;

/// Returns the error as it can be shown.
pub(super) fn improved(error: clap::Error) -> clap::Error {
    let mut error = with_suggestion(error);
    let hidden: Vec<_> = error.context().filter_map(|(kind, value)| Some((kind, target::hide(value)?))).collect();
    for (kind, value) in hidden {
        error.insert(kind, value);
    }
    error
}

/// Adds a suggestion where the parser has none.
fn with_suggestion(mut error: clap::Error) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::StyledStr(text)) => text.to_string(),
        _ => String::new(),
    };
    match error.kind() {
        // As an argument of `help` a command is suggested, too.
        ErrorKind::InvalidSubcommand if error.get(ContextKind::SuggestedSubcommand).is_none() => {
            let name = text(ContextKind::InvalidSubcommand);
            match Args::try_parse_from(["notifyman", &name]) {
                Err(other) if other.kind() == ErrorKind::InvalidSubcommand => other,
                _ => error,
            }
        }
        ErrorKind::UnknownArgument
            if error.get(ContextKind::SuggestedArg).is_none()
                && text(ContextKind::InvalidArg).starts_with("--ch")
                && text(ContextKind::Usage).contains("<CHANNEL>") =>
        {
            let tip = "channels are given without an option".to_owned();
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            error
        }
        _ => error,
    }
}
