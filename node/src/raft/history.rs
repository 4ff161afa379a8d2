//! What was applied lately: the changes that those who watch learn of, by revision.
//!
//! The model: apply appends the changes of each revision at one end; at the other end the oldest go
//! when all together take too much memory. Watchers read from any point between, each with a cursor
//! of its own, so a slow one costs nothing. Changes share their bytes with the state.
//!
//! Invariants:
//! - From `oldest` on every change is here, up to `newest`, which is the revision of the applied
//!   state.
//! - All changes of a revision come and go together.
//! - A state that was installed from elsewhere has no history: it begins anew behind it.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

#[cfg(feature = "sim")]
use holdfast_machine::plant::{self, Plant};
use holdfast_machine::{Change, Event, Fault};

/// How much is remembered, in bytes. The names and values of a few minutes at a few thousand writes
/// a second; a watcher that was away for longer reads the state anew.
const BYTES_MAX: usize = 64 << 20;
/// What a remembered change takes beside its key and value, in bytes: pointers and counts.
const CHANGE_BYTES: usize = 160;

/// The changes of one revision.
#[derive(Debug)]
pub(crate) struct Revision {
    pub(crate) number: u64,
    changes: Vec<Change>,
    bytes: usize,
    /// Read from the changes when first asked for, by whichever watcher comes first.
    events: OnceLock<Result<Vec<Event>, Fault>>,
}

impl Revision {
    /// What those who watch learn of it, in order.
    pub(crate) fn events(&self) -> Result<&[Event], Fault> {
        let read = || self.changes.iter().filter_map(|change| change.event().transpose()).collect();
        self.events.get_or_init(read).as_deref().map_err(Clone::clone)
    }
}

/// A run of revisions.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) revisions: Vec<Arc<Revision>>,
    /// Everything up to this revision is in it.
    pub(crate) through: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct History {
    revisions: VecDeque<Arc<Revision>>,
    bytes: usize,
    bytes_max: usize,
    /// Every change from this revision on is here.
    oldest: u64,
    newest: u64,
}

impl History {
    /// Begins behind a state of this revision.
    pub(crate) fn new(revision: u64) -> History {
        History::within(revision, BYTES_MAX)
    }

    fn within(revision: u64, bytes_max: usize) -> History {
        let (oldest, newest) = (revision + 1, revision);
        History { revisions: VecDeque::new(), bytes: 0, bytes_max, oldest, newest }
    }

    /// Takes in what led to a state of this revision.
    pub(crate) fn append(&mut self, changes: Vec<Change>, revision: u64) {
        for change in changes.into_iter().filter(Change::is_event) {
            #[cfg(feature = "sim")]
            if plant::is(Plant::SkipEvent) && change.revision % 50 == 0 {
                continue;
            }
            let bytes =
                CHANGE_BYTES + change.key.len() + change.value.as_ref().map_or(0, |v| v.len());
            self.bytes += bytes;
            match self.revisions.back_mut().and_then(Arc::get_mut) {
                Some(last) if last.number == change.revision => {
                    last.bytes += bytes;
                    last.changes.push(change);
                }
                Some(_) | None => {
                    let (number, changes) = (change.revision, vec![change]);
                    let events = OnceLock::new();
                    self.revisions.push_back(Arc::new(Revision { number, changes, bytes, events }));
                }
            }
        }
        self.newest = revision;
        while self.bytes > self.bytes_max
            && let Some(first) = self.revisions.pop_front()
        {
            self.bytes -= first.bytes;
            self.oldest = first.number + 1;
        }
    }

    /// What comes behind `after`: as many revisions as these bytes hold, and at least one. An error
    /// with the oldest revision, if not everything behind it is here.
    pub(crate) fn behind(&self, after: u64, bytes_max: usize) -> Result<Run, u64> {
        if after + 1 < self.oldest {
            return Err(self.oldest);
        }
        let begin = self.revisions.partition_point(|revision| revision.number <= after);
        let mut bytes = 0;
        let fits = |revision: &&Arc<Revision>| {
            let is_first = bytes == 0;
            bytes += revision.bytes;
            is_first || bytes <= bytes_max
        };
        let revisions: Vec<_> = self.revisions.range(begin..).take_while(fits).cloned().collect();
        let is_all = begin + revisions.len() == self.revisions.len();
        let through = match revisions.last() {
            Some(last) if !is_all => last.number,
            Some(_) | None => self.newest,
        };
        Ok(Run { revisions, through })
    }
}

