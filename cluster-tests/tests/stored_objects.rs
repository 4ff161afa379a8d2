//! The service `Objects` as it is called without a library: what is saved is what is loaded, on every node;
//! an upload is seen whole or not at all; limits, at each and one beyond; bodies over restarts and snapshots.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};
use holdfast_cluster_tests::{Cluster, Options, bound, report, scale};
use holdfast_proto::v1;
use holdfast_proto::v1::load_piece::Piece;
use holdfast_proto::v1::upload_request::Staged;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::raw::{Answer, Raw};

const CHUNK: usize = 512 << 10;
const LARGEST: usize = 64 << 20;

/// The generated clients of one node, with a session.
struct Caller {
    raw: Raw,
}

/// An object as it comes back.
#[derive(Debug)]
struct Loaded {
    record: v1::ObjectRecord,
    body: Vec<u8>,
}

impl Caller {
    async fn on_leader_and_follower(cluster: &Cluster) -> anyhow::Result<Vec<Caller>> {
        let mut callers = Vec::new();
        for index in [cluster.leader().await?, cluster.follower().await?] {
            callers.push(Caller::on(cluster, index).await?);
        }
        Ok(callers)
    }

    async fn on(cluster: &Cluster, index: usize) -> anyhow::Result<Caller> {
        let endpoint = format!("http://{}", cluster.endpoint(index));
        let channel = Channel::from_shared(endpoint)?.connect().await?;
        Ok(Caller { raw: Raw::on(channel).await? })
    }

    async fn lease(&mut self, count: u32) -> Answer<u64> {
        let context = self.raw.context();
        let request = v1::LeaseIdsRequest { context, count, ..Default::default() };
        Ok(self.raw.objects.lease_ids(request).await?.into_inner().first_id)
    }

    async fn save(&mut self, objects: Vec<v1::SmallObject>) -> Answer<u64> {
        let context = self.raw.context();
        let request = v1::SaveObjectsRequest { context, objects, ..Default::default() };
        Ok(revision(self.raw.objects.save_objects(request).await?.into_inner().header))
    }

    async fn open(&mut self) -> Answer<u64> {
        let request = v1::OpenUploadRequest { context: self.raw.context(), ..Default::default() };
        Ok(self.raw.objects.open_upload(request).await?.into_inner().upload_id)
    }

    async fn commit(&mut self, upload_id: u64, objects: u64) -> Answer<u64> {
        let context = self.raw.context();
        let request = v1::CommitUploadRequest { context, upload_id, objects, ..Default::default() };
        Ok(revision(self.raw.objects.commit_upload(request).await?.into_inner().header))
    }

    async fn remove(&mut self, ids: Vec<u64>) -> Answer<u32> {
        let context = self.raw.context();
        let request = v1::RemoveObjectsRequest { context, ids, ..Default::default() };
        Ok(self.raw.objects.remove_objects(request).await?.into_inner().removed)
    }

