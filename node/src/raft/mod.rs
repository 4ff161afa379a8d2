//! Consensus: the only place that knows openraft's traits.

pub(crate) mod codec;
pub(crate) mod convert;
pub(crate) mod history;
pub(crate) mod log;
pub(crate) mod machine;
pub(crate) mod network;
#[cfg(test)]
mod suite;
pub(crate) mod types;
