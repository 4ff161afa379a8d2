//! What objects there are, all as they were at one revision.
//!
//! # Invariants
//! - All that one listing hands out is of one revision, whatever becomes of the nodes that it comes from.
//! - The cluster reads no revision but its newest. A listing that broke off after some of it was handed out is
//!   therefore gone on with if nothing has been written meanwhile, which is seen by the revision, and else ends.

use std::collections::VecDeque;

use futures::stream::{self, BoxStream, StreamExt as _};
use holdfast_proto::v1 as proto;
use tokio::time::Instant;

use super::ClusterStore;
use super::load::is_worth_another;
use crate::deadline::Deadline;
use crate::error::Error as CallError;
use crate::persistence::error::Error;
use crate::persistence::id::Id;
use crate::persistence::record::own_metadata;
use crate::persistence::store::{Filter, Listed};
use crate::stream::Parts;

type Response = proto::ListStoredObjectsResponse;

impl ClusterStore {
    pub(super) async fn list_ids(&self, filter: &Filter) -> Result<Vec<Id>, Error> {
        self.list_all(filter, Detail::Ids, id_of).await
    }

    /// As [`Store::list`](crate::persistence::Store::list), with what is known of each object.
    ///
    /// # Errors
    /// As of that.
    pub async fn list_records(&self, filter: &Filter) -> Result<Vec<Listed>, Error> {
        self.list_all(filter, Detail::Records, listed_of).await
    }

