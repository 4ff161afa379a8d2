//! Objects as a cluster keeps them, in memory, behind the generated service, and with faults on command.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::{Stream, StreamExt as _};
use holdfast_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::fake::{self, CLUSTER};

const FIRST_ID: u64 = 1_000_000_000_000_000;
/// Records and bytes in one response of a listing or a load; small, so that there are many.
const PART: usize = 1000;
const PART_BYTES: usize = 256 << 10;

/// What every node of a cluster of such shelves has: clones are the same objects.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) revision: u64,
    leased: u64,
    objects: BTreeMap<(String, u64), Kept>,
    uploads: BTreeMap<u64, Upload>,
    /// The numbers of the messages that each stream of an upload brought.
    pub(crate) streams: Vec<Vec<u64>>,
    /// How many loads there were.
    pub(crate) loads: usize,
    pub(crate) opened: u64,
    pub(crate) abandoned: u64,
    /// Streams of uploads break behind so many answers, with a further message staged and not answered.
    pub(crate) break_after: Option<usize>,
    /// Uploads that are opened from now on are over after so many messages; how many of them.
    pub(crate) lapse: u32,
    /// What the next message of an upload is refused with.
    pub(crate) refuse: Option<(Code, &'static str)>,
    /// So many loads break behind their first part.
    pub(crate) broken_loads: u32,
    /// Listings break behind so many parts, one after the other; those behind them are whole.
    pub(crate) broken_listings: VecDeque<usize>,
    /// Behind which id each listing began.
    pub(crate) listed_after: Vec<u64>,
    /// Leases of ids and small saves are not answered.
    pub(crate) is_deaf: bool,
    /// Each load makes all objects anew before it reads any but the first one asked for.
    pub(crate) is_restless: bool,
}

#[derive(Clone)]
struct Kept {
    record: v1::ObjectRecord,
    body: Vec<u8>,
}

#[derive(Default)]
struct Upload {
    chunks: BTreeMap<Vec<u8>, Vec<u8>>,
    staged: BTreeMap<u64, Kept>,
    /// It is over after so many messages.
    lives: Option<u32>,
}

type Responses<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

impl Shelf {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Never returns while nobody listens.
    async fn listen(&self) {
        if self.lock().is_deaf {
            std::future::pending::<()>().await;
        }
    }
}

impl State {
    fn header(&self) -> v1::ResponseHeader {
        v1::ResponseHeader {
            cluster_id: CLUSTER.to_owned(),
            node_id: 1,
            revision: self.revision.max(1),
            term: 1,
            ..Default::default()
        }
    }

    fn refused(&self, code: Code, reason: &str) -> Status {
        fake::status(&self.header(), code, reason, "no")
    }

    fn unknown_upload(&self) -> Status {
        self.refused(Code::NotFound, "UNKNOWN_UPLOAD")
    }

