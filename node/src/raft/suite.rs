//! openraft's own storage test suite, run on our log and state machine over real files.
//!
//! The suite applies entries with gaps between their indexes, which raft never does and our state
//! machine refuses; a wrapper fills the gaps with blank entries.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, RaftTypeConfig, StorageError};

use super::image::Image;
use super::log::Log;
use super::machine::{SnapshotBuilder, StateMachine, applied_index};
use super::types::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::store::{DataDir, LogStore, StateStore};

struct Filling(StateMachine);

impl RaftStateMachine<TypeConfig> for Filling {
    type SnapshotData = Image;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.0.applied_state().await
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let item = item?;
            let log_id = item.0.log_id;
            let state = self.0.applied().state();
            let next = state.header().applied.map_or(0, |_| applied_index(&state) + 1);
            let blanks = (next..log_id.index)
                .map(|index| Ok((Entry::new_blank(LogId::new(log_id.leader_id, index)), None)));
            self.0.apply(stream::iter(blanks)).await?;
            self.0.apply(stream::iter([Ok(item)])).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.0.get_snapshot_builder().await
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, image: Image) -> io::Result<()> {
        self.0.install_snapshot(meta, image).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.0.get_current_snapshot().await
    }
}

struct Builder;

type Guard = (tempfile::TempDir, DataDir);

impl StoreBuilder<TypeConfig, Log, Filling, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, Log, Filling), StorageError<TypeConfig>> {
        let place = tempfile::tempdir().expect("a temporary directory");
        let dir = DataDir::open(place.path(), Arc::new(|_: &str| ())).expect("open the directory");
        let (log, start) = LogStore::open(&dir).expect("open the log");
        let (state, rows) = StateStore::open(&dir).expect("open the state");
        let machine = StateMachine::new(state, rows).expect("an empty state");
        Ok(((place, dir), Log::new(log, start).expect("an empty log"), Filling(machine)))
    }
}

// G1 N3
#[test]
fn openraft_suite_passes_on_our_store() {
    let outcome = <TypeConfig as RaftTypeConfig>::AsyncRuntime::new(2);
    let mut runtime = outcome;
    use openraft::AsyncRuntime as _;
    runtime.block_on(async { Suite::test_all(Builder).await }).expect("every case passes");
}