    /// Sends all messages, and gives how many were answered, in order, and what ended it otherwise.
    async fn stage(&mut self, upload: u64, staged: Vec<Staged>) -> (u64, Option<Status>) {
        let sent = staged.into_iter().zip(1..).map(move |(staged, number)| v1::UploadRequest {
            upload_id: upload,
            number,
            staged: Some(staged),
            ..Default::default()
        });
        let mut answers = match self.raw.objects.upload(futures::stream::iter(sent)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return (0, Some(status)),
        };
        let mut answered = 0;
        loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    assert_eq!(answer.number, answered + 1, "answers come in order");
                    answered += 1;
                }
                Ok(None) => return (answered, None),
                Err(status) => return (answered, Some(status)),
            }
        }
    }

    /// Those that are there, by id, at one revision.
    async fn load(&mut self, ids: Vec<u64>) -> Answer<(u64, BTreeMap<u64, Loaded>)> {
        let request = v1::LoadObjectsRequest { ids, ..Default::default() };
        let mut parts = self.raw.objects.load_objects(request).await?.into_inner();
        let (mut loaded, mut last, mut at) = (BTreeMap::new(), 0, 0);
        let mut has_ended = false;
        while let Some(part) = parts.message().await? {
            assert!(!has_ended, "nothing comes behind the last");
            has_ended = part.is_last;
            at = revision(part.header);
            for piece in part.pieces {
                match piece.piece.expect("a piece says something") {
                    Piece::MissingId(_) => {}
                    Piece::Record(record) => {
                        last = record.id;
                        loaded.insert(last, Loaded { record, body: Vec::new() });
                    }
                    Piece::Body(bytes) => {
                        loaded.get_mut(&last).expect("its record came first").body.extend(bytes);
                    }
                }
            }
        }
        assert!(has_ended, "the stream was cut off");
        assert!(loaded.values().all(|o| o.body.len() as u64 == o.record.body_bytes));
        Ok((at, loaded))
    }

    async fn list(
        &mut self,
        request: v1::ListStoredObjectsRequest,
    ) -> Answer<Vec<v1::ObjectRecord>> {
        let mut parts = self.raw.objects.list_stored_objects(request).await?.into_inner();
        let (mut listed, mut at) = (Vec::new(), None);
        while let Some(part) = parts.message().await? {
            let revision = revision(part.header);
            assert_eq!(*at.get_or_insert(revision), revision, "a listing is of one revision");
            listed.extend(part.objects);
            if part.is_last {
                return Ok(listed);
            }
        }
        panic!("the listing was cut off");
    }
}

fn revision(header: Option<v1::ResponseHeader>) -> u64 {
    header.expect("every response has a header").revision
}

fn record(id: u64, class_name: &str, metadata: &[(&str, &str)]) -> Option<v1::ObjectRecord> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let metadata = metadata.iter().map(owned).collect();
    Some(v1::ObjectRecord { id, class_name: class_name.to_owned(), metadata, ..Default::default() })
}

fn small(id: u64, body: &[u8]) -> v1::SmallObject {
    v1::SmallObject { record: record(id, "Job", &[]), body: body.to_vec() }
}

fn staged(id: u64, body: &[u8]) -> v1::StagedObject {
    v1::StagedObject { record: record(id, "Job", &[]), body: body.to_vec(), chunks: Vec::new() }
}

fn objects(objects: Vec<v1::StagedObject>) -> Staged {
    Staged::Objects(v1::StagedObjects { objects })
}

/// Bytes that no compression and no other chunk has.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut bytes = vec![0; len];
    reader.fill(&mut bytes);
    bytes
}

/// The messages that stage one object of this body, a chunk a message.
fn chunked(id: u64, body: &[u8]) -> Vec<Staged> {
    let hash = |chunk: &[u8]| blake3::hash(chunk).as_bytes().to_vec();
    let chunks = body.chunks(CHUNK).map(hash).collect();
    let object = v1::StagedObject { record: record(id, "Large", &[]), body: Vec::new(), chunks };
    let sent = body.chunks(CHUNK).map(|chunk| Staged::Chunk(chunk.to_vec()));
    sent.chain([objects(vec![object])]).collect()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| status.to_string(), |info| info.reason)
}

fn refused<T: std::fmt::Debug>(answer: Answer<T>, expected: &str) -> anyhow::Result<()> {
    let status = answer.err().context("it was not refused")?;
    ensure!(reason(&status) == expected, "{status:?} is not {expected}");
    Ok(())
}

