//! Consensus: the only place that knows openraft's traits.

pub(crate) mod codec;
pub(crate) mod convert;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod log;
pub(crate) mod machine;
#[cfg(not(feature = "sim"))]
pub(crate) mod network;
#[cfg(feature = "sim")]
#[path = "simulated_network.rs"]
pub(crate) mod network;
pub(crate) mod peer;
#[cfg(all(test, not(feature = "sim")))]
mod suite;
pub(crate) mod transfers;
pub(crate) mod types;
