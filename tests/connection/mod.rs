//! One connection: the rules C01 to C16, each proven by the tests whose names begin with its number.

mod arriving;
mod cheats;
mod connecting;
mod encodings;
mod ending;
mod final_error;
mod hostile;
mod hosts;
mod listening;
mod login;
mod many;
mod names;
mod notifying;
mod predecessor;
mod refusals;
mod timeouts;
mod transactions;
mod waiting;
