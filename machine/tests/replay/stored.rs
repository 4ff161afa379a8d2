//! Stored objects in random histories: what their clients do, and what must hold of the answers, told without
//! rows.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_machine::objects::{self, Body, Command, Record, Reply, Small, Staged};
use holdfast_machine::{Applied, Bytes, Hash, Refusal, State, limits};

use crate::random::Random;

const NAMESPACES: [&str; 2] = ["default", "other"];

/// What clients know of ids and uploads.
#[derive(Default)]
pub(crate) struct Clients {
    ids: Vec<u64>,
    uploads: Vec<Upload>,
}

/// An upload as its client sees it.
#[derive(Clone)]
struct Upload {
    namespace: String,
    id: u64,
    objects: BTreeSet<u64>,
}

impl Clients {
    /// Takes in what clients get to know.
    pub(crate) fn learn(&mut self, command: &Command, reply: &Reply) {
        match (command, reply) {
            (Command::LeaseIds { count, .. }, Reply::Leased { first }) => {
                self.ids.extend(*first..first + count);
            }
            (Command::OpenUpload { namespace, .. }, Reply::Opened { upload }) => {
                let (namespace, objects) = (namespace.clone(), BTreeSet::new());
                self.uploads.push(Upload { namespace, id: *upload, objects });
            }
            (Command::StageObjects { upload, objects, .. }, Reply::Staged) => {
                if let Some(known) = self.uploads.iter_mut().find(|known| known.id == *upload) {
                    known.objects.extend(objects.iter().map(|staged| staged.record.id));
                }
            }
            (_, _) => {}
        }
    }

    /// What a client does next.
    pub(crate) fn command(&mut self, random: &mut Random) -> Command {
        let other = random.one_in(10);
        let namespace = NAMESPACES[usize::from(other)].to_owned();
        let late = self.uploads.len().saturating_sub(3);
        let known = random.pick(&self.uploads[late..]).cloned().filter(|_| !random.one_in(6));
        let kind = random.below(if known.is_some() { 16 } else { 7 });
        let unknown = || Upload { namespace: namespace.clone(), id: 1, objects: BTreeSet::new() };
        let Upload { namespace: of_upload, id: upload, objects: staged } =
            known.unwrap_or_else(unknown);
        match kind {
            0 => Command::LeaseIds { namespace, count: 1 + random.below(3) },
            1 => Command::OpenUpload {
                namespace,
                idle_ms: limits::UPLOAD_IDLE_MS_MIN + random.below(5_000),
            },
            2..4 => {
                let ids: BTreeSet<_> = (0..=random.below(3)).map(|_| self.id(random)).collect();
                let small = |id| Small { record: record(id, random), body: bytes(random) };
                Command::Save { namespace, objects: ids.into_iter().map(small).collect() }
            }
            4 | 5 => {
                let ids = (0..=random.below(2)).map(|_| self.id(random)).collect();
                Command::Remove { namespace, ids }
            }
            6 => Command::AbandonUpload { namespace: of_upload, upload },
            7..10 => Command::StageChunk { namespace: of_upload, upload, bytes: bytes(random) },
            10..14 => {
                let ids: BTreeSet<_> = (0..=random.below(4)).map(|_| self.id(random)).collect();
                let staged = |id| Staged { record: record(id, random), body: body(random) };
                let objects = ids.into_iter().map(staged).collect();
                Command::StageObjects { namespace: of_upload, upload, objects }
            }
            _ => {
                let objects = staged.len() as u64 + u64::from(random.one_in(8));
                Command::CommitUpload { namespace: of_upload, upload, objects }
            }
        }
    }

    /// One of the late ids; once in a while one that was not given out.
    fn id(&self, random: &mut Random) -> u64 {
        let late = self.ids.len().saturating_sub(8);
        let known = random.pick(&self.ids[late..]).copied();
        known.filter(|_| !random.one_in(40)).unwrap_or(limits::OBJECT_ID_FIRST + 1000)
    }
}

