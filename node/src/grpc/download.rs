//! Stored objects on their way out: `Objects.LoadObjects` and `Objects.ListStoredObjects`.
//!
//! Both read one state, part by part; see [`super::feed`]. Bodies come from the disk, a chunk at a time,
//! and stay there for as long as the load holds its pin.

use std::sync::Arc;

use holdfast_machine::objects::{self, Filter, Found};
use holdfast_machine::{Hash, State};
use holdfast_proto::v1;
use holdfast_proto::v1::load_piece::Piece;
use tonic::Status;

use super::feed::{self, Ended, Feed, RESPONSE_BYTES};
use super::objects::to_wire;
use crate::node::Node;
use crate::runtime;
use crate::store::{Pin, StateStore};

/// A load on its way.
struct Load {
    feed: Feed<v1::LoadObjectsResponse>,
    header: v1::ResponseHeader,
    store: StateStore,
    /// What the next response has, and how many bytes it takes.
    pieces: Vec<v1::LoadPiece>,
    bytes: usize,
}

/// Streams objects as they are in this state, whose bodies the pin keeps.
pub(super) fn load(
    node: &Arc<Node>,
    (state, pin): (State, Pin),
    namespace: String,
    ids: Vec<u64>,
    with_bodies: bool,
) -> feed::Responses<v1::LoadObjectsResponse> {
    let store = node.store.clone();
    feed::stream(node, "load", |feed| async move {
        let header = feed.header_of(&state);
        let mut load = Load { feed, header, store, pieces: Vec::new(), bytes: 0 };
        for id in ids {
            match load.feed.read(objects::get(&state, &namespace, id)).await? {
                None => load.add(Piece::MissingId(id)).await?,
                Some(found) => load.object(&found, with_bodies).await?,
            }
        }
        load.send(true).await?;
        drop(pin);
        Ok(())
    })
}

impl Load {
    async fn object(&mut self, found: &Found, with_bodies: bool) -> Result<(), Ended> {
        self.add(Piece::Record(to_wire(found))).await?;
        if with_bodies {
            for hash in &found.chunks {
                let body = self.body(*hash).await?;
                self.add(Piece::Body(body)).await?;
            }
        }
        Ok(())
    }

    async fn body(&self, hash: Hash) -> Result<Vec<u8>, Ended> {
        let store = self.store.clone();
        let read = runtime::blocking(move || store.body(&hash.0).map(|bytes| bytes.to_vec())).await;
        match read {
            Ok(bytes) => Ok(bytes),
            // The store has failed, and the node stops for it.
            Err(error) => Err(self.feed.fail(Status::internal(error.to_string())).await),
        }
    }

    async fn add(&mut self, piece: Piece) -> Result<(), Ended> {
        let piece = v1::LoadPiece { piece: Some(piece) };
        self.bytes += prost::Message::encoded_len(&piece);
        self.pieces.push(piece);
        if self.bytes >= RESPONSE_BYTES { self.send(false).await } else { Ok(()) }
    }

    async fn send(&mut self, is_last: bool) -> Result<(), Ended> {
        let (header, pieces) = (Some(self.header.clone()), std::mem::take(&mut self.pieces));
        self.bytes = 0;
        self.feed.send(v1::LoadObjectsResponse { header, pieces, is_last }).await
    }
}

/// What is to be listed.
pub(super) struct Listing {
    pub(super) namespace: String,
    pub(super) filter: Filter,
    pub(super) after: u64,
    pub(super) only_ids: bool,
}

/// Streams the objects that pass as they are in this state.
pub(super) fn list(
    node: &Arc<Node>,
    state: State,
    listing: Listing,
) -> feed::Responses<v1::ListStoredObjectsResponse> {
    feed::stream(node, "listing", |feed| async move {
        let Listing { namespace, filter, mut after, only_ids } = listing;
        let header = feed.header_of(&state);
        let search = Arc::new((state, namespace, filter));
        let (mut objects, mut bytes) = (Vec::new(), 0);
        loop {
            // Those that do not pass are looked at as well, which takes its time.
            let of_page = Arc::clone(&search);
            let page = runtime::blocking(move || {
                let (state, namespace, filter) = &*of_page;
                objects::list(state, namespace, after, filter)
            });
            let page = feed.read(page.await).await?;
            for found in page.objects {
                let record = match only_ids {
                    true => v1::ObjectRecord { id: found.record.id, ..Default::default() },
                    false => to_wire(&found),
                };
                bytes += prost::Message::encoded_len(&record);
                objects.push(record);
                if bytes >= RESPONSE_BYTES {
                    let (header, objects) = (Some(header.clone()), std::mem::take(&mut objects));
                    bytes = 0;
                    let response =
                        v1::ListStoredObjectsResponse { header, objects, is_last: false };
                    feed.send(response).await?;
                }
            }
            match page.more_behind {
                Some(last) => after = last,
                None => break,
            }
        }
        let response =
            v1::ListStoredObjectsResponse { header: Some(header), objects, is_last: true };
        feed.send(response).await
    })
}
