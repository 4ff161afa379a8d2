//! The service `Objects`.

use std::collections::BTreeMap;

use holdfast_machine::objects::{
    self, Body, Command, Filter, Record, Reply as Done, Small, Staged,
};
use holdfast_machine::{Command as Any, Field, Hash, Refusal, Reply, State, limits};
use holdfast_proto::v1;
use holdfast_proto::v1::objects_server::Objects as Service;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::feed;
use super::upload::Answers;
use super::{Answered, Calls, download, foreign, namespace};
use crate::store::Pin;

/// Ids in one load at most.
const IDS_PER_LOAD_MAX: u64 = 65_536;

fn missing(field: &str) -> String {
    format!("objects: one of them has no {field}")
}

/// Refuses what a request may not have so many of.
fn at_most(field: Field, actual: usize, max: u64) -> Result<(), Refusal> {
    let actual = actual as u64;
    match actual > max {
        true => Err(Refusal::OutOfBounds { field, actual, min: 0, max }),
        false => Ok(()),
    }
}

fn record(record: Option<v1::ObjectRecord>) -> Result<Record, String> {
    let v1::ObjectRecord { id, class_name, metadata, .. } =
        record.ok_or_else(|| missing("record"))?;
    Ok(Record { id, class_name, metadata: metadata.into_iter().collect() })
}

fn small(object: v1::SmallObject) -> Result<Small, String> {
    Ok(Small { record: record(object.record)?, body: object.body.into() })
}

/// An object to be staged.
pub(super) fn staged(object: v1::StagedObject) -> Result<Staged, String> {
    let v1::StagedObject { record: of, body, chunks } = object;
    if !body.is_empty() && !chunks.is_empty() {
        return Err("objects: one of them has both a body and chunks".to_owned());
    }
    let hash = |bytes: Vec<u8>| {
        let length = bytes.len();
        let hash = <[u8; 32]>::try_from(bytes);
        hash.map(Hash).map_err(|_| format!("chunks: a hash has {length} bytes, and always 32"))
    };
    let body = match chunks.is_empty() {
        true => Body::Inline(body.into()),
        false => Body::Chunks(chunks.into_iter().map(hash).collect::<Result<_, _>>()?),
    };
    Ok(Staged { record: record(of)?, body })
}

/// An object as it is shown.
pub(super) fn to_wire(found: &objects::Found) -> v1::ObjectRecord {
    let Record { id, class_name, metadata } = found.record.clone();
    v1::ObjectRecord {
        id,
        class_name,
        metadata: metadata.into_iter().collect(),
        body_bytes: found.body_bytes,
        mod_revision: found.mod_revision,
    }
}

impl Calls {
    /// Carries out a command, and takes from the reply what it should say.
    async fn objects<T>(
        &self,
        metadata: &MetadataMap,
        context: Option<v1::WriteContext>,
        command: Command,
        what: impl FnOnce(&Done) -> Option<T>,
    ) -> Result<(T, v1::ResponseHeader), Status> {
        let Answered { reply, header } =
            self.write(metadata, context, Any::Objects(command)).await?;
        let said = if let Reply::Objects(reply) = &reply { what(reply) } else { None };
        Ok((said.ok_or_else(|| foreign(&reply))?, header))
    }

    /// The state that a read may see, and what keeps its bodies: it may be a newer one.
    async fn read_pinned(
        &self,
        metadata: &MetadataMap,
        options: Option<v1::ReadOptions>,
    ) -> Result<(State, Pin), Status> {
        self.read(metadata, options).await?;
        Ok(self.0.applied.pinned())
    }

    /// Refuses a read before it begins.
    fn allowed(&self, checked: Result<(), Refusal>) -> Result<(), Status> {
        let revision = || self.0.applied.state().header().revision;
        checked.map_err(|refusal| self.0.refused(&refusal, revision()))
    }
}

/// What a reply says that has nothing to say but that it was done.
fn saved(reply: &Done) -> Option<()> {
    matches!(reply, Done::Saved { .. }).then_some(())
}

#[tonic::async_trait]
impl Service for Calls {
    type UploadStream = Answers;
    type LoadObjectsStream = feed::Responses<v1::LoadObjectsResponse>;
    type ListStoredObjectsStream = feed::Responses<v1::ListStoredObjectsResponse>;