// P1 P2 G3
#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_on_one_node_is_loaded_on_another() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let mut callers = Caller::on_leader_and_follower(&cluster).await?;
    for turn in 0..2 {
        let (first, saved) = {
            let caller = &mut callers[turn];
            let first = caller.lease(4).await?;
            let bodies = [bytes(1, 10), Vec::new(), bytes(2, 700_000)];
            let objects = (first..).zip(&bodies).map(|(id, body)| small(id, body)).collect();
            (first, caller.save(objects).await?)
        };
        let caller = &mut callers[1 - turn];
        let (at, loaded) = caller.load(vec![first + 3, first + 2, first, first + 1]).await?;
        ensure!(at >= saved && loaded.len() == 3, "{at}, {} objects", loaded.len());
        ensure!(loaded[&(first + 2)].body == bytes(2, 700_000), "another body");
        ensure!(loaded.values().all(|o| o.record.mod_revision == saved), "{loaded:?}");
        ensure!(caller.remove(vec![first, first + 3]).await? == 1);
        ensure!(callers[turn].load(vec![first]).await?.1.is_empty(), "it was removed");
    }
    // A retry gets the first outcome.
    let caller = &mut callers[0];
    let context = caller.raw.context();
    let request = v1::LeaseIdsRequest { context, count: 5, ..Default::default() };
    let first = caller.raw.objects.lease_ids(request.clone()).await?.into_inner().first_id;
    ensure!(caller.raw.objects.lease_ids(request).await?.into_inner().first_id == first);
    ensure!(caller.lease(1).await? == first + 5, "P1: the block is somebody's");
    cluster.same_state().await?;
    cluster.finish().await
}

// P3
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_seen_whole_or_not_at_all() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let mut callers = Caller::on_leader_and_follower(&cluster).await?;
    let count = scale(10_001, 2_001);
    let first = callers[0].lease(count).await?;
    let ids: Vec<u64> = (first..first + u64::from(count)).collect();
    let upload = callers[1].open().await?;
    let messages: Vec<Staged> = ids
        .chunks(500)
        .map(|ids| objects(ids.iter().map(|id| staged(*id, &id.to_be_bytes())).collect()))
        .collect();
    let sent = messages.len() as u64;
    ensure!(callers[1].stage(upload, messages.clone()).await.0 == sent);
    // Once more, on the other node, as after a broken stream.
    ensure!(callers[0].stage(upload, messages).await.0 == sent);
    ensure!(callers[0].load(ids.clone()).await?.1.is_empty(), "something is seen");
    refused(callers[1].commit(upload, u64::from(count) - 1).await, "INCOMPLETE_UPLOAD")?;

    let began = Instant::now();
    let committed = callers[1].commit(upload, u64::from(count)).await?;
    let took = began.elapsed();
    for caller in &mut callers {
        let (at, loaded) = caller.load(ids.clone()).await?;
        ensure!(at >= committed && loaded.len() == ids.len(), "{} are seen", loaded.len());
        let is_right = |(id, object): (&u64, &Loaded)| {
            object.body == id.to_be_bytes() && object.record.mod_revision == committed
        };
        ensure!(loaded.iter().all(is_right), "some are not what was staged");
    }
    report("commit of an upload", format!("{count} objects in {:.1} ms", took.as_secs_f64() * 1e3));
    let (answered, ended) =
        callers[0].stage(upload, vec![objects(vec![staged(first, b"late")])]).await;
    let ended = ended.context("a late copy is refused")?;
    ensure!(answered == 0 && reason(&ended) == "UNKNOWN_UPLOAD", "{ended:?}");
    refused(callers[0].commit(upload, u64::from(count)).await, "UNKNOWN_UPLOAD")?;

    // All of it settles, and nothing is left of the upload.
    cluster.same_state().await?;
    ensure!(callers[0].load(ids).await?.1.len() == count as usize);
    cluster.finish().await
}

