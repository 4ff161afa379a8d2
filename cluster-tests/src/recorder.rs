//! Notes what clients ask of a cluster and what they are told, for `holdfast_history` to judge.
//!
//! All moments are microseconds on CLOCK_BOOTTIME: the clock that lease holders count on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_client::{Applied, BootTime, Created, Error, State, Value, Written};
use holdfast_history::{
    Answer, Call, FencedWrite, Held, Op, Outcome, STEPS_MAX, Sighting, Stream, Tenure,
    check_fences, check_keys, check_revisions, check_sightings, check_streams, check_tenures,
};

/// All that was noted in a run.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Calls on the keys of one object.
    pub calls: Vec<Call>,
    /// Grants of change sources, as their owners knew them.
    pub tenures: Vec<Tenure>,
    /// What anybody was told of change sources.
    pub sightings: Vec<Sighting>,
    /// Writes that were accepted under a fence.
    pub fenced: Vec<FencedWrite>,
    /// What watchers of that object saw.
    pub streams: Vec<Stream>,
}

/// Takes notes from many tasks.
#[derive(Debug, Default)]
pub struct Recorder {
    // A std lock: held for a push, never across an await.
    record: Mutex<Record>,
}

/// The present moment on the clock of all records.
#[must_use]
pub fn boot_us() -> u64 {
    micros(BootTime::now())
}

/// A moment on the clock of all records.
#[must_use]
pub fn micros(moment: BootTime) -> u64 {
    u64::try_from(moment.since_boot().as_micros()).expect("no machine runs that long")
}

impl Record {
    /// Judges it by all rules; returns how many steps the search for an order took.
    ///
    /// # Errors
    /// The first rule that does not hold, or that it could not be decided.
    pub fn check(&self) -> Result<u64, holdfast_history::Error> {
        check_revisions(&self.calls)?;
        let steps = check_keys(&self.calls, STEPS_MAX)?;
        check_streams(&self.calls, &self.streams)?;
        check_tenures(&self.tenures)?;
        check_sightings(&self.tenures, &self.sightings)?;
        check_fences(&self.tenures, &self.fenced)?;
        Ok(steps)
    }

    /// How many calls got no answer and may have done something.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.calls.iter().filter(|call| call.outcome == Outcome::Unknown).count()
    }
}

impl Recorder {
    /// Notes a call on a key that has just ended.
    pub fn call(&self, client: usize, key: &str, op: Op, invoked_us: u64, outcome: Outcome) {
        self.lock().calls.push(Call { client, key: key.into(), invoked_us, op, outcome });
    }

    /// Notes a grant that is over.
    pub fn tenure(&self, tenure: Tenure) {
        self.lock().tenures.push(tenure);
    }

    /// Notes what somebody was told of a change source.
    pub fn sighting(&self, sighting: Sighting) {
        self.lock().sightings.push(sighting);
    }

    /// Notes a write that was accepted under a fence.
    pub fn fenced(&self, write: FencedWrite) {
        self.lock().fenced.push(write);
    }

    /// Notes what a watcher saw.
    pub fn stream(&self, stream: Stream) {
        self.lock().streams.push(stream);
    }

    /// Looks at what was noted so far.
    pub fn look<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.lock())
    }

    /// All that was noted, which it forgets.
    #[must_use]
    pub fn take(&self) -> Record {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a call on a key of an object, and says what came of it; a call that the client refused to
/// send, or that the cluster refused, was not applied.
pub async fn ask(state: &State, object: i64, key: &str, op: &Op) -> Outcome {
    let answer = match op {
        Op::Get => state.get(object, key).await.map(found),
        Op::Set { value } => state.set(object, key, &**value).await.map(written),
        Op::SetIf { value, if_revision } => {
            state.set_if(object, key, &**value, *if_revision).await.map(written)
        }
        Op::Create { value } => state.create(object, key, &**value).await.map(created),
        Op::Delete => state.delete(object, key).await.map(Answer::Deleted),
    };
    outcome(answer)
}

/// What came of a call, given its result; to be called as soon as that is there.
pub fn outcome(result: Result<Answer, Error>) -> Outcome {
    match result {
        Ok(answer) => Outcome::Returned { at_us: boot_us(), answer },
        Err(error) => match error.applied() {
            Applied::No => Outcome::NotApplied,
            Applied::Unknown => Outcome::Unknown,
        },
    }
}

/// The answer to a read.
#[must_use]
pub fn found(value: Option<Value>) -> Answer {
    match value {
        None => Answer::Absent,
        Some(Value { bytes, mod_revision, revision }) => {
            Answer::Found { held: Held { value: bytes.into(), mod_revision }, revision }
        }
    }
}

/// The answer to a write that overwrites.
#[must_use]
pub fn written(written: Written) -> Answer {
    let Written { written, value, mod_revision, revision } = written;
    match written {
        true => Answer::Written { mod_revision, revision },
        false => {
            let held = value.map(|value| Held { value: value.into(), mod_revision });
            Answer::Lost { held, revision }
        }
    }
}

fn created(created: Created) -> Answer {
    let Created { created, value, mod_revision, revision } = created;
    match created {
        true => Answer::Written { mod_revision, revision },
        false => Answer::Lost { held: Some(Held { value: value.into(), mod_revision }), revision },
    }
}