    async fn lease_ids(
        &self,
        request: Request<v1::LeaseIdsRequest>,
    ) -> Result<Response<v1::LeaseIdsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (namespace, count) = (namespace(request.namespace), request.count);
        let command = Command::LeaseIds { namespace, count: count.into() };
        let leased =
            |reply: &Done| if let Done::Leased { first } = reply { Some(*first) } else { None };
        let (first_id, header) = self.objects(&metadata, request.context, command, leased).await?;
        Ok(Response::new(v1::LeaseIdsResponse { header: Some(header), first_id, count }))
    }

    async fn save_objects(
        &self,
        request: Request<v1::SaveObjectsRequest>,
    ) -> Result<Response<v1::SaveObjectsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let objects = request.objects.into_iter().map(small).collect::<Result<_, _>>();
        let objects = objects.map_err(|message| self.0.bad_request(message))?;
        let command = Command::Save { namespace: namespace(request.namespace), objects };
        let ((), header) = self.objects(&metadata, request.context, command, saved).await?;
        Ok(Response::new(v1::SaveObjectsResponse { header: Some(header) }))
    }

    async fn open_upload(
        &self,
        request: Request<v1::OpenUploadRequest>,
    ) -> Result<Response<v1::OpenUploadResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let idle_ms = match request.idle_ms {
            0 => limits::UPLOAD_IDLE_MS_DEFAULT,
            idle_ms => idle_ms,
        };
        let command = Command::OpenUpload { namespace: namespace(request.namespace), idle_ms };
        let opened =
            |reply: &Done| if let Done::Opened { upload } = reply { Some(*upload) } else { None };
        let (upload_id, header) = self.objects(&metadata, request.context, command, opened).await?;
        Ok(Response::new(v1::OpenUploadResponse { header: Some(header), upload_id }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<v1::UploadRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (metadata, _, messages) = request.into_parts();
        Ok(Response::new(self.take_upload(metadata, messages)))
    }

    async fn commit_upload(
        &self,
        request: Request<v1::CommitUploadRequest>,
    ) -> Result<Response<v1::CommitUploadResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (upload, objects) = (request.upload_id, request.objects);
        let namespace = namespace(request.namespace);
        let command = Command::CommitUpload { namespace, upload, objects };
        let ((), header) = self.objects(&metadata, request.context, command, saved).await?;
        Ok(Response::new(v1::CommitUploadResponse { header: Some(header) }))
    }

    async fn abandon_upload(
        &self,
        request: Request<v1::AbandonUploadRequest>,
    ) -> Result<Response<v1::AbandonUploadResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (namespace, upload) = (namespace(request.namespace), request.upload_id);
        let command = Command::AbandonUpload { namespace, upload };
        let ended =
            |reply: &Done| if let Done::Abandoned(ended) = reply { Some(*ended) } else { None };
        let (abandoned, header) = self.objects(&metadata, request.context, command, ended).await?;
        Ok(Response::new(v1::AbandonUploadResponse { header: Some(header), abandoned }))
    }

    async fn load_objects(
        &self,
        request: Request<v1::LoadObjectsRequest>,
    ) -> Result<Response<Self::LoadObjectsStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.allowed(at_most(Field::Ids, request.ids.len(), IDS_PER_LOAD_MAX))?;
        let read = self.read_pinned(&metadata, request.read).await?;
        let (namespace, ids) = (namespace(request.namespace), request.ids);
        let with_bodies = !request.only_records;
        Ok(Response::new(download::load(&self.0, read, namespace, ids, with_bodies)))
    }

    async fn remove_objects(
        &self,
        request: Request<v1::RemoveObjectsRequest>,
    ) -> Result<Response<v1::RemoveObjectsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let command = Command::Remove { namespace: namespace(request.namespace), ids: request.ids };
        let counted = |reply: &Done| match reply {
            Done::Removed(removed) => u32::try_from(*removed).ok(),
            Done::Leased { .. }
            | Done::Saved { .. }
            | Done::Opened { .. }
            | Done::Staged
            | Done::Abandoned(_) => None,
        };
        let (removed, header) = self.objects(&metadata, request.context, command, counted).await?;
        Ok(Response::new(v1::RemoveObjectsResponse { header: Some(header), removed }))
    }

    async fn list_stored_objects(
        &self,
        request: Request<v1::ListStoredObjectsRequest>,
    ) -> Result<Response<Self::ListStoredObjectsStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let entries = request.metadata.len();
        self.allowed(at_most(Field::MetadataEntries, entries, limits::METADATA_ENTRIES_MAX))?;
        let state = self.read(&metadata, request.read).await?;
        let class_name = Some(request.class_name).filter(|name| !name.is_empty());
        let asked = request.metadata.into_iter().collect::<BTreeMap<_, _>>();
        let filter = Filter { class_name, metadata: asked };
        let listing = download::Listing {
            namespace: namespace(request.namespace),
            filter,
            after: request.after_id,
            only_ids: request.only_ids,
        };
        Ok(Response::new(download::list(&self.0, state, listing)))
    }
}
