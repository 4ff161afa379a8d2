//! The way in: ids, and then one request, or an upload where that would be too large.

use holdfast_proto::v1 as proto;
use tokio::time::Instant;

use super::upload::{self, Halt};
use super::{ClusterStore, Session};
use crate::persistence::error::Error;
use crate::persistence::family::Family;
use crate::persistence::id::Id;
use crate::persistence::persistable::Persistable;
use crate::persistence::record::Record;

/// Most objects of one request.
pub(super) const OBJECTS_MAX: usize = 1024;
/// Most bytes of bodies, classes and metadata of one request (1 MiB).
pub(super) const BYTES_MAX: usize = 1 << 20;
/// How many ids are leased at a time, if no more are needed: a save in 256 pays for them.
const BLOCK: usize = 256;
/// Most ids that one lease gives.
const LEASE_MAX: usize = 65_536;
/// How often an upload is begun anew that lapsed while the cluster could not be reached.
const UPLOADS_MAX: u32 = 3;

impl ClusterStore {
    /// Saves an object and all that it refers to, the root under this id if it is given.
    pub(super) async fn put(
        &self,
        root: Option<Id>,
        object: &dyn Persistable,
    ) -> Result<Id, Error> {
        let family = Family::of(object)?;
        let session = self.session();
        let fresh = self.fresh(&session, family.unnamed(root)).await?;
        let records = family.name(root, fresh)?;
        let id = records.last().expect("the root is last").0;
        let bytes: usize = records.iter().map(|(_, record)| request_bytes(record)).sum();
        if records.len() <= OBJECTS_MAX && bytes <= BYTES_MAX {
            self.save_small(&session, records).await?;
        } else {
            self.save_large(&session, &records).await?;
        }
        Ok(id)
    }

    /// So many ids that nobody has had.
    async fn fresh(&self, session: &Session, count: usize) -> Result<Vec<Id>, Error> {
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let wanted = (count - ids.len()).min(LEASE_MAX);
            if let Some(taken) = session.blocks().take(wanted) {
                ids.extend(taken);
                continue;
            }
            let request = proto::LeaseIdsRequest {
                context: None,
                namespace: self.namespace(),
                count: u32::try_from(wanted.max(BLOCK)).expect("no more than a lease gives"),
            };
            let began = Instant::now();
            let leased = session.prepare(request).await;
            let leased = leased.map_err(|error| self.explain(began, error))?;
            let end = leased.first_id.saturating_add(u64::from(leased.count));
            ids.extend(session.blocks().take_of(leased.first_id..end, wanted));
        }
        Ok(ids)
    }

    async fn save_small(&self, session: &Session, records: Vec<(Id, Record)>) -> Result<(), Error> {
        let objects = records.into_iter().map(|(id, record)| {
            let Record { class_name, metadata, body } = record;
            let record = proto::ObjectRecord {
                id: id.get(),
                class_name,
                metadata: metadata.into_iter().collect(),
                ..Default::default()
            };
            proto::SmallObject { record: Some(record), body }
        });
        let request = proto::SaveObjectsRequest {
            context: None,
            namespace: self.namespace(),
            objects: objects.collect(),
        };
        let began = Instant::now();
        let saved = session.write(request).await;
        saved.map(drop).map_err(|error| self.explain(began, error))
    }

    async fn save_large(&self, session: &Session, records: &[(Id, Record)]) -> Result<(), Error> {
        let began = Instant::now();
        self.inner.progress.expect(records.iter().map(|(_, record)| record.body.len()).sum());
        let mut begun = 1;
        loop {
            match upload::run(session, &self.namespace(), records, &self.inner.progress).await {
                Ok(()) => return Ok(()),
                // Nothing of it is there, and nothing will be.
                Err(Halt::Lapsed(_)) if begun < UPLOADS_MAX => begun += 1,
                Err(Halt::Lapsed(error) | Halt::Failed(error)) => {
                    return Err(self.explain(began, error));
                }
            }
        }
    }
}

/// What an object adds to a request, as the cluster counts it.
pub(super) fn request_bytes(record: &Record) -> usize {
    let Record { class_name, metadata, body } = record;
    let metadata: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    class_name.len() + metadata + body.len()
}