    fn check_ids<'a>(&self, mut all: impl Iterator<Item = &'a Kept>) -> Result<(), Status> {
        let next = FIRST_ID + self.leased;
        match all.find(|kept| kept.record.id >= next) {
            Some(kept) => {
                let header = self.header();
                let id = kept.record.id.to_string();
                Err(fake::status_with(
                    &header,
                    Code::InvalidArgument,
                    "UNISSUED_ID",
                    &[("object_id", &id)],
                ))
            }
            None => Ok(()),
        }
    }

    fn keep(&mut self, namespace: &str, all: impl Iterator<Item = Kept>) {
        self.revision += 1;
        for mut kept in all {
            kept.record.mod_revision = self.revision;
            kept.record.body_bytes = kept.body.len() as u64;
            self.objects.insert((namespace.to_owned(), kept.record.id), kept);
        }
    }

    /// What one message of an upload stages.
    fn stage(&mut self, request: v1::UploadRequest) -> Result<(), Status> {
        use v1::upload_request::Staged;
        if let Some((code, reason)) = self.refuse {
            return Err(self.refused(code, reason));
        }
        let unknown = self.unknown_upload();
        let missing = self.refused(Code::FailedPrecondition, "MISSING_CHUNK");
        let upload = self.uploads.get_mut(&request.upload_id).ok_or(unknown.clone())?;
        if let Some(lives) = &mut upload.lives {
            if *lives == 0 {
                self.uploads.remove(&request.upload_id);
                return Err(unknown);
            }
            *lives -= 1;
        }
        match request.staged.unwrap() {
            Staged::Chunk(bytes) => {
                assert!(bytes.len() <= 512 << 10, "a chunk has {} bytes", bytes.len());
                let hash = blake3::hash(&bytes).as_bytes().to_vec();
                upload.chunks.insert(hash, bytes);
            }
            Staged::Objects(staged) => {
                assert!(staged.objects.len() <= 1024, "{} objects", staged.objects.len());
                for object in staged.objects {
                    let mut body = object.body;
                    for chunk in object.chunks {
                        body.extend(upload.chunks.get(&chunk).ok_or(missing.clone())?);
                    }
                    let record = object.record.unwrap();
                    upload.staged.insert(record.id, Kept { record, body });
                }
            }
        }
        Ok(())
    }

    /// The objects asked for, in parts.
    fn load(&mut self, request: &v1::LoadObjectsRequest) -> Vec<v1::LoadObjectsResponse> {
        use v1::load_piece::Piece;
        self.loads += 1;
        let mut parts = vec![v1::LoadObjectsResponse::default()];
        let mut bytes = 0;
        for id in &request.ids {
            let place = (request.namespace.clone(), *id);
            let mut pieces = Vec::new();
            match self.objects.get(&place) {
                None => pieces.push(Piece::MissingId(*id)),
                Some(kept) => {
                    pieces.push(Piece::Record(kept.record.clone()));
                    pieces.extend(kept.body.chunks(PART_BYTES).map(|b| Piece::Body(b.to_vec())));
                }
            }
            for piece in pieces {
                let part = parts.last_mut().unwrap();
                bytes += if let Piece::Body(body) = &piece { body.len() } else { 0 };
                part.pieces.push(v1::LoadPiece { piece: Some(piece) });
                if bytes >= PART_BYTES || part.pieces.len() == PART {
                    parts.push(v1::LoadObjectsResponse::default());
                    bytes = 0;
                }
            }
        }
        for part in &mut parts {
            part.header = Some(self.header());
        }
        parts.last_mut().unwrap().is_last = true;
        if self.is_restless {
            self.revision += 1;
            let revision = self.revision;
            self.objects.values_mut().for_each(|kept| kept.record.mod_revision = revision);
        }
        parts
    }
}

#[tonic::async_trait]
impl v1::objects_server::Objects for Shelf {
    async fn lease_ids(
        &self,
        request: Request<v1::LeaseIdsRequest>,
    ) -> Result<Response<v1::LeaseIdsResponse>, Status> {
        self.listen().await;
        let count = request.into_inner().count;
        assert!((1..=65_536).contains(&count), "{count} ids");
        let mut state = self.lock();
        let first_id = FIRST_ID + state.leased;
        state.leased += u64::from(count);
        state.revision += 1;
        let header = Some(state.header());
        Ok(Response::new(v1::LeaseIdsResponse { header, first_id, count }))
    }

    async fn save_objects(
        &self,
        request: Request<v1::SaveObjectsRequest>,
    ) -> Result<Response<v1::SaveObjectsResponse>, Status> {
        let request = request.into_inner();
        let small =
            |object: v1::SmallObject| Kept { record: object.record.unwrap(), body: object.body };
        self.listen().await;
        let all: Vec<Kept> = request.objects.into_iter().map(small).collect();
        assert!(all.len() <= 1024, "{} objects", all.len());
        let mut state = self.lock();
        state.check_ids(all.iter())?;
        state.keep(&request.namespace, all.into_iter());
        Ok(Response::new(v1::SaveObjectsResponse { header: Some(state.header()) }))
    }

    async fn open_upload(
        &self,
        _: Request<v1::OpenUploadRequest>,
    ) -> Result<Response<v1::OpenUploadResponse>, Status> {
        let mut state = self.lock();
        state.opened += 1;
        let lives = (state.lapse > 0).then_some(2);
        state.lapse = state.lapse.saturating_sub(1);
        let upload_id = state.opened;
        state.uploads.insert(upload_id, Upload { lives, ..Upload::default() });
        Ok(Response::new(v1::OpenUploadResponse { header: Some(state.header()), upload_id }))
    }

    type UploadStream = Responses<v1::UploadResponse>;