    pub(super) fn stream_ids(&self, filter: Filter) -> BoxStream<'_, Result<Id, Error>> {
        self.stream(filter, Detail::Ids, id_of)
    }

    pub(super) fn stream_records(&self, filter: Filter) -> BoxStream<'_, Result<Listed, Error>> {
        self.stream(filter, Detail::Records, listed_of)
    }

    /// All that pass a filter. A stream that breaks is begun anew, at another node if need be.
    async fn list_all<T>(
        &self,
        filter: &Filter,
        detail: Detail,
        read: fn(proto::ObjectRecord) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        if filter.class_name.as_deref() == Some("") {
            return Ok(Vec::new());
        }
        let began = Instant::now();
        let deadline = Deadline::after(self.inner.config.call_timeout);
        loop {
            let error = match self.collect(filter, detail).await {
                Ok(records) => return records.into_iter().map(read).collect(),
                Err(error) => error,
            };
            if deadline.has_passed() || !is_worth_another(&error) {
                return Err(self.explain(began, error));
            }
        }
    }

    async fn collect(
        &self,
        filter: &Filter,
        detail: Detail,
    ) -> Result<Vec<proto::ObjectRecord>, CallError> {
        let mut parts = self.open_list(filter, detail, 0).await?;
        let mut records = Vec::new();
        while let Some(part) = parts.next().await? {
            records.extend(part.objects);
        }
        Ok(records)
    }

    /// One by one, as [`ClusterStore::next`] finds them.
    fn stream<T: Send + 'static>(
        &self,
        filter: Filter,
        detail: Detail,
        read: fn(proto::ObjectRecord) -> Result<T, Error>,
    ) -> BoxStream<'_, Result<T, Error>> {
        // Nothing is of the class without a name, with which the cluster would list all.
        let is_empty = filter.class_name.as_deref() == Some("");
        let listing = (!is_empty).then(|| Listing::new(filter, detail));
        stream::unfold(listing, move |listing| async move {
            let mut listing = listing?;
            match self.next(&mut listing).await {
                Ok(Some(record)) => Some((read(record), Some(listing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    /// The next one. A stream that breaks is opened anew, at another node if need be, behind what has been
    /// handed out; what has been cannot be taken back, so that the listing then goes on only at its revision.
    async fn next(&self, listing: &mut Listing) -> Result<Option<proto::ObjectRecord>, Error> {
        let began = Instant::now();
        let deadline = Deadline::after(self.inner.config.call_timeout);
        loop {
            if let Some(record) = listing.hand_out() {
                return Ok(Some(record));
            }
            let error = match &mut listing.source {
                Source::Open(parts) => match parts.next().await {
                    Ok(Some(part)) => {
                        listing.records.extend(part.objects);
                        continue;
                    }
                    Ok(None) => return Ok(None),
                    Err(error) => error,
                },
                Source::Unopened | Source::Broken(_) => {
                    let Listing { filter, detail, last_id, .. } = &*listing;
                    match self.open_list(filter, *detail, *last_id).await {
                        Ok(parts) => {
                            self.go_on(listing, parts)?;
                            continue;
                        }
                        Err(error) => error,
                    }
                }
            };
            if deadline.has_passed() || !is_worth_another(&error) {
                return Err(self.explain(began, error));
            }
            listing.source = Source::Broken(Box::new(error));
        }
    }

    /// Takes in a stream that begins behind what was handed out, unless that is of another revision.
    fn go_on(&self, listing: &mut Listing, parts: Parts<Response>) -> Result<(), Error> {
        let (revision, parts) = (parts.header().revision, Source::Open(Box::new(parts)));
        let before = std::mem::replace(&mut listing.source, parts);
        if let Source::Broken(source) = before
            && listing.handed_out > 0
            && revision != listing.revision
        {
            let (store, handed_out) = (self.inner.name.clone(), listing.handed_out);
            return Err(Error::BrokenOff { store, handed_out, source });
        }
        listing.revision = revision;
        Ok(())
    }

    async fn open_list(
        &self,
        filter: &Filter,
        detail: Detail,
        after_id: u64,
    ) -> Result<Parts<Response>, CallError> {
        let request = proto::ListStoredObjectsRequest {
            read: None,
            namespace: self.namespace(),
            class_name: filter.class_name.clone().unwrap_or_default(),
            metadata: filter.metadata.clone().into_iter().collect(),
            after_id,
            only_ids: matches!(detail, Detail::Ids),
        };
        let opened = self.session().client.read(request).await?;
        Ok(Parts::new("the list", opened))
    }
}

/// What is asked for of each object.
#[derive(Debug, Clone, Copy)]
enum Detail {
    Ids,
    Records,
}

/// A listing on its way.
struct Listing {
    filter: Filter,
    detail: Detail,
    source: Source,
    /// What has come and was not handed out.
    records: VecDeque<proto::ObjectRecord>,
    /// Of all that was handed out.
    revision: u64,
    /// How many were handed out, and the last of them; 0 as long as none was.
    handed_out: u64,
    last_id: u64,
}

/// Where a listing comes from.
enum Source {
    Unopened,
    Open(Box<Parts<Response>>),
    Broken(Box<CallError>),
}

impl Listing {
    fn new(filter: Filter, detail: Detail) -> Listing {
        let (source, records) = (Source::Unopened, VecDeque::new());
        Listing { filter, detail, source, records, revision: 0, handed_out: 0, last_id: 0 }
    }

    fn hand_out(&mut self) -> Option<proto::ObjectRecord> {
        let record = self.records.pop_front()?;
        self.handed_out += 1;
        self.last_id = record.id;
        Some(record)
    }
}

fn listed_of(record: proto::ObjectRecord) -> Result<Listed, Error> {
    let proto::ObjectRecord { id, class_name, metadata, body_bytes, .. } = record;
    let (id, metadata) = (checked(id)?, own_metadata(metadata.into_iter().collect()));
    Ok(Listed { id, class_name, metadata, body_bytes })
}

fn id_of(record: proto::ObjectRecord) -> Result<Id, Error> {
    checked(record.id)
}

fn checked(id: u64) -> Result<Id, Error> {
    let damaged = |reason| Error::Damaged { what: "what a node sent".to_owned(), reason };
    Id::new(id).map_err(|bad| damaged(bad.to_string()))
}
