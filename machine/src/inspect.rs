//! Looking into a state: rows spelt for people, and a check that all rows agree with each other.
//!
//! Nothing here is needed to apply entries. Tests and offline tools use it.

use crate::digest::Digest;
use crate::fault::{Fault, spell_key};
use crate::header::{self, Header};
use crate::{
    State, changesources, chunks, creators, groups, leases, masters, objects, queues, sessions,
    state, stm, table,
};

/// Spells a row, or without a value its removal, for people. The form is not fixed.
///
/// A fault if the row cannot be read.
pub fn describe(key: &[u8], value: Option<&[u8]>) -> Result<String, Fault> {
    if *key == header::KEY {
        return value.map_or(Ok("header removed".to_owned()), |value| {
            Header::decode(value).map(|header| format!("{header:?}"))
        });
    }
    table::describe(key, value)
        .or_else(|| sessions::describe(key, value))
        .or_else(|| state::describe(key, value))
        .or_else(|| creators::describe(key, value))
        .or_else(|| masters::describe(key, value))
        .or_else(|| leases::describe(key, value))
        .or_else(|| changesources::describe(key, value))
        .or_else(|| queues::describe(key, value))
        .or_else(|| groups::describe(key, value))
        .or_else(|| objects::describe(key, value))
        .or_else(|| stm::describe(key, value))
        .unwrap_or_else(|| Ok(format!("row {} of no known table", spell_key(key))))
}

impl State {
    /// Reads every row and says what does not hold of the invariants; nothing, if all is well.
    ///
    /// Takes time with the size of the state. A fault if a row cannot be read at all.
    pub fn audit(&self) -> Result<Vec<String>, Fault> {
        let (view, revision) = (self.view(), self.header().revision);
        let mut broken = Vec::new();
        let (mut digest, mut bytes) = (Digest::default(), 0);
        for (key, value) in self.rows() {
            describe(key, Some(value))?;
            digest.add(key, value);
            bytes += (key.len() + value.len()) as u64 + chunks::body_bytes(key, value)?;
        }
        if digest != self.header().digest || bytes != self.bytes() {
            broken.push(format!("{bytes} bytes of rows and bodies with digest {digest}"));
        }
        sessions::audit(view, &mut broken)?;
        state::audit(view, revision, &mut broken)?;
        creators::audit(view, revision, &mut broken)?;
        masters::audit(view, revision, &mut broken)?;
        changesources::audit(view, revision, &mut broken)?;
        objects::audit(view, revision, &mut broken)?;
        stm::audit(view, revision, &mut broken)?;
        Ok(broken)
    }
}
