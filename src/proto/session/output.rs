//! The outputs of a session.

use crate::error::Error;
use crate::proto::request::{Reply, RequestId};

/// The transaction status that the server reported last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "PQtransactionStatus")]
#[doc(alias = "TxStatus")]
pub enum TransactionStatus {
    /// Outside a transaction: the server delivers notifications.
    Idle,
    /// In a transaction: the server delivers nothing until it ends.
    InTransaction,
    /// In a failed transaction, which must be rolled back.
    Failed,
}

/// An output of a session other than notifications.
#[derive(Debug)]
pub(crate) enum Output {
    /// The login is complete.
    Ready,
    /// A request was answered.
    Reply(RequestId, Result<Reply, Error>),
    /// The session has ended, with the reason. This is the last output, after the last notification was taken.
    Closed(Error),
}
