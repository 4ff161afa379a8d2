//! openraft's log storage on our log store.
//!
//! An append returns at once: the record is readable from memory, and openraft is told when the
//! store's writer has made it durable together with everything else that was waiting (group
//! commit). A vote is durable before `save_vote` returns. `save_committed` rides with the next
//! append: losing it costs a restarted node a round of catching up, never data.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};
use tokio::sync::oneshot;

use super::codec;
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::store::{LogStart, LogStore};

/// How many bytes of entries one read returns at most, so that a message to a follower stays far
/// below the 16 MiB that peers accept: at least one entry (at most 9 MiB) is always returned.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The log of one node, as openraft sees it.
#[derive(Clone)]
pub(crate) struct Log {
    store: LogStore,
    cached: Arc<Mutex<Cached>>,
}

/// What openraft asks for often; equal to what was last handed to the store.
struct Cached {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
}

impl Log {
    /// Wraps an opened store, decoding what it recovered.
    pub(crate) fn new(store: LogStore, start: LogStart) -> io::Result<Log> {
        let purged: Option<LogId> =
            start.purged.map(|bytes| codec::decode("purged log id", &bytes)).transpose()?;
        let last = match (start.last_index, start.last_entry) {
            (Some(index), Some(record)) => Some(codec::record_log_id(index, &record)?),
            (_, _) => purged,
        };
        let cached = Cached {
            vote: start.vote.map(|bytes| codec::decode("vote", &bytes)).transpose()?,
            committed: start
                .committed
                .map(|bytes| codec::decode("committed log id", &bytes))
                .transpose()?,
            purged,
            last,
        };
        Ok(Log { store, cached: Arc::new(Mutex::new(cached)) })
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, Cached> {
        self.cached.lock().expect("no code panics while it holds this lock")
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        decode_all(self.store.read(start..end, u64::MAX)?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        decode_all(self.store.read(start..end, READ_BYTES_MAX)?)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.cached().vote)
    }
}

fn decode_all(records: Vec<(u64, bytes::Bytes)>) -> io::Result<Vec<Entry>> {
    records.iter().map(|(index, record)| codec::decode_record(*index, record)).collect()
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let cached = self.cached();
        Ok(LogState { last_purged_log_id: cached.purged, last_log_id: cached.last })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let bytes = codec::encode(vote).to_vec();
        durable(|done| self.store.save_vote(bytes, done)).await?;
        self.cached().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.store.save_committed(codec::encode(&committed).to_vec());
        }
        self.cached().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.cached().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = <TypeConfig as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut last = None;
        let records = entries
            .into_iter()
            .map(|entry| {
                last = Some(entry.log_id);
                (entry.log_id.index, codec::encode_record(&entry))
            })
            .collect();
        if let Some(last) = last {
            self.cached().last = Some(last);
        }
        self.store.append(records, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        {
            let mut cached = self.cached();
            // Truncating behind the end leaves the end where it is.
            if cached.last.is_some_and(|present| present.index >= from) {
                cached.last = last.or(cached.purged);
            }
        }
        durable(|done| self.store.truncate_from(from, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut cached = self.cached();
            cached.purged = Some(upto);
            if cached.last.is_none_or(|last| last.index <= upto.index) {
                cached.last = Some(upto);
            }
        }
        // Nothing waits for a purge: what it leaves behind is purged again after a restart.
        self.store.purge_to(upto.index, codec::encode(&upto).to_vec(), Box::new(|_| ()));
        Ok(())
    }
}

/// Waits until the store calls `done`.
async fn durable(start: impl FnOnce(Box<dyn FnOnce(io::Result<()>) + Send>)) -> io::Result<()> {
    let (done, wait) = oneshot::channel();
    start(Box::new(move |result| {
        // The waiter is gone only when raft has been stopped.
        let _ = done.send(result);
    }));
    wait.await.map_err(|_| io::Error::other("the log store has stopped"))?
}
