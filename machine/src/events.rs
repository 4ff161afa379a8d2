//! What changes mean to those who watch.
//!
//! # Model
//!
//! An event says what something is from a revision on. It is read from the changed row alone, so every node
//! makes the same events of the same entries, whenever it looks. Most rows are bookkeeping and no event:
//! sessions, indexes, counters, deadlines.
//!
//! # Invariants
//!
//! - The events of one revision are those of its changed rows, in the order of their keys; each thing comes
//!   at most once.
//! - A lease that has lapsed still shows in earlier events; that it is over is an event of the step that
//!   clears it away.

use crate::fault::Fault;
use crate::machine::Change;
use crate::{changesources, creators, masters, objects, state, stm};

/// What a change is, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something of the connector `state`.
    State(state::Event),
    /// A master.
    Master(masters::Event),
    /// A change source.
    ChangeSource(changesources::Event),
    /// A stored object.
    StoredObject(objects::Event),
    /// A variable.
    Variable(stm::Event),
}

impl Event {
    /// The namespace it is in.
    pub fn namespace(&self) -> &str {
        match self {
            Event::State(event) => event.namespace(),
            Event::Master(event) => &event.namespace,
            Event::ChangeSource(event) => &event.namespace,
            Event::StoredObject(event) => event.namespace(),
            Event::Variable(event) => &event.namespace,
        }
    }
}

impl Change {
    /// Whether it is an event, without reading the row.
    pub fn is_event(&self) -> bool {
        state::is_event(&self.key)
            || creators::is_event(&self.key)
            || masters::is_event(&self.key)
            || changesources::is_event(&self.key)
            || objects::is_event(&self.key)
            || stm::is_event(&self.key)
    }

    /// The event that it is; None for bookkeeping.
    pub fn event(&self) -> Result<Option<Event>, Fault> {
        let (key, value) = (&self.key, self.value.as_deref());
        state::event(key, value)
            .or_else(|| creators::event(key, value))
            .map(|event| event.map(Event::State))
            .or_else(|| masters::event(key, value).map(|event| event.map(Event::Master)))
            .or_else(|| {
                changesources::event(key, value).map(|event| event.map(Event::ChangeSource))
            })
            .or_else(|| objects::event(key, value).map(|event| event.map(Event::StoredObject)))
            .or_else(|| stm::event(key, value).map(|event| event.map(Event::Variable)))
            .transpose()
    }
}
