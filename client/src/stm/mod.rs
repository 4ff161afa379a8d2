//! Variables with versions, read and written by optimistic transactions.
//!
//! `key` the canonical encoding of keys, with `number` and `text` · `literal` keys as Python literals.

mod key;
mod literal;
mod number;
mod text;

pub use key::{KEY_BYTES_MAX, Key, KeyError, Part, Prefix};
pub use num_bigint::BigInt;
pub use text::Text;
