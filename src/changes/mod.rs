//! Table changes
mod event;
mod glob;
mod installer;
mod options;
mod queue;
mod reader;
mod server;
mod sql;
mod status;
mod stream;

pub use self::event::{Change, Method, SchemaChange, SchemaEvent, Truncated};
pub use self::installer::{Installer, Progress, Report};
pub use self::options::{Delivery, Oversize, Shape};
pub use self::status::{Status, Table};
pub use self::stream::{Changes, News, Stop, Worker};
