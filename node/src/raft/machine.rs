//! openraft's state machine on ours: applies committed batches, publishes the result to readers,
//! and hands the changes to the state store.
//!
//! Invariants:
//! - Readers see a state only whole: it is published after a run of entries, before any of their
//!   answers leaves.
//! - The state store is not durable when `apply` returns. A restart loads what is durable and
//!   applies the log again from there, so the log is purged only up to what the store has synced:
//!   a snapshot that openraft asked for is reported to it only after that sync, and of the one that it
//!   finds when it starts `trim` believes no more than is on disk.
//! - What those who watch learn is remembered before the state that it led to is published.
//! - A snapshot is a clone of the state, which shares its memory, and a pin that keeps its bodies:
//!   O(1), made on demand, and never kept between transfers.

use std::io;
use std::sync::{Arc, Mutex, RwLock};

use futures::{Stream, StreamExt as _};
use holdfast_machine::{Change, Fault, LogPosition, Payload, State};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::oneshot;

use super::codec;
use super::history::{History, Run};
use super::image::Image;
use super::types::{
    Entry, LogId, Membership, Replies, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};
use crate::runtime::{self, watch};
use crate::store::{Pin, Pins, Row, StateStore};

/// How many ready entries are applied before their answers leave. Bounds the time for which the
/// first of them waits for the last.
const APPLY_RUN_MAX: usize = 64;
/// Digests are remembered at multiples of this index, so that nodes remember the same ones.
const DIGEST_EVERY: u64 = 256;
/// How many digests are remembered.
const DIGESTS_MAX: usize = 64;

/// The applied state as the rest of the node reads it.
pub(crate) struct Applied {
    state: RwLock<State>,
    index: watch::Sender<u64>,
    history: RwLock<History>,
    /// The revision up to which the history goes; closed when the node stops.
    revision: Mutex<Option<watch::Sender<u64>>>,
    digests: Mutex<Vec<(u64, [u8; 32])>>,
    pins: Pins,
}

impl Applied {
    /// The newest applied state; the clone is O(1).
    pub(crate) fn state(&self) -> State {
        self.state.read().expect("no code panics while it holds this lock").clone()
    }

    /// The newest applied state, and what keeps the bodies that it names.
    pub(crate) fn pinned(&self) -> (State, Pin) {
        let state = self.state.read().expect("no code panics while it holds this lock");
        let pin = self.pins.pin(applied_index(&state));
        (state.clone(), pin)
    }

    /// Follows the applied index.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }

    /// The state once `index` is applied, or `None` if the deadline comes first.
    pub(crate) async fn reach(&self, index: u64, deadline: runtime::Instant) -> Option<State> {
        let mut applied = self.index.subscribe();
        runtime::until(deadline, applied.wait_for(|applied| *applied >= index)).await?.ok()?;
        Some(self.state())
    }

    /// The remembered digests, oldest first, each with the index it is of.
    pub(crate) fn digests(&self) -> Vec<(u64, [u8; 32])> {
        self.digests.lock().expect("no code panics while it holds this lock").clone()
    }

    /// What those who watch learn of behind a revision; see [`History::behind`].
    pub(crate) fn changes_behind(&self, revision: u64, bytes_max: usize) -> Result<Run, u64> {
        let history = self.history.read().expect("no code panics while it holds this lock");
        history.behind(revision, bytes_max)
    }

    /// Follows the revision up to which the history goes; ends when the node stops.
    pub(crate) fn watch_revision(&self) -> watch::Receiver<u64> {
        let revision = self.revision.lock().expect("no code panics while it holds this lock");
        // Without a sender the receiver is closed from the start.
        revision.as_ref().map_or_else(|| watch::channel(0).1, watch::Sender::subscribe)
    }

    /// How many watches there are.
    pub(crate) fn watches(&self) -> usize {
        let revision = self.revision.lock().expect("no code panics while it holds this lock");
        revision.as_ref().map_or(0, watch::Sender::receiver_count)
    }

    /// Ends everybody's watching.
    pub(crate) fn end_watches(&self) {
        self.revision.lock().expect("no code panics while it holds this lock").take();
    }

    fn publish(&self, state: State, changes: Vec<Change>) {
        let revision = state.header().revision;
        let mut history = self.history.write().expect("no code panics while it holds this lock");
        history.append(changes, revision);
        drop(history);
        self.publish_behind_history(state);
    }

    /// Publishes a state that did not come about here: there is no history up to it. Returns the
    /// state in whose place it is, all of whose rows may be the caller's to free.
    fn publish_installed(&self, state: State) -> State {
        let history = History::new(state.header().revision);
        *self.history.write().expect("no code panics while it holds this lock") = history;
        self.publish_behind_history(state)
    }

    fn publish_behind_history(&self, state: State) -> State {
        let (index, revision) = (applied_index(&state), state.header().revision);
        let mut published = self.state.write().expect("no code panics while it holds this lock");
        let before = std::mem::replace(&mut *published, state);
        drop(published);
        self.pins.publish(index);
        self.index.send_replace(index);
        let newest = self.revision.lock().expect("no code panics while it holds this lock");
        if let Some(newest) = newest.as_ref() {
            newest.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
        }
        before
    }

    fn remember_digest(&self, state: &State) {
        let index = applied_index(state);
        if !index.is_multiple_of(DIGEST_EVERY) {
            return;
        }
        let mut digests = self.digests.lock().expect("no code panics while it holds this lock");
        if digests.len() == DIGESTS_MAX {
            digests.remove(0);
        }
        digests.push((index, state.header().digest.to_bytes()));
    }
}

