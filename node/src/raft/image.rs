//! A snapshot as consensus hands it about: a state, and where the bodies are that it names.
//!
//! The rows are shared with the state that they are taken from. Bodies stay where they are: in this
//! node's store, which keeps them for as long as the image lives, or, if the image came from another
//! node, in the state that is being built of it.

use std::io;
use std::sync::{Arc, Mutex};

use holdfast_machine::{State, objects};

use crate::store::{Building, Pin, StateStore};

/// See the head of this file; a clone costs nothing.
#[derive(Clone)]
pub(crate) struct Image {
    state: State,
    bodies: Bodies,
}

#[derive(Clone)]
enum Bodies {
    Kept {
        store: StateStore,
        /// Held, not looked at.
        _pin: Arc<Pin>,
    },
    /// None once it is installed.
    Arrived(Arc<Mutex<Option<Building>>>),
}

fn damaged(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snapshot: {what}"))
}

impl Image {
    /// Of a state of this node, whose bodies the pin keeps.
    pub(crate) fn kept(state: State, store: StateStore, pin: Pin) -> Image {
        Image { state, bodies: Bodies::Kept { store, _pin: Arc::new(pin) } }
    }

    /// Of a state from elsewhere. An error if not exactly those bodies have arrived that it names.
    pub(crate) fn arrived(state: State, building: Building) -> io::Result<Image> {
        let mut named = objects::chunks(&state).map(|chunk| chunk.map(|(hash, _)| hash.0));
        for arrived in building.bodies() {
            match named.next().transpose().map_err(damaged)? {
                Some(hash) if hash == *arrived => {}
                Some(_) | None => return Err(damaged("its bodies are not those that it names")),
            }
        }
        if named.next().is_some() {
            return Err(damaged("a body that it names has not arrived"));
        }
        drop(named);
        Ok(Image { state, bodies: Bodies::Arrived(Arc::new(Mutex::new(Some(building)))) })
    }

    /// The state.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Calls `each` with every body that the state names, in order of their hashes. Blocks for the disk.
    pub(crate) fn for_each_body<E: From<io::Error>>(
        &self,
        mut each: impl FnMut(Arc<[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Bodies::Kept { store, .. } = &self.bodies else {
            return Err(damaged("it is for one node, and to be installed there").into());
        };
        for chunk in objects::chunks(&self.state) {
            let (hash, _) = chunk.map_err(damaged)?;
            each(store.body(&hash.0)?)?;
        }
        Ok(())
    }

    /// The state, and one in the making that has its bodies. Blocks for the disk.
    pub(crate) fn into_building(self, own: &StateStore) -> io::Result<(State, Building)> {
        if let Bodies::Arrived(building) = &self.bodies {
            let mut building = building.lock().expect("no code panics while it holds this lock");
            let building = building.take().ok_or_else(|| damaged("it is installed already"))?;
            return Ok((self.state, building));
        }
        let mut building = own.build()?;
        self.for_each_body(|bytes| building.put_body(&bytes).map(drop))?;
        Ok((self.state, building))
    }
}
