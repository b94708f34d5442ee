//! A connection as the layers above drive it.

use std::fmt::Debug;

use crate::connection::link::Link;
use crate::net::Transport;

/// A connection as the layers above drive it: a link, in whatever form its user sees it.
pub(crate) trait Linked: From<Link<Self::Stream>> + Debug {
    type Stream: Transport;

    fn link(&self) -> &Link<Self::Stream>;

    fn link_mut(&mut self) -> &mut Link<Self::Stream>;
}
