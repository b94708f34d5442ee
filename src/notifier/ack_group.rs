//! One ticket for several acknowledgements.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::manager::{Resolver, ThreadMark, Ticket};

/// Resolves a ticket once everything is acknowledged, or with the first failure.
pub(crate) struct AckGroup(Mutex<AckGroupState>);

struct AckGroupState {
    missing: usize,
    resolver: Option<Resolver<()>>,
}

impl AckGroup {
    /// It waits for one thing at first: for [`complete`](Self::complete) to be called when all others have been named.
    pub(crate) fn new(crew: &Arc<ThreadMark>) -> (Arc<Self>, Ticket<()>) {
        let (resolver, ticket) = Ticket::new(crew);
        (Arc::new(Self(Mutex::new(AckGroupState { missing: 1, resolver: Some(resolver) }))), ticket)
    }

    /// It waits for one thing more.
    pub(crate) fn add(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).missing += 1;
    }

    /// One thing has come about, or failed.
    pub(crate) fn complete(&self, result: Result<(), Error>) {
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