// P2 G9
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_refused_with_their_numbers() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    for caller in &mut Caller::on_leader_and_follower(&cluster).await? {
        let first = caller.lease(3).await?;
        let full = (1 << 20) - "Job".len();
        caller.save(vec![small(first, &bytes(3, full))]).await?;
        refused(caller.save(vec![small(first, &bytes(3, full + 1))]).await, "OUT_OF_BOUNDS")?;
        refused(caller.save(vec![small(first + 3, b"body")]).await, "UNISSUED_ID")?;
        refused(caller.lease(65_537).await, "OUT_OF_BOUNDS")?;
        refused(caller.load(vec![first; 65_537]).await, "OUT_OF_BOUNDS")?;
        let upload = caller.open().await?;
        let one = |staged| vec![staged];
        let at_most = Staged::Chunk(bytes(4, CHUNK));
        ensure!(caller.stage(upload, one(at_most)).await.0 == 1);
        let beyond = caller.stage(upload, one(Staged::Chunk(bytes(4, CHUNK + 1)))).await;
        ensure!(beyond.1.is_some_and(|status| reason(&status) == "OUT_OF_BOUNDS"));
        let hash = blake3::hash(&bytes(4, CHUNK)).as_bytes().to_vec();
        let of = |chunks: Vec<Vec<u8>>| {
            let body = Vec::new();
            objects(vec![v1::StagedObject { record: record(first, "Job", &[]), body, chunks }])
        };
        let largest = of(vec![hash.clone(); LARGEST / CHUNK]);
        ensure!(caller.stage(upload, one(largest)).await.0 == 1);
        let one_byte = Staged::Chunk(vec![7]);
        ensure!(caller.stage(upload, one(one_byte)).await.0 == 1);
        let mut chunks = vec![hash; LARGEST / CHUNK];
        chunks.push(blake3::hash(&[7]).as_bytes().to_vec());
        let status = caller.stage(upload, one(of(chunks))).await.1.context("64 MiB + 1")?;
        let says = [LARGEST.to_string(), (LARGEST + 1).to_string()];
        ensure!(reason(&status) == "OBJECT_TOO_LARGE", "{status:?}");
        ensure!(says.iter().all(|number| status.message().contains(number)), "{status:?}");
        let missing = of(vec![vec![9; 32]]);
        let status = caller.stage(upload, one(missing)).await.1.context("nothing is staged")?;
        ensure!(reason(&status) == "MISSING_CHUNK", "{status:?}");
        let odd = caller.stage(upload, one(of(vec![vec![9; 31]]))).await.1.context("no hash")?;
        ensure!(reason(&odd) == "BAD_REQUEST", "{odd:?}");
    }
    cluster.finish().await
}

// P2
#[tokio::test(flavor = "multi_thread")]
async fn a_64_mib_object_makes_new_nodes_grow_by_less_than_half_of_it() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let mut callers = Caller::on_leader_and_follower(&cluster).await?;
    let count = scale(5, 2);
    let first = callers[0].lease(count).await?;
    for nth in 0..count {
        // The first one finds nodes that have just started.
        let before = memory(&cluster, "VmRSS")?;
        forget_peaks(&cluster)?;
        let (id, body) = (first + u64::from(nth), bytes(5 + u64::from(nth), LARGEST));
        let messages = chunked(id, &body);
        let turn = nth as usize % callers.len();
        let (upload, began) = (callers[turn].open().await?, Instant::now());
        let (answered, ended) = callers[turn].stage(upload, messages).await;
        ensure!(ended.is_none(), "after {answered}: {ended:?}");
        callers[turn].commit(upload, 1).await?;
        let saved = began.elapsed();
        for caller in &mut callers {
            let (_, loaded) = caller.load(vec![id]).await?;
            ensure!(loaded[&id].body == body, "another body");
        }
        let grown: Vec<i64> =
            memory(&cluster, "VmHWM")?.iter().zip(&before).map(|(now, was)| now - was).collect();
        report(
            &format!("64 MiB object, {} of {count}", nth + 1),
            format!(
                "saved in {:.1} s; until it was loaded the nodes had grown by at most {grown:?} KiB",
                saved.as_secs_f64()
            ),
        );
        ensure!(grown.iter().all(|kib| *kib < 32 << 10), "nodes have grown by {grown:?} KiB");
    }
    cluster.same_state().await?;
    cluster.finish().await
}

/// What a line of proc(5)'s `status` says of the memory of each node's process, in KiB.
fn memory(cluster: &Cluster, line: &str) -> anyhow::Result<Vec<i64>> {
    let of_node = |index| {
        let pid = cluster.pid(index).context("it runs")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mut lines = status.lines().filter_map(|found| found.strip_prefix(line));
        let value = lines.find_map(|rest| rest.strip_prefix(':')).context("such a line")?;
        Ok(value.trim().trim_end_matches(" kB").parse()?)
    };
    (0..cluster.size()).map(of_node).collect()
}

