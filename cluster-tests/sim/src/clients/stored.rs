//! Clients that keep pairs of stored objects (P1, P2, P3): both of a pair are saved, staged or removed together,
//! and bear the same stamp, so that whoever sees one of them alone, or two stamps, has seen a part.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_machine::objects::{self, Body, Record, Small, Staged};
use holdfast_machine::{Bytes, Command, Hash, Reply, Request};
use holdfast_node::sim;
use rand::RngExt as _;

use super::{CALL_MAX, Client, NAMESPACE};
use crate::history::{Answer, Done, Pairs, StoredCall};

const PAUSE: Duration = Duration::from_millis(120);
/// How many pairs each client has.
const PAIRS: u64 = 3;
/// The name under which an object's metadata has its stamp.
const STAMP: &str = "stamp";
/// The name under which it has the id of the first of its pair.
const PAIR: &str = "pair";

pub(super) async fn keep(mut client: Client) {
    let mut pairs = Vec::new();
    while client.goes_on() {
        if pairs.is_empty() {
            let (namespace, count) = (NAMESPACE.to_owned(), 2 * PAIRS);
            let lease = objects::Command::LeaseIds { namespace, count };
            if let Some(Ok(Reply::Objects(objects::Reply::Leased { first }))) =
                client.write(Command::Objects(lease)).await
            {
                pairs.extend((0..PAIRS).map(|nth| first + 2 * nth));
            }
            continue;
        }
        let pair = pairs[client.random.random_range(0..pairs.len())];
        match client.random.random_range(0..8) {
            0 => client.remove(pair).await,
            1..4 => client.save(pair).await,
            _ => client.upload(pair).await,
        }
        client.look().await;
        client.pause(PAUSE).await;
    }
}

fn record(id: u64, pair: u64, stamp: &str) -> Record {
    let entry = |name: &str, value: String| (name.to_owned(), value);
    let metadata = [entry(STAMP, stamp.to_owned()), entry(PAIR, pair.to_string())].into();
    Record { id, class_name: "Simulated".to_owned(), metadata }
}

/// The body of an object of this stamp; some are of several chunks, and some chunks are everybody's.
fn chunks(stamp: &str) -> [Bytes; 2] {
    [stamp.as_bytes().into(), b"shared by all".as_slice().into()]
}

impl Client {
    async fn save(&mut self, pair: u64) {
        let stamp = self.unique();
        let small =
            |id| Small { record: record(id, pair, &stamp), body: chunks(&stamp)[0].clone() };
        let objects = [pair, pair + 1].map(small).into();
        let namespace = NAMESPACE.to_owned();
        let save = Command::Objects(objects::Command::Save { namespace, objects });
        let saved = self.write(save).await;
        self.note_stored(pair, Some(stamp), saved.map(|saved| saved.ok()));
    }

    async fn remove(&mut self, pair: u64) {
        let (namespace, ids) = (NAMESPACE.to_owned(), vec![pair, pair + 1]);
        let remove = Command::Objects(objects::Command::Remove { namespace, ids });
        let removed = self.write(remove).await;
        self.note_stored(pair, None, removed.map(|removed| removed.ok()));
    }

    async fn upload(&mut self, pair: u64) {
        let (namespace, stamp) = (|| NAMESPACE.to_owned(), self.unique());
        let idle_ms = self.random.random_range(10_000..20_000);
        let open = objects::Command::OpenUpload { namespace: namespace(), idle_ms };
        let Some(Ok(Reply::Objects(objects::Reply::Opened { upload }))) =
            self.write(Command::Objects(open)).await
        else {
            return;
        };
        let chunks = chunks(&stamp);
        for bytes in chunks.clone() {
            let chunk = objects::Command::StageChunk { namespace: namespace(), upload, bytes };
            if self.stage(chunk).await.is_none() {
                return;
            }
        }
        for id in [pair, pair + 1] {
            let body = Body::Chunks(chunks.iter().map(|bytes| Hash::of(bytes)).collect());
            let objects = vec![Staged { record: record(id, pair, &stamp), body }];
            let stage = objects::Command::StageObjects { namespace: namespace(), upload, objects };
            if self.stage(stage).await.is_none() {
                return;
            }
            self.look().await;
        }
        if self.random.random_bool(0.15) {
            let abandon = objects::Command::AbandonUpload { namespace: namespace(), upload };
            // Its idle time ends it if nothing comes of this.
            let _ = self.write(Command::Objects(abandon)).await;
            return;
        }
        let commit = objects::Command::CommitUpload { namespace: namespace(), upload, objects: 2 };
        let committed = self.write(Command::Objects(commit)).await;
        self.note_stored(pair, Some(stamp), committed.map(|committed| committed.ok()));
    }

    /// Stages something, without a session. None if nobody knows that it is staged, or it is refused.
    async fn stage(&mut self, command: objects::Command) -> Option<()> {
        let request = Request { origin: None, command: Command::Objects(command) };
        match self.send(request, sim::now() + CALL_MAX).await {
            Answer::Reply { .. } => Some(()),
            Answer::Refused(_) | Answer::NotApplied | Answer::Unknown => None,
        }
    }

    /// Notes what came of a change of a pair; `answer` is none if nobody knows, and holds none if it was
    /// refused.
    fn note_stored(&mut self, pair: u64, stamp: Option<String>, answer: Option<Option<Reply>>) {
        let done = match answer {
            None => Done::Perhaps,
            Some(Some(Reply::Objects(objects::Reply::Saved { mod_revision }))) => {
                Done::At(mod_revision)
            }
            Some(Some(_)) => Done::Removed,
            Some(None) => return,
        };
        self.shared.recorder.lock().stored.push(StoredCall { pair, stamp, done });
    }

    /// Looks at all objects, at some node, linearizably or not.
    async fn look(&mut self) {
        let (node, local) = (self.any_node(), self.random.random_bool(0.5));
        let timeout = Duration::from_millis(500);
        if let Ok(state) = self.shared.world.read(node, local, timeout).await {
            let pairs = pairs(&state);
            self.shared.recorder.lock().pairs.push(pairs);
        }
    }
}

/// All objects of a state by the pair that they belong to.
pub(crate) fn pairs(state: &holdfast_machine::State) -> Pairs {
    let mut pairs: BTreeMap<u64, Vec<(u64, String, u64)>> = BTreeMap::new();
    let listed = objects::list(state, NAMESPACE, 0, &objects::Filter::default()).unwrap();
    for found in listed.objects {
        let Record { id, metadata, .. } = found.record;
        let pair = metadata[PAIR].parse().unwrap();
        pairs.entry(pair).or_default().push((id, metadata[STAMP].clone(), found.mod_revision));
    }
    Pairs { revision: state.header().revision, pairs }
}