/// The index of the last applied entry; 0 before the first.
pub(crate) fn applied_index(state: &State) -> u64 {
    state.header().applied.map_or(0, |position| position.index)
}

/// What openraft drives.
pub(crate) struct StateMachine {
    applied: Arc<Applied>,
    store: StateStore,
}

impl StateMachine {
    /// Builds the state from the store's rows and verifies it.
    pub(crate) fn new(store: StateStore, rows: Vec<Row>) -> Result<StateMachine, Fault> {
        let state = if rows.is_empty() { State::new() } else { State::from_rows(rows)? };
        let (index, _) = watch::channel(applied_index(&state));
        let (revision, _) = watch::channel(state.header().revision);
        let applied = Applied {
            history: RwLock::new(History::new(state.header().revision)),
            revision: Mutex::new(Some(revision)),
            state: RwLock::new(state),
            index,
            digests: Mutex::new(Vec::new()),
            pins: store.pins().clone(),
        };
        Ok(StateMachine { applied: Arc::new(applied), store })
    }

    pub(crate) fn applied(&self) -> Arc<Applied> {
        Arc::clone(&self.applied)
    }

    /// The state as it is now.
    fn image(&self) -> Image {
        let (state, pin) = self.applied.pinned();
        Image::kept(state, self.store.clone(), pin)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Image;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let meta = snapshot_meta(&self.applied.state())?;
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut runs = entries.ready_chunks(APPLY_RUN_MAX);
        while let Some(run) = runs.next().await {
            let mut state = self.applied.state();
            let (mut changes, mut bodies) = (Vec::new(), Vec::new());
            let mut answers = Vec::with_capacity(run.len());
            for item in run {
                let (entry, responder) = item?;
                let applied = apply_entry(&mut state, &entry)?;
                changes.extend(applied.changes);
                bodies.extend(applied.bodies.into_iter().map(|body| (body.hash.0, body.bytes)));
                answers.push((responder, Replies(applied.responses)));
                self.applied.remember_digest(&state);
            }
            let header = state.header_row();
            let index = applied_index(&state);
            let row = |change: &Change| (change.key.clone(), change.value.clone());
            let rows = changes.iter().map(row).collect();
            // Nobody else writes, so that what is not full now does not block; moving the thread's
            // other tasks elsewhere costs more than most writes.
            if self.store.is_full() {
                runtime::in_place(|| self.store.write(rows, bodies, header, index))?;
            } else {
                self.store.write(rows, bodies, header, index)?;
            }
            self.applied.publish(state, changes);
            for (responder, replies) in answers {
                if let Some(responder) = responder {
                    responder.send(replies);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { image: self.image(), store: self.store.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, image: Image) -> io::Result<()> {
        let last_log_id = snapshot_meta(image.state())?.last_log_id;
        assert_eq!(last_log_id, meta.last_log_id, "a snapshot is its state");
        let store = self.store.clone();
        let state = runtime::background(move || {
            let (state, building) = image.into_building(&store)?;
            let header = state.header_row();
            let applied = applied_index(&state);
            let rows = state.rows().map(|(key, value)| Ok((Arc::clone(key), Arc::clone(value))));
            store.install(building, rows, header, applied)?;
            Ok(state)
        })
        .await?;
        let before = self.applied.publish_installed(state);
        runtime::blocking(move || drop(before)).await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let image = self.image();
        let meta = snapshot_meta(image.state())?;
        Ok(meta.last_log_id.is_some().then_some(Snapshot { meta, snapshot: image }))
    }
}

fn apply_entry(state: &mut State, entry: &Entry) -> io::Result<holdfast_machine::Applied> {
    let at = LogPosition { term: entry.log_id.leader_id.term, index: entry.log_id.index };
    let applied = match &entry.payload {
        EntryPayload::Blank => state.apply(at, Payload::Blank),
        EntryPayload::Membership(membership) => {
            state.apply(at, Payload::Membership(&codec::encode(membership)))
        }
        EntryPayload::Normal(batch) => {
            let entry = holdfast_machine::Entry::decode(&batch.0).map_err(io::Error::other)?;
            state.apply(at, Payload::Batch(&entry))
        }
    };
    applied.map_err(io::Error::other)
}

/// Makes snapshots of the state as it was when openraft asked.
pub(crate) struct SnapshotBuilder {
    image: Image,
    store: StateStore,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (done, synced) = oneshot::channel();
        self.store.sync(Box::new(move |result| {
            // The waiter is gone only when raft has been stopped.
            let _ = done.send(result);
        }));
        synced.await.map_err(|_| io::Error::other("the state store has stopped"))??;
        let meta = snapshot_meta(self.image.state())?;
        Ok(Snapshot { meta, snapshot: self.image.clone() })
    }
}

/// What openraft wants to know about a state: its last log id and membership.
pub(crate) fn snapshot_meta(state: &State) -> io::Result<SnapshotMeta> {
    let header = state.header();
    let last_membership = match &header.membership {
        None => StoredMembership::default(),
        Some((set_at, bytes)) => {
            let membership: Membership = codec::decode("membership", bytes)?;
            StoredMembership::new(set_at.map(log_id), membership)
        }
    };
    Ok(SnapshotMeta { last_log_id: header.applied.map(log_id), last_membership })
}

fn log_id(position: LogPosition) -> LogId {
    LogId::new_term_index(position.term, position.index)
}
