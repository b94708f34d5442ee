//! Command-line errors: with suggestions, without passwords, and safe on a terminal.

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Args;
use super::target;

/// Returns the error with suggestions added, and with unsafe values replaced.
pub(super) fn improved(error: clap::Error) -> clap::Error {
    let mut error = with_suggestion(error);
    let replaced: Vec<_> = error.context().filter_map(|(kind, value)| Some((kind, replaced(value)?))).collect();
    if !replaced.is_empty() {
        // Suggestions repeat the argument, with styles.
        error.insert(ContextKind::Suggested, ContextValue::None);
    }
    for (kind, value) in replaced {
        error.insert(kind, value);
    }
    error
}

/// Returns the replacement for a value that must not be shown unchanged.
fn replaced(value: &ContextValue) -> Option<ContextValue> {
    match value {
        ContextValue::String(text) => target::shown_instead(text).map(ContextValue::String),
        ContextValue::Strings(texts) => {
            let shown = texts.iter().map(|text| target::shown_instead(text).unwrap_or_else(|| text.clone()));
            let shown: Vec<_> = shown.collect();
            (shown != *texts).then_some(ContextValue::Strings(shown))
        }
        _ => None,
    }
}

/// Adds a suggestion if the parser has none.
fn with_suggestion(mut error: clap::Error) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::StyledStr(text)) => text.to_string(),
        _ => String::new(),
    };
    match error.kind() {
        // The parser makes no suggestion for an argument of `help`.
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