fn record(id: u64, random: &mut Random) -> Record {
    let class_name = format!("Class{}", random.below(2));
    let metadata = [("state".to_owned(), random.below(3).to_string())].into();
    Record { id, class_name, metadata }
}

/// One of a few, so that bodies share chunks.
fn bytes(random: &mut Random) -> Bytes {
    vec![b'a'; 1 + usize::try_from(random.below(4)).expect("small")].into()
}

fn body(random: &mut Random) -> Body {
    match random.below(4) {
        0 => Body::Inline(bytes(random)),
        count => Body::Chunks((1..count).map(|_| Hash::of(&bytes(random))).collect()),
    }
}

/// An object as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    record: Record,
    mod_revision: u64,
    body: Vec<u8>,
}

struct Open {
    namespace: String,
    idle_ms: u64,
    deadline_ms: u64,
    chunks: BTreeMap<Hash, Bytes>,
    objects: BTreeMap<u64, Object>,
}

/// What there should be.
#[derive(Default)]
pub(crate) struct Model {
    ids_given: u64,
    objects: BTreeMap<(String, u64), Object>,
    uploads: BTreeMap<u64, Open>,
    /// The fold of what came and went, as a store keeps it.
    bodies: BTreeMap<Hash, Bytes>,
}

impl Model {
    /// An upload is over when its time is.
    pub(crate) fn expire(&mut self, clock_ms: u64) {
        self.uploads.retain(|_, upload| upload.deadline_ms > clock_ms);
    }

    /// What an answer says is what should have been done.
    pub(crate) fn check(&mut self, command: &Command, reply: &Reply, at: (u64, u64)) {
        let (revision, clock_ms) = at;
        match (command, reply) {
            (Command::LeaseIds { count, .. }, Reply::Leased { first }) => {
                assert_eq!(*first, limits::OBJECT_ID_FIRST + self.ids_given, "P1");
                self.ids_given += count;
            }
            (Command::Save { namespace, objects }, Reply::Saved { mod_revision }) => {
                assert_eq!(*mod_revision, revision);
                for Small { record, body } in objects {
                    let (record, body) = (record.clone(), body.to_vec());
                    self.put(namespace, Object { record, mod_revision: revision, body });
                }
            }
            (Command::Remove { namespace, ids }, Reply::Removed(removed)) => {
                let is_there =
                    |id: &&u64| self.objects.remove(&(namespace.clone(), **id)).is_some();
                assert_eq!(ids.iter().filter(is_there).count() as u64, *removed, "P2");
            }
            (Command::OpenUpload { namespace, idle_ms }, Reply::Opened { upload }) => {
                assert_eq!(*upload, revision);
                let (namespace, idle_ms) = (namespace.clone(), *idle_ms);
                let deadline_ms = clock_ms + idle_ms;
                let (chunks, objects) = Default::default();
                let open = Open { namespace, idle_ms, deadline_ms, chunks, objects };
                self.uploads.insert(*upload, open);
            }
            (Command::StageChunk { namespace, upload, bytes }, Reply::Staged) => {
                let open = self.open(namespace, *upload, clock_ms).expect("it is open");
                open.chunks.insert(Hash::of(bytes), bytes.clone());
            }
            (Command::StageObjects { namespace, upload, objects }, Reply::Staged) => {
                let open = self.open(namespace, *upload, clock_ms).expect("it is open");
                for Staged { record, body } in objects {
                    let body = match body {
                        Body::Inline(bytes) => bytes.to_vec(),
                        Body::Chunks(hashes) => {
                            hashes.iter().flat_map(|hash| open.chunks[hash].to_vec()).collect()
                        }
                    };
                    let object = Object { record: record.clone(), mod_revision: 0, body };
                    open.objects.insert(record.id, object);
                }
            }
            (Command::CommitUpload { upload, objects, .. }, Reply::Saved { mod_revision }) => {
                assert_eq!(*mod_revision, revision);
                let Open { namespace, objects: staged, .. } =
                    self.uploads.remove(upload).expect("it is open");
                assert_eq!(staged.len() as u64, *objects, "P3: a part of an upload");
                for object in staged.into_values() {
                    self.put(&namespace, Object { mod_revision: revision, ..object });
                }
            }
            (Command::AbandonUpload { namespace, upload }, Reply::Abandoned(abandoned)) => {
                let is_mine = |open: &&Open| open.namespace == *namespace;
                assert_eq!(self.uploads.get(upload).filter(is_mine).is_some(), *abandoned);
                self.uploads.retain(|id, open| id != upload || !is_mine(&&*open));
            }
            (command, reply) => panic!("{command:?} answers {reply:?}"),
        }
    }