    async fn upload(
        &self,
        request: Request<Streaming<v1::UploadRequest>>,
    ) -> Result<Response<Self::UploadStream>, Status> {
        let mut requests = request.into_inner();
        let (send, responses) = mpsc::channel(1);
        let shelf = self.clone();
        let nth = {
            let mut state = shelf.lock();
            state.streams.push(Vec::new());
            state.streams.len() - 1
        };
        tokio::spawn(async move {
            let mut answered = 0;
            while let Some(Ok(request)) = requests.next().await {
                let number = request.number;
                let (answer, is_broken) = {
                    let mut state = shelf.lock();
                    state.streams[nth].push(number);
                    let staged = state.stage(request);
                    let header = Some(state.header());
                    let answer = staged.map(|()| v1::UploadResponse { header, number });
                    (answer, state.break_after.is_some_and(|after| answered >= after))
                };
                if is_broken {
                    // Staged, and not answered.
                    return;
                }
                answered += 1;
                if send.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses).boxed()))
    }

    async fn commit_upload(
        &self,
        request: Request<v1::CommitUploadRequest>,
    ) -> Result<Response<v1::CommitUploadResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.lock();
        let Some(upload) = state.uploads.remove(&request.upload_id) else {
            return Err(state.unknown_upload());
        };
        assert_eq!(upload.staged.len() as u64, request.objects, "not all are staged");
        state.check_ids(upload.staged.values())?;
        state.keep(&request.namespace, upload.staged.into_values());
        Ok(Response::new(v1::CommitUploadResponse { header: Some(state.header()) }))
    }

    async fn abandon_upload(
        &self,
        request: Request<v1::AbandonUploadRequest>,
    ) -> Result<Response<v1::AbandonUploadResponse>, Status> {
        let mut state = self.lock();
        let abandoned = state.uploads.remove(&request.into_inner().upload_id).is_some();
        state.abandoned += u64::from(abandoned);
        Ok(Response::new(v1::AbandonUploadResponse { header: Some(state.header()), abandoned }))
    }

    type LoadObjectsStream = Responses<v1::LoadObjectsResponse>;

    async fn load_objects(
        &self,
        request: Request<v1::LoadObjectsRequest>,
    ) -> Result<Response<Self::LoadObjectsStream>, Status> {
        let mut state = self.lock();
        let mut parts: Vec<Result<_, Status>> =
            state.load(&request.into_inner()).into_iter().map(Ok).collect();
        if state.broken_loads > 0 && parts.len() > 1 {
            state.broken_loads -= 1;
            parts.truncate(1);
            parts.push(Err(Status::unavailable("broken off")));
        }
        Ok(Response::new(futures::stream::iter(parts).boxed()))
    }

    async fn remove_objects(
        &self,
        request: Request<v1::RemoveObjectsRequest>,
    ) -> Result<Response<v1::RemoveObjectsResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.lock();
        let place = |id: &u64| (request.namespace.clone(), *id);
        let gone = request.ids.iter().filter_map(|id| state.objects.remove(&place(id)));
        let removed = u32::try_from(gone.count()).unwrap();
        Ok(Response::new(v1::RemoveObjectsResponse { header: Some(state.header()), removed }))
    }

    type ListStoredObjectsStream = Responses<v1::ListStoredObjectsResponse>;

    async fn list_stored_objects(
        &self,
        request: Request<v1::ListStoredObjectsRequest>,
    ) -> Result<Response<Self::ListStoredObjectsStream>, Status> {
        let request = request.into_inner();
        let mut state = self.lock();
        state.listed_after.push(request.after_id);
        let break_behind = state.broken_listings.pop_front();
        let passes = |record: &v1::ObjectRecord| {
            record.id > request.after_id
                && (request.class_name.is_empty() || request.class_name == record.class_name)
                && request.metadata.iter().all(|(n, v)| record.metadata.get(n) == Some(v))
        };
        let here = state.objects.iter().filter(|((place, _), _)| *place == request.namespace);
        let found: Vec<v1::ObjectRecord> = here
            .map(|(_, kept)| kept.record.clone())
            .filter(passes)
            .map(|record| match request.only_ids {
                true => v1::ObjectRecord { id: record.id, ..Default::default() },
                false => record,
            })
            .collect();
        let mut parts: Vec<_> = found
            .chunks(PART)
            .map(|objects| {
                Ok(v1::ListStoredObjectsResponse {
                    header: Some(state.header()),
                    objects: objects.to_vec(),
                    is_last: false,
                })
            })
            .collect();
        parts.push(Ok(v1::ListStoredObjectsResponse {
            header: Some(state.header()),
            objects: Vec::new(),
            is_last: true,
        }));
        if let Some(count) = break_behind {
            parts.truncate(count);
            parts.push(Err(Status::unavailable("broken off")));
        }
        Ok(Response::new(futures::stream::iter(parts).boxed()))
    }
}
