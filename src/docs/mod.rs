//! Pages that describe the crate as a whole.
//!
//! For users: [`caching`], [`recipes`], [`relay`], [`migrating`], [`faults`], [`metrics`], [`speed`], [`keywords`] and
//! [`behaviour`]. For maintainers: [`design`] and [`maintaining`].

#[doc = include_str!("behaviour.md")]
pub mod behaviour {}

#[doc(alias("moka", "quick_cache", "cache-aside"))]
#[doc = include_str!("caching.md")]
pub mod caching {}

#[doc = include_str!("design.md")]
pub mod design {}

#[doc = include_str!("faults.md")]
pub mod faults {}

#[doc = include_str!("keywords.md")]
pub mod keywords {}

#[doc = include_str!("maintaining.md")]
pub mod maintaining {}

#[doc = include_str!("metrics.md")]
pub mod metrics {}

#[cfg_attr(feature = "changes", doc = include_str!("migrating.md"))]
#[cfg_attr(not(feature = "changes"), doc = "Build the documentation with all features to see this page.")]
pub mod migrating {}

#[doc = include_str!("recipes.md")]
pub mod recipes {}

#[doc(alias("redis", "valkey", "stream"))]
#[cfg_attr(feature = "relay", doc = include_str!("relay.md"))]
#[cfg_attr(not(feature = "relay"), doc = "Build the documentation with all features to see this page.")]
pub mod relay {}

#[doc = include_str!("speed.md")]
pub mod speed {}