#[cfg(test)]
mod tests {
    use holdfast_machine::{Entry, LogPosition, Origin, Payload, Request, State, sessions, state};

    use super::*;

    /// A state with an object, and the history of how it came about.
    struct Fixture {
        state: State,
        history: History,
    }

    impl Fixture {
        fn new(bytes_max: usize) -> Fixture {
            let mut fixture =
                Fixture { state: State::new(), history: History::within(0, bytes_max) };
            let open = sessions::Command::Open { idle_ms: 60_000 };
            fixture.apply(vec![Request { origin: None, command: open.into_command() }]);
            fixture
        }

        fn apply(&mut self, requests: Vec<Request>) {
            let index = self.state.header().applied.map_or(0, |at| at.index + 1);
            let entry = Entry { clock_ms: 0, wall_ms: 0, requests };
            let at = LogPosition { term: 1, index };
            let applied = self.state.apply(at, Payload::Batch(&entry)).expect("it is in order");
            self.history.append(applied.changes, self.state.header().revision);
        }

        fn create_object(&mut self, seq: u64) {
            let (namespace, class_name) = ("default".to_owned(), "Test".to_owned());
            let name = format!("object-{seq}");
            let command = state::Command::GetObjectId { namespace, name, class_name };
            let origin = Some(Origin { session: 1, seq, first_incomplete: seq, resent: false });
            let command = holdfast_machine::Command::State(command);
            self.apply(vec![Request { origin, command }]);
        }

        fn numbers(&self, after: u64, bytes_max: usize) -> Result<(Vec<u64>, u64), u64> {
            let run = self.history.behind(after, bytes_max)?;
            Ok((run.revisions.iter().map(|revision| revision.number).collect(), run.through))
        }
    }

    trait IntoCommand {
        fn into_command(self) -> holdfast_machine::Command;
    }

    impl IntoCommand for sessions::Command {
        fn into_command(self) -> holdfast_machine::Command {
            holdfast_machine::Command::Session(self)
        }
    }

    // W1
    #[test]
    fn every_revision_with_events_is_there_once_and_in_order() {
        let mut fixture = Fixture::new(usize::MAX);
        assert_eq!(fixture.numbers(0, 1), Ok((vec![], 1)), "a session is no event");
        for seq in 1..=5 {
            fixture.create_object(seq);
        }
        assert_eq!(fixture.numbers(0, usize::MAX), Ok((vec![2, 3, 4, 5, 6], 6)));
        assert_eq!(fixture.numbers(3, usize::MAX), Ok((vec![4, 5, 6], 6)));
        assert_eq!(fixture.numbers(6, usize::MAX), Ok((vec![], 6)));
        assert_eq!(fixture.numbers(9, usize::MAX), Ok((vec![], 6)), "the future");
        assert_eq!(fixture.numbers(0, 1), Ok((vec![2], 2)), "one at least");
        let run = fixture.history.behind(5, usize::MAX).expect("it is kept");
        let events = run.revisions[0].events().expect("they can be read");
        assert!(matches!(events, [Event::State(state::Event::ObjectCreated { .. })]), "{events:?}");
    }

    // W2
    #[test]
    fn below_the_oldest_is_compacted() {
        let mut probe = Fixture::new(usize::MAX);
        probe.create_object(1);
        let one = probe.history.bytes;
        let mut fixture = Fixture::new(2 * one);
        for seq in 1..=5 {
            fixture.create_object(seq);
        }
        assert_eq!(fixture.numbers(4, usize::MAX), Ok((vec![5, 6], 6)), "at the limit");
        assert_eq!(fixture.numbers(3, usize::MAX), Err(5), "one below it");
    }
}