/// Lets `VmHWM` count from now on: see `clear_refs` in proc(5).
fn forget_peaks(cluster: &Cluster) -> anyhow::Result<()> {
    (0..cluster.size()).try_for_each(|index| {
        let pid = cluster.pid(index).context("it runs")?;
        Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
    })
}

// P2 G1 N3
#[tokio::test(flavor = "multi_thread")]
async fn bodies_outlive_restarts_and_come_with_snapshots() -> anyhow::Result<()> {
    let args = ["--snapshot-every-entries", "60", "--log-keep-entries", "10"];
    let args = args.map(str::to_owned).to_vec();
    let cluster = Cluster::start(3, Options { args, ..Options::default() }).await?;
    let (away, leader) = (cluster.follower().await?, cluster.leader().await?);
    let had = cluster.status(away).await?.last_log_index;
    cluster.kill(away);
    let mut caller = Caller::on(&cluster, leader).await?;
    let first = caller.lease(300).await?;
    let body = bytes(7, 3 << 20);
    let upload = caller.open().await?;
    ensure!(caller.stage(upload, chunked(first, &body)).await.1.is_none());
    caller.commit(upload, 1).await?;
    for nth in 1..200 {
        caller.save(vec![small(first + nth, &bytes(nth, 1000))]).await?;
    }
    caller.remove((first + 100..first + 150).collect()).await?;
    let began = Instant::now();
    while cluster.status(leader).await?.purged_index <= had {
        ensure!(began.elapsed() < bound(Duration::from_secs(20)), "the log is not purged");
        caller.save(vec![small(first + 1, &bytes(1, 1000))]).await?;
    }
    cluster.start_node(away)?;
    cluster.settled().await?;
    let status = cluster.status(away).await?;
    ensure!(status.snapshots_installed >= 1, "no snapshot was installed: {status:?}");
    let ids: Vec<u64> = (first..first + 300).collect();
    let expected = |loaded: &BTreeMap<u64, Loaded>| {
        let small =
            |(id, object): (&u64, &Loaded)| *id == first || object.body == bytes(id - first, 1000);
        loaded.len() == 150 && loaded[&first].body == body && loaded.iter().all(small)
    };
    let mut back = Caller::on(&cluster, away).await?;
    ensure!(expected(&back.load(ids.clone()).await?.1), "what came with the snapshot differs");
    cluster.same_state().await?;
    cluster.kill_all();
    for index in 0..3 {
        cluster.start_node(index)?;
    }
    cluster.settled().await?;
    for index in 0..3 {
        let loaded = Caller::on(&cluster, index).await?.load(ids.clone()).await?.1;
        ensure!(expected(&loaded), "node {index} after a restart");
    }
    cluster.finish().await
}

// P2
#[tokio::test(flavor = "multi_thread")]
async fn a_large_store_is_listed_at_one_revision_while_it_changes() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let mut callers = Caller::on_leader_and_follower(&cluster).await?;
    let count: u64 = scale(100_000, 20_000);
    let mut ids = Vec::new();
    while (ids.len() as u64) < count {
        let first = callers[0].lease(1000).await?;
        let class = if ids.len().is_multiple_of(2000) { "Job" } else { "Task" };
        let small = |id: u64| {
            let state = if id.is_multiple_of(2) { "even" } else { "odd" };
            v1::SmallObject { record: record(id, class, &[("state", state)]), body: vec![1] }
        };
        callers[0].save((first..first + 1000).map(small).collect()).await?;
        ids.extend(first..first + 1000);
    }
    let (stop, stopped) = watch::channel(false);
    let mut writer = callers.pop().context("two callers")?;
    let last = *ids.last().context("ids")?;
    let writing = tokio::spawn(async move {
        let mut writes = 0_u64;
        while !*stopped.borrow() {
            writer.save(vec![small(last, &writes.to_be_bytes())]).await?;
            writes += 1;
        }
        Answer::Ok(writes)
    });
    let caller = &mut callers[0];
    let began = Instant::now();
    let only_ids = v1::ListStoredObjectsRequest { only_ids: true, ..Default::default() };
    let listed = caller.list(only_ids).await?;
    let took = began.elapsed();
    ensure!(listed.iter().map(|record| record.id).eq(ids.iter().copied()), "other ids");
    report("ids listed while writes go on", format!("{count} in {:.2} s", took.as_secs_f64()));
    ensure!(took < bound(Duration::from_secs(2)), "{took:?}");
    let filtered = v1::ListStoredObjectsRequest {
        class_name: "Job".to_owned(),
        metadata: [("state".to_owned(), "even".to_owned())].into(),
        after_id: ids[0],
        ..Default::default()
    };
    let passed = caller.list(filtered).await?;
    let is_asked =
        |r: &v1::ObjectRecord| r.class_name == "Job" && r.id.is_multiple_of(2) && r.id > ids[0];
    ensure!(passed.iter().all(is_asked));
    let expected = count / 4 - u64::from(ids[0].is_multiple_of(2));
    // The one that is written all the time has left its class and metadata behind.
    ensure!((expected - 1..=expected).contains(&(passed.len() as u64)), "{} pass", passed.len());
    stop.send_replace(true);
    ensure!(writing.await?? > 0, "nothing was written meanwhile");
    cluster.finish().await
}

