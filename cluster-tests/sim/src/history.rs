//! What clients and watchers saw, by the clock of the simulation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holdfast_machine::{Command, Event, Refusal, Reply, State};

/// One write, with all its transmissions.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who made it.
    pub client: usize,
    /// When it was first sent.
    pub began: Duration,
    /// When it was answered, or given up.
    pub ended: Duration,
    /// What it was to do.
    pub command: Command,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a write.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It was carried out.
    Reply {
        /// At which revision.
        revision: u64,
        /// What it did.
        reply: Reply,
    },
    /// A deterministic no.
    Refused(Refusal),
    /// It was not carried out and never will be.
    NotApplied,
    /// Nobody knows.
    Unknown,
}

/// A linearizable read of the registers.
#[derive(Clone, Debug)]
pub struct Read {
    /// Who made it.
    pub client: usize,
    /// When it was sent.
    pub began: Duration,
    /// When it was answered.
    pub ended: Duration,
    /// The revision of the state that answered.
    pub revision: u64,
    /// What was in it: by name, the value's revision and the value.
    pub items: BTreeMap<String, (u64, Vec<u8>)>,
}

/// What the variables of transactions were in one state.
#[derive(Clone, Debug)]
pub struct Together {
    /// Who read it.
    pub client: usize,
    /// The state's revision.
    pub revision: u64,
    /// What was in it, by key.
    pub values: BTreeMap<String, u64>,
}

/// What a client of stored objects did to two that belong together.
#[derive(Clone, Debug)]
pub struct StoredCall {
    /// The id of the first; the other follows it.
    pub pair: u64,
    /// What both were to bear; none if they were to be removed.
    pub stamp: Option<String>,
    /// What came of it.
    pub done: Done,
}

/// What came of a change of stored objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// They were saved at this revision.
    At(u64),
    /// They were removed.
    Removed,
    /// Nobody knows, or it was not carried out.
    Perhaps,
}

/// Which stored objects were seen in one state.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// The state's revision.
    pub revision: u64,
    /// Of each pair that is seen, the ids, stamps and revisions.
    pub pairs: BTreeMap<u64, Vec<(u64, String, u64)>>,
}

/// What one watch handed out.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Whose watch it was.
    pub watcher: usize,
    /// On which node.
    pub node: u64,
    /// It began behind this revision.
    pub after: u64,
    /// All revisions with their events, as they came.
    pub revisions: Vec<(u64, Vec<Event>)>,
    /// It was told that there is nothing more up to here.
    pub through: u64,
}

/// A node that was seen to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeadSeen {
    /// The term that it led.
    pub term: u64,
    /// The node.
    pub node: u64,
}

/// How a run ended, once all faults were over.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// When the last fault was over.
    pub healed: Duration,
    /// When the first write that began after that was acknowledged.
    pub wrote: Option<Duration>,
    /// What each node had applied, once they had time to catch up.
    pub states: BTreeMap<u64, State>,
    /// Which bodies that these states name could not be read.
    pub bodies_missing: Vec<String>,
    /// What has gone wrong inside of nodes.
    pub faults: Vec<String>,
}

/// Everything that was seen in one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The object that all items belong to.
    pub object: i64,
    /// The change sources; all but the first share a group.
    pub sources: Vec<i64>,
    /// Whether every clock is right to within half a percent.
    pub clocks_are_good: bool,
    /// All writes, in the order in which they ended.
    pub calls: Vec<Call>,
    /// All linearizable reads that were answered.
    pub reads: Vec<Read>,
    /// All that transactions read, linearizably or not.
    pub together: Vec<Together>,
    /// What was done to stored objects, in the order in which it ended.
    pub stored: Vec<StoredCall>,
    /// What stored objects were seen, linearizably or not.
    pub pairs: Vec<Pairs>,
    /// All watches.
    pub segments: Vec<Segment>,
    /// Each node and term of which the node was seen to lead, with the first and last time.
    pub leads: BTreeMap<LeadSeen, (Duration, Duration)>,
    /// How it ended.
    pub ended: Ended,
}

impl History {
    /// Every event that any watch handed out, by revision.
    #[must_use]
    pub fn events(&self) -> BTreeMap<u64, &[Event]> {
        let revisions = self.segments.iter().flat_map(|segment| &segment.revisions);
        revisions.map(|(number, events)| (*number, events.as_slice())).collect()
    }

    /// Whether some watch was told everything up to this revision and from there on.
    #[must_use]
    pub fn is_watched(&self, revision: u64) -> bool {
        self.segments.iter().any(|segment| segment.after < revision && revision <= segment.through)
    }

    /// The change source that stands for all of its group.
    #[must_use]
    pub fn head(&self, changesource: i64) -> i64 {
        match self.sources.as_slice() {
            [_, head, rest @ ..] if rest.contains(&changesource) => *head,
            _ => changesource,
        }
    }

    /// The writes that were answered, with what they did and at which revision.
    pub fn replies(&self) -> impl Iterator<Item = (&Call, &Reply, u64)> {
        self.calls.iter().filter_map(|call| match &call.answer {
            Answer::Reply { revision, reply } => Some((call, reply, *revision)),
            Answer::Refused(_) | Answer::NotApplied | Answer::Unknown => None,
        })
    }
}

/// A history in the making; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<History>>);

impl Recorder {
    pub(crate) fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap()
    }

    pub(crate) fn take(&self) -> History {
        std::mem::take(&mut *self.lock())
    }
}
