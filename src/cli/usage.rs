//! Command-line errors: with suggestions, without passwords, and safe on a terminal.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};

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
            let command = name.to_lowercase();
            let suggestion = match Args::try_parse_from(["notifyman", &command]) {
                Err(other) if other.kind() == ErrorKind::InvalidSubcommand => {
                    other.get(ContextKind::SuggestedSubcommand).cloned()
                }
                _ => (command != name).then(|| ContextValue::Strings(vec![command])),
            };
            if let Some(suggestion) = suggestion {
                error.insert(ContextKind::SuggestedSubcommand, suggestion);
            }
        }
        ErrorKind::UnknownArgument if error.get(ContextKind::SuggestedArg).is_none() => {
            let (option, usage) = (text(ContextKind::InvalidArg), text(ContextKind::Usage));
            let lower = option.to_lowercase();
            if option.starts_with("--ch") && usage.contains("<CHANNEL>") {
                let tip = "channels are given without an option".to_owned();
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            } else if has_option(&usage, &lower) {
                // Instead of the tip that it may be a value.
                error.insert(ContextKind::Suggested, ContextValue::None);
                error.insert(ContextKind::SuggestedArg, ContextValue::String(lower));
            }
        }
        _ => {}
    }
    error
}

/// Returns `true` if the command whose usage this is has a long option of this name.
fn has_option(usage: &str, option: &str) -> bool {
    let args = Args::command();
    let command = usage.split_whitespace().find_map(|word| args.find_subcommand(word));
    let long = option.strip_prefix("--");
    command.is_some_and(|command| command.get_arguments().any(|arg| long.is_some() && arg.get_long() == long))
}