// W1 P2
#[tokio::test(flavor = "multi_thread")]
async fn watchers_learn_of_objects() -> anyhow::Result<()> {
    use holdfast_client::{Event, WatchFilter, WatchOptions};
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let filters = vec![WatchFilter::StoredObject(None)];
    let mut watch = client.watch(WatchOptions { filters, ..WatchOptions::default() }).await?;
    let mut caller = Caller::on_leader_and_follower(&cluster).await?.remove(1);
    let first = caller.lease(2).await?;
    let saved = caller.save(vec![small(first, b"body")]).await?;
    let upload = caller.open().await?;
    ensure!(caller.stage(upload, vec![objects(vec![staged(first + 1, b"body")])]).await.0 == 1);
    let committed = caller.commit(upload, 1).await?;
    caller.remove(vec![first + 1, first]).await?;
    let expected =
        [(first, Some(saved)), (first + 1, Some(committed)), (first, None), (first + 1, None)];
    for (id, mod_revision) in expected {
        let change = watch.next().await?;
        let class_name = if mod_revision.is_some() { "Job" } else { "" }.to_owned();
        let event = Event::StoredObject { id, class_name, mod_revision };
        ensure!(change.event == event, "{change:?}, not {event:?}");
    }
    cluster.finish().await
}

// P3 G5
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_over_another_node_when_the_leader_dies() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let mut callers = Caller::on_leader_and_follower(&cluster).await?;
    let first = callers[0].lease(1).await?;
    let upload = callers[0].open().await?;
    let body = bytes(8, 8 << 20);
    let messages = chunked(first, &body);
    let leader = cluster.leader().await?;
    let mut numbered = (1..).zip(messages.clone()).map(|(number, staged)| v1::UploadRequest {
        upload_id: upload,
        number,
        staged: Some(staged),
        ..Default::default()
    });
    // A part of it goes over the leader, which dies with what is on its way.
    let (mut send, sent) = mpsc::channel(1);
    let mut answers = callers[0].raw.objects.upload(sent).await?.into_inner();
    for message in numbered.by_ref().take(6) {
        send.send(message).await?;
    }
    ensure!(answers.next().await.is_some_and(|answer| answer.is_ok()), "the first is answered");
    cluster.kill(leader);
    while answers.next().await.is_some_and(|answer| answer.is_ok()) {}
    // All of it again: what was staged stays staged.
    let (answered, ended) = callers[1].stage(upload, messages).await;
    ensure!(ended.is_none(), "after {answered}: {ended:?}");
    callers[1].commit(upload, 1).await?;
    ensure!(callers[1].load(vec![first]).await?.1[&first].body == body, "another body");
    cluster.start_node(leader)?;
    cluster.settled().await?;
    cluster.same_state().await?;
    cluster.finish().await
}
