//! The results of a command, which become the program's exit code.

use std::io;

use notifyman::Error;

/// The result of a command that ran to its end.
pub(crate) enum Exit {
    Done,
    /// Something failed on the way, and was reported.
    Incomplete,
    /// Everything works, but something that was reported should be changed.
    Warned,
    /// The command was ended by this signal.
    Signalled(i32),
    /// The reader of standard output closed it before the work was complete.
    ReaderGone,
}

/// The reason why a command could not continue.
pub(crate) enum Failure {
    /// The request is invalid.
    Usage(String),
    Failed(String),
    /// Like `Failed`, with advice.
    Advised(String, &'static str),
    /// Writing to standard output failed.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_usage() { Failure::Usage(format!("{error:#}")) } else { Failure::Failed(format!("{error:#}")) }
    }
}
