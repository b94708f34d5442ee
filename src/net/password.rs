//! Computes passwords without blocking the caller: the program's function may take long, hang or panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::config::{PasswordProvider, PasswordRequest, Secret};
use crate::net::offload::{OffloadJob, OffloadQueue, ThreadLimit};
use crate::net::reactor::PollWaker;

/// One call of a function. No two calls are equal, so each attempt has a password of its own.
#[derive(Clone)]
struct PasswordCall(Arc<(PasswordProvider, PasswordRequest)>);

impl PartialEq for PasswordCall {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

static QUEUE: OffloadQueue<PasswordCall, Result<Secret, String>> = OffloadQueue::new(
    "notifyman-password",
    ThreadLimit { all: 4, group: 3, is_group: |one, other| one.0.0 == other.0.0 },
    |call| {
        let (provider, request) = &*call.0;
        // The panic hook has reported the text of a panic.
        catch_unwind(AssertUnwindSafe(|| provider.provide(request)))
            .unwrap_or_else(|_| Err("the function for it panicked".into()))
    },
    |error| Err(format!("could not start a thread: {error}")),
);

/// Starts to compute a password. The waker, if there is one, is called when it is known.
pub(crate) fn request_password(
    provider: PasswordProvider,
    request: PasswordRequest,
    waker: Option<PollWaker>,
) -> OffloadJob<Result<Secret, String>> {
    QUEUE.ask(PasswordCall(Arc::new((provider, request))), waker)
}
