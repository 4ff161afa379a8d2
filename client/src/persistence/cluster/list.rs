//! What objects there are, all as they were at one revision.

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
    /// All ids that pass a filter. A stream that breaks is begun anew, at another node if need be.
    pub(super) async fn list_all(&self, filter: &Filter) -> Result<Vec<Id>, Error> {
        if filter.class_name.as_deref() == Some("") {
            return Ok(Vec::new());
        }
        let began = Instant::now();
        let deadline = Deadline::after(self.inner.config.call_timeout);
        loop {
            let error = match self.collect(filter).await {
                Ok(ids) => return ids.into_iter().map(id_of).collect(),
                Err(error) => error,
            };
            if deadline.has_passed() || !is_worth_another(&error) {
                return Err(self.explain(began, error));
            }
        }
    }

    async fn collect(&self, filter: &Filter) -> Result<Vec<u64>, CallError> {
        let mut parts = self.open_list(filter, Detail::Ids).await?;
        let mut ids = Vec::new();
        while let Some(part) = parts.next().await? {
            ids.extend(part.objects.into_iter().map(|record| record.id));
        }
        Ok(ids)
    }

    pub(super) fn stream_ids(&self, filter: Filter) -> BoxStream<'_, Result<Id, Error>> {
        self.stream(filter, Detail::Ids, |record| id_of(record.id))
    }

    pub(super) fn stream_records(&self, filter: Filter) -> BoxStream<'_, Result<Listed, Error>> {
        self.stream(filter, Detail::Records, |record| {
            let proto::ObjectRecord { id, class_name, metadata, body_bytes, .. } = record;
            let metadata = own_metadata(metadata.into_iter().collect());
            Ok(Listed { id: id_of(id)?, class_name, metadata, body_bytes })
        })
    }

    /// One by one; what has been handed out cannot be taken back, so that a stream that breaks ends.
    fn stream<T: Send + 'static>(
        &self,
        filter: Filter,
        detail: Detail,
        read: fn(proto::ObjectRecord) -> Result<T, Error>,
    ) -> BoxStream<'_, Result<T, Error>> {
        // Nothing is of the class without a name, with which the cluster would list all.
        let is_empty = filter.class_name.as_deref() == Some("");
        let state = if is_empty { State::Ended } else { State::Unopened(filter) };
        stream::unfold(state, move |mut state| async move {
            let began = Instant::now();
            loop {
                let received = match &mut state {
                    State::Unopened(filter) => match self.open_list(filter, detail).await {
                        Ok(parts) => {
                            state =
                                State::Open { parts: Box::new(parts), records: VecDeque::new() };
                            continue;
                        }
                        Err(error) => Err(error),
                    },
                    State::Open { parts, records } => match records.pop_front() {
                        Some(record) => return Some((read(record), state)),
                        None => match parts.next().await {
                            Ok(part) => Ok(part.map(|part| records.extend(part.objects))),
                            Err(error) => Err(error),
                        },
                    },
                    State::Ended => Ok(None),
                };
                match received {
                    Ok(Some(())) => {}
                    Ok(None) => return None,
                    Err(error) => return Some((Err(self.explain(began, error)), State::Ended)),
                }
            }
        })
        .boxed()
    }

    async fn open_list(
        &self,
        filter: &Filter,
        detail: Detail,
    ) -> Result<Parts<Response>, CallError> {
        let request = proto::ListStoredObjectsRequest {
            read: None,
            namespace: self.namespace(),
            class_name: filter.class_name.clone().unwrap_or_default(),
            metadata: filter.metadata.clone().into_iter().collect(),
            after_id: 0,
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
enum State {
    Unopened(Filter),
    Open { parts: Box<Parts<Response>>, records: VecDeque<proto::ObjectRecord> },
    Ended,
}

fn id_of(number: u64) -> Result<Id, Error> {
    let damaged = |reason| Error::Damaged { what: "what a node sent".to_owned(), reason };
    Id::new(number).map_err(|bad| damaged(bad.to_string()))
}
