//! One ticket for several acknowledgements.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::manager::{Resolver, ThreadMark, Ticket};

/// Resolves a ticket once everything is acknowledged, or with the first failure.
pub(crate) struct Promise(Mutex<State>);

struct State {
    missing: usize,
    resolver: Option<Resolver<()>>,
}

impl Promise {
    /// It waits for one thing at first: for [`kept`](Self::kept) to be called when all others have been named.
    pub(crate) fn new(crew: &Arc<ThreadMark>) -> (Arc<Self>, Ticket<()>) {
        let (resolver, ticket) = Ticket::new(crew);
        (Arc::new(Self(Mutex::new(State { missing: 1, resolver: Some(resolver) }))), ticket)
    }

    /// It waits for one thing more.
    pub(crate) fn wait_for_one(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).missing += 1;
    }

    /// One thing has come about, or failed.
    pub(crate) fn kept(&self, result: Result<(), Error>) {
        let resolver = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.missing = state.missing.saturating_sub(1);
            let over = state.missing == 0 || result.is_err();
            state.resolver.take_if(|_| over)
        };
        // Whoever is woken by it finds nothing locked.
        if let Some(resolver) = resolver {
            resolver.resolve(result);
        }
    }
}
