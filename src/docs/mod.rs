//! Pages that describe the crate as a whole.
//!
//! For users: [`faults`], [`speed`] and [`keywords`].

#[doc = include_str!("faults.md")]
pub mod faults {}

#[doc = include_str!("keywords.md")]
pub mod keywords {}

#[doc = include_str!("speed.md")]
pub mod speed {}