    fn put(&mut self, namespace: &str, object: Object) {
        self.objects.insert((namespace.to_owned(), object.record.id), object);
    }

    fn open(&mut self, namespace: &str, upload: u64, clock_ms: u64) -> Option<&mut Open> {
        let open = self.uploads.get_mut(&upload).filter(|open| open.namespace == namespace)?;
        open.deadline_ms = clock_ms + open.idle_ms;
        Some(open)
    }

    /// Only what should be refused is.
    pub(crate) fn check_refusal(&self, command: &Command, refusal: &Refusal) {
        let is_issued = |id: &u64| {
            (limits::OBJECT_ID_FIRST..limits::OBJECT_ID_FIRST + self.ids_given).contains(id)
        };
        if let Refusal::UnissuedId { id } = refusal {
            assert!(!is_issued(id), "{refusal}");
        }
        let (Command::StageChunk { namespace, upload, .. }
        | Command::StageObjects { namespace, upload, .. }
        | Command::CommitUpload { namespace, upload, .. }) = command
        else {
            return;
        };
        let open = self.uploads.get(upload).filter(|open| open.namespace == *namespace);
        match (refusal, open) {
            (Refusal::UnknownUpload { .. }, open) => assert!(open.is_none(), "{refusal}"),
            (Refusal::IncompleteUpload { actual, expected, .. }, Some(open)) => {
                assert_eq!(open.objects.len() as u64, *actual);
                assert_ne!(actual, expected);
            }
            (Refusal::MissingChunk { hash, .. }, Some(open)) => {
                assert!(open.chunks.keys().all(|staged| staged.to_string() != *hash), "{refusal}");
            }
            (_, _) => {}
        }
    }

    /// What is seen is what should be, and its bodies are kept; nothing else is.
    pub(crate) fn check_state(&mut self, applied: &Applied, state: &State) {
        for body in &applied.bodies {
            match &body.bytes {
                Some(bytes) => {
                    assert_eq!(Hash::of(bytes), body.hash);
                    assert!(self.bodies.insert(body.hash, bytes.clone()).is_none(), "kept twice");
                }
                None => assert!(self.bodies.remove(&body.hash).is_some(), "gone twice"),
            }
        }
        let named = objects::chunks(state).collect::<Result<BTreeMap<_, _>, _>>();
        let kept = self.bodies.iter().map(|(hash, bytes)| (*hash, bytes.len() as u64));
        assert_eq!(named, Ok(kept.collect()), "the bodies kept are those that rows name");
        let mut seen = BTreeMap::new();
        for namespace in NAMESPACES {
            let page = objects::list(state, namespace, 0, &objects::Filter::default());
            for found in page.expect("no fault").objects {
                let of = objects::get(state, namespace, found.record.id).expect("no fault");
                assert_eq!(of.as_ref(), Some(&found), "a list shows what a load does");
                let chunks = found.chunks.iter().map(|hash| &*self.bodies[hash]);
                let (body, mod_revision) =
                    (chunks.collect::<Vec<_>>().concat(), found.mod_revision);
                assert_eq!(body.len() as u64, found.body_bytes);
                let key = (namespace.to_owned(), found.record.id);
                seen.insert(key, Object { record: found.record, mod_revision, body });
            }
        }
        assert_eq!(seen, self.objects, "P2, P3");
    }
}
