//! Tests of the rules C01 to C19 for one connection. Each name begins with the rule that the test proves.

mod arriving;
mod connecting;
mod encodings;
mod ending;
mod final_error;
mod forged_logins;
mod hostile;
mod hosts;
mod listening;
mod login;
mod many;
mod names;
mod notifying;
mod passwords;
mod predecessor;
mod preparing;
mod refusals;
mod ticket;
mod timeouts;
mod transactions;
mod waiting;
