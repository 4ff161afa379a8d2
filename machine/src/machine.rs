//! The state and the one function that changes it.
//!
//! # Apply
//!
//! The entry must be the one that comes next. Blank and membership entries move only the header. An entry
//! with commands first moves the clock, then ends leases that are due (at most
//! [`LEASES_ENDED_PER_ENTRY_MAX`], each with all its claims), then rights to create (about
//! [`CREATORS_EXPIRED_PER_ENTRY_MAX`]), then clears away expired sessions and what uploads have left behind
//! (about [`LEFT_ROWS_PER_ENTRY_MAX`]), then runs its requests in order. A request that comes upon a lease which
//! is due, but was beyond the bound, has it ended first, and one that comes upon committed objects has them
//! settled. After whatever ends a claim, freed change sources go to those who wait for them, again up to a
//! bound. Each grant, each ended lease, what an entry settles of each upload, and each request is a step of its own: it is kept whole or not at all,
//! and it raises the revision by one if it changed rows. The bookkeeping of sessions does not.
//!
//! # Invariants
//!
//! - The header's digest is that of the rows, after every apply.
//! - The header row is not among the changes: whoever stores the changes stores [`State::header_row`] too.

use crate::fault::Fault;
use crate::header::{self, Header, LogPosition};
use crate::limits::{
    CREATORS_EXPIRED_PER_ENTRY_MAX, GRANTS_PER_ENTRY_MAX, LEASES_ENDED_PER_ENTRY_MAX,
    LEFT_ROWS_PER_ENTRY_MAX,
};
#[cfg(feature = "plant")]
use crate::plant::{self, Plant};
use crate::sessions::Standing;
use crate::table::{Rows, Touched, Txn, View};
use crate::{
    BodyChange, Bytes, Command, Entry, Origin, Refusal, Reply, Request, Response, changesources,
    chunks, claims, creators, import, leases, masters, objects, queues, sessions, state, stm,
    uploads,
};

/// What an entry carries.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Nothing; it opens a term.
    Blank,
    /// The members of the cluster, in the caller's encoding.
    Membership(&'a [u8]),
    /// Requests, or a tick.
    Batch(&'a Entry),
}

/// One row that an entry changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision that changed it; for a session's bookkeeping, the one at which it was done.
    pub revision: u64,
    /// The row's key.
    pub key: Bytes,
    /// The row's new value, or none if it was removed.
    pub value: Option<Bytes>,
}

/// What came of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One for each request, in order.
    pub responses: Vec<Response>,
    /// All changed rows in the order in which they changed; a row can come more than once.
    pub changes: Vec<Change>,
    /// The bodies that came and went with these changes, in the order in which they did. To be kept and
    /// forgotten together with them.
    pub bodies: Vec<BodyChange>,
}

/// The replicated state. A clone is a snapshot: it costs nothing and shares all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    rows: Rows,
    /// The keys and values of all rows, and the bodies that they name, in bytes.
    bytes: u64,
    header: Header,
}

/// What the steps of an entry have changed so far.
struct Made<'a> {
    changes: &'a mut Vec<Change>,
    bodies: &'a mut Vec<BodyChange>,
}

/// Why a step was not carried out. `?` on either kind ends the step.
pub(crate) enum Stop {
    /// A deterministic no, for the caller.
    Refused(Refusal),
    /// The node stops.
    Fault(Fault),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// Whether a step that changed rows raises the revision.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It does.
    Write,
    /// It does not: only sessions' rows changed.
    Bookkeeping,
}

impl Default for State {
    fn default() -> Self {
        State::new()
    }
}

impl State {
    /// The state before the first entry.
    pub fn new() -> State {
        State { rows: Rows::new(), bytes: 0, header: Header::first() }
    }

    /// The state that these rows, with their header row, are all of.
    ///
    /// The digest is computed anew. A fault if it is not the header's, if there is no header, or if the
    /// header is of a level that this build does not know.
    pub fn from_rows(rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<State, Fault> {
        let mut stored = None;
        let mut state = State::new();
        for (key, value) in rows {
            if *key == header::KEY {
                stored = Some(Header::decode(&value)?);
            } else {
                #[cfg(feature = "plant")]
                if plant::is(Plant::SnapshotWithoutOutcomes) && sessions::is_outcome(&key) {
                    continue;
                }
                state.header.digest.add(&key, &value);
                state.bytes += row_bytes(&key, &value)?;
                state.rows.insert(key, value);
            }
        }
        let stored = stored.ok_or(Fault::NoHeader)?;
        let computed = state.header.digest;
        #[cfg(feature = "plant")]
        let stored = plant::with_digest(stored, computed);
        if stored.digest != computed {
            return Err(Fault::DigestMismatch { stored: stored.digest, computed });
        }
        state.header = stored;
        Ok(state)
    }

    /// What the state knows about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The row that keeps the header, to be stored together with the changes that led to it.
    pub fn header_row(&self) -> (Bytes, Bytes) {
        (header::KEY.as_slice().into(), self.header.encode())
    }

    /// All rows in order of their keys, without the header's.
    pub fn rows(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.rows.iter()
    }

    /// How many rows there are, without the header's.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many bytes the keys and values of all rows take, without the header's, and the bodies that rows name.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the next lease, right to create, session or upload may lapse, by the cluster clock; at or before the
    /// present clock if one has lapsed and is yet to be cleared away, if a freed change source is yet to be
    /// granted, or if a committed upload is yet to settle. The leader proposes a tick when that time comes.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        // A row that cannot be read is due at once: the tick's apply meets it, and faults.
        if !matches!(queues::first_freed(self.view()), Ok(None)) {
            return Some(0);
        }
        let lease = leases::first_deadline(self.view()).unwrap_or(Some((0, 0)));
        let creator = creators::first_deadline(self.view()).unwrap_or(Some((0, 0)));
        let session = sessions::first_check_ms(self.view()).unwrap_or(Some(0));
        let deadlines = lease.into_iter().chain(creator).map(|(deadline_ms, _)| deadline_ms);
        let upload = uploads::first_deadline(self.view()).unwrap_or(Some(0));
        deadlines.chain(session).chain(upload).min()
    }

    /// Whether there is a lease, or somebody has the right to create, so that a leader has to keep the
    /// clock going.
    pub fn has_lease(&self) -> bool {
        leases::first_deadline(self.view()).is_ok_and(|first| first.is_some())
            || creators::first_deadline(self.view()).is_ok_and(|first| first.is_some())
    }

    /// The outcome that a session keeps for a write. None if there is none, or none that can be read.
    pub fn replied(&self, origin: &Origin) -> Option<Response> {
        sessions::outcome(self.view(), origin).ok().flatten()
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { rows: &self.rows, clock_ms: self.header.clock_ms }
    }

    /// Applies the next entry.
    ///
    /// After a fault the state is not that of any entry and must not be used.
    pub fn apply(&mut self, at: LogPosition, payload: Payload<'_>) -> Result<Applied, Fault> {
        self.header.check_next(at)?;
        let mut applied = Applied::default();
        match payload {
            Payload::Blank => {}
            Payload::Membership(members) => self.header.set_membership(at, members)?,
            Payload::Batch(entry) => self.apply_entry(entry, &mut applied)?,
        }
        self.header.applied = Some(at);
        Ok(applied)
    }

    fn apply_entry(&mut self, entry: &Entry, applied: &mut Applied) -> Result<(), Fault> {
        self.header.clock_ms = self.header.clock_ms.max(entry.clock_ms);
        #[cfg(feature = "plant")]
        plant::begin_entry(self.header.revision);
        let made = &mut Made { changes: &mut applied.changes, bodies: &mut applied.bodies };
        for _ in 0..LEASES_ENDED_PER_ENTRY_MAX {
            let Some(lease) = masters::first_lapsed(self.view())? else { break };
            self.unrefused_step(entry.wall_ms, Kind::Write, made, |txn| {
                masters::expire(txn, lease)
            })?;
        }
        let mut expired = 0;
        while expired < CREATORS_EXPIRED_PER_ENTRY_MAX
            && let Some(first) = creators::first_lapsed(self.view())?
        {
            self.unrefused_step(entry.wall_ms, Kind::Write, made, |txn| {
                expired += creators::expire(txn, first)?;
                Ok(())
            })?;
        }
        self.unrefused_step(entry.wall_ms, Kind::Bookkeeping, made, sessions::expire)?;
        let mut left = LEFT_ROWS_PER_ENTRY_MAX;
        while left > 0
            && let Some(upload) = uploads::first_over(self.view())?
        {
            self.unrefused_step(entry.wall_ms, Kind::Write, made, |txn| {
                uploads::clear(txn, upload, &mut left)
            })?;
        }
        let mut grants = GRANTS_PER_ENTRY_MAX;
        self.serve_freed(entry.wall_ms, &mut grants, made)?;
        for request in &entry.requests {
            let response = self.apply_request(entry.wall_ms, request, made)?;
            applied.responses.push(response);
            self.serve_freed(entry.wall_ms, &mut grants, made)?;
        }
        Ok(())
    }

    /// Grants freed change sources to those who wait for them, at most so many.
    fn serve_freed(
        &mut self,
        wall_ms: u64,
        at_most: &mut usize,
        made: &mut Made<'_>,
    ) -> Result<(), Fault> {
        while *at_most > 0
            && let Some((namespace, changesource)) = queues::first_freed(self.view())?
        {
            let granted = claims::group_size(self.view(), &namespace, changesource)?;
            *at_most = at_most.saturating_sub(granted);
            self.unrefused_step(wall_ms, Kind::Write, made, |txn| {
                changesources::serve(txn, &namespace, changesource)
            })?;
        }
        Ok(())
    }

    fn apply_request(
        &mut self,
        wall_ms: u64,
        request: &Request,
        made: &mut Made<'_>,
    ) -> Result<Response, Fault> {
        let Some(origin) = &request.origin else {
            return self.run(wall_ms, 0, request, made);
        };
        if let Command::Session(_) = request.command {
            return self.run(wall_ms, 0, request, made);
        }
        let session = match sessions::live(self.view(), origin.session) {
            Ok(session) => session,
            Err(Stop::Refused(refusal)) => return Ok(self.respond(Err(refusal))),
            Err(Stop::Fault(fault)) => return Err(fault),
        };
        let (response, is_new) = match sessions::look_up(self.view(), origin, &session)? {
            Standing::New => (self.run(wall_ms, origin.session, request, made)?, true),
            Standing::Known(response) => (response, false),
            Standing::Refused(refusal) => (self.respond(Err(refusal)), false),
        };
        self.unrefused_step(wall_ms, Kind::Bookkeeping, made, |txn| {
            sessions::settle(txn, origin, session, is_new.then_some(&response))
        })?;
        Ok(response)
    }

    /// Runs a request, whatever its session knows of it.
    fn run(
        &mut self,
        wall_ms: u64,
        session: u64,
        request: &Request,
        made: &mut Made<'_>,
    ) -> Result<Response, Fault> {
        if let Err(refusal) = request.validate() {
            return Ok(self.respond(Err(refusal)));
        }
        while let Some(lease) = self.lapsed_in_the_way(&request.command)? {
            self.unrefused_step(wall_ms, Kind::Write, made, |txn| masters::expire(txn, lease))?;
        }
        while let Command::ChangeSources(command) = &request.command
            && let Some((namespace, id)) = changesources::freed_in_the_way(self.view(), command)?
        {
            self.unrefused_step(wall_ms, Kind::Write, made, |txn| {
                changesources::serve(txn, namespace, id)
            })?;
        }
        if let Command::Objects(command) = &request.command {
            for (upload, ids) in objects::unsettled_in_the_way(self.view(), command)?.values() {
                self.unrefused_step(wall_ms, Kind::Write, made, |txn| {
                    uploads::settle(txn, *upload, ids)
                })?;
            }
        }
        let kind = match &request.command {
            Command::Session(command) if !command.raises_revision() => Kind::Bookkeeping,
            Command::Session(_)
            | Command::State(_)
            | Command::Masters(_)
            | Command::ChangeSources(_)
            | Command::Creators(_)
            | Command::Import(_)
            | Command::Objects(_)
            | Command::Stm(_) => Kind::Write,
        };
        let outcome = self.step(wall_ms, kind, made, |txn| match &request.command {
            Command::Session(command) => sessions::apply(txn, command).map(Reply::Session),
            Command::State(command) => state::apply(txn, session, command).map(Reply::State),
            Command::Masters(command) => masters::apply(txn, command).map(Reply::Masters),
            Command::ChangeSources(command) => {
                changesources::apply(txn, command).map(Reply::ChangeSources)
            }
            Command::Creators(command) => creators::apply(txn, command).map(Reply::Creators),
            Command::Import(command) => import::apply(txn, session, command).map(Reply::Import),
            Command::Objects(command) => objects::apply(txn, command).map(Reply::Objects),
            Command::Stm(command) => stm::apply(txn, command).map(Reply::Stm),
        })?;
        Ok(self.respond(outcome))
    }

    /// A lapsed lease that still has its rows, and that the command would come upon.
    ///
    /// It ends in a step of its own, so that a change source never passes from one owner to the next in one
    /// change. There is at most one for each master that the command concerns.
    fn lapsed_in_the_way(&self, command: &Command) -> Result<Option<u64>, Fault> {
        let view = self.view();
        match command {
            Command::Session(_)
            | Command::State(_)
            | Command::Creators(_)
            | Command::Import(_)
            | Command::Objects(_)
            | Command::Stm(_) => Ok(None),
            Command::Masters(_) | Command::ChangeSources(_)
                if masters::first_lapsed(view)?.is_none() =>
            {
                Ok(None)
            }
            Command::Masters(command) => masters::lapsed_in_the_way(view, command),
            Command::ChangeSources(command) => changesources::lapsed_in_the_way(view, command),
        }
    }

    fn respond(&self, outcome: Result<Reply, Refusal>) -> Response {
        Response { revision: self.header.revision, outcome }
    }

    fn unrefused_step(
        &mut self,
        wall_ms: u64,
        kind: Kind,
        made: &mut Made<'_>,
        run: impl FnOnce(&mut Txn<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        // The closure cannot refuse, so there is no refusal to look at.
        self.step(wall_ms, kind, made, |txn| Ok(run(txn)?)).map(|_| ())
    }

    /// Carries out one step: keeps all it writes, or nothing.
    fn step<T>(
        &mut self,
        wall_ms: u64,
        kind: Kind,
        made: &mut Made<'_>,
        run: impl FnOnce(&mut Txn<'_>) -> Result<T, Stop>,
    ) -> Result<Result<T, Refusal>, Fault> {
        let Header { clock_ms, revision, .. } = self.header;
        let mut txn = Txn::new(&mut self.rows, clock_ms, wall_ms, revision + 1);
        let done = match run(&mut txn) {
            Ok(done) => done,
            Err(Stop::Refused(refusal)) => {
                txn.undo();
                return Ok(Err(refusal));
            }
            Err(Stop::Fault(fault)) => return Err(fault),
        };
        let (changed, mut came) = txn.finish();
        let mut changed = changed.peekable();
        let raises = kind == Kind::Write && changed.peek().is_some();
        #[cfg(feature = "plant")]
        let raises = raises && plant::raises(self.header.revision);
        if raises {
            self.header.revision += 1;
        }
        let revision = self.header.revision;
        for (key, row) in changed {
            if let Some((hash, comes)) = chunks::comes_or_goes(&key, &row)? {
                let bytes = if comes { came.remove(&hash) } else { None };
                made.bodies.push(BodyChange { hash, bytes });
            }
            let Touched { before, after } = row;
            if let Some(value) = &before {
                self.header.digest.remove(&key, value);
                self.bytes -= row_bytes(&key, value)?;
            }
            if let Some(value) = &after {
                self.header.digest.add(&key, value);
                self.bytes += row_bytes(&key, value)?;
            }
            made.changes.push(Change { revision, key, value: after });
        }
        Ok(Ok(done))
    }
}

/// How many bytes a row takes, and the body that is kept beside it.
fn row_bytes(key: &[u8], value: &[u8]) -> Result<u64, Fault> {
    Ok((key.len() + value.len()) as u64 + chunks::body_bytes(key, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::CodecError;

    fn at(term: u64, index: u64) -> LogPosition {
        LogPosition { term, index }
    }

    /// A state with a session and a lease's worth of rows.
    fn some_state() -> State {
        let mut state = State::new();
        let open = sessions::Command::Open { idle_ms: 10_000 };
        let requests = vec![Request { origin: None, command: Command::Session(open) }];
        let entry = Entry { clock_ms: 5, wall_ms: 0, requests };
        state.apply(at(1, 0), Payload::Batch(&entry)).expect("it is in order");
        state
    }

    fn all_rows(state: &State) -> Vec<(Bytes, Bytes)> {
        let rows = state.rows().map(|(key, value)| (key.clone(), value.clone()));
        rows.chain([state.header_row()]).collect()
    }

    #[test]
    fn entries_come_in_order() {
        let mut state = State::new();
        let missing = Fault::OutOfOrder { expected: 0, actual: 1 };
        assert_eq!(state.apply(at(1, 1), Payload::Blank), Err(missing));
        assert_eq!(state.apply(at(1, 0), Payload::Blank), Ok(Applied::default()));
        let again = Fault::OutOfOrder { expected: 1, actual: 0 };
        assert_eq!(state.apply(at(1, 0), Payload::Blank), Err(again));
        let skipped = Fault::OutOfOrder { expected: 1, actual: 2 };
        assert_eq!(state.apply(at(1, 2), Payload::Blank), Err(skipped));
        assert_eq!(state.apply(at(3, 1), Payload::Blank), Ok(Applied::default()));
        let back = Fault::TermWentBack { applied: 3, actual: 2 };
        assert_eq!(state.apply(at(2, 2), Payload::Blank), Err(back));
    }

    #[test]
    fn membership_moves_only_the_header() {
        let mut state = some_state();
        let before = state.clone();
        state.apply(at(1, 1), Payload::Membership(b"members")).expect("it is in order");
        let members = Bytes::from(b"members".as_slice());
        assert_eq!(state.header().membership, Some((Some(at(1, 1)), members)));
        assert_eq!(state.header().revision, before.header().revision);
        assert_eq!(state.rows, before.rows);
        assert_eq!(State::from_rows(all_rows(&state)), Ok(state));
    }

    #[test]
    fn a_membership_beyond_its_limit_is_a_fault() {
        let (allowed, actual) = (1 << 19, (1 << 19) + 1);
        let mut state = State::new();
        state.apply(at(1, 0), Payload::Membership(&vec![0; allowed])).expect("at the limit");
        assert_eq!(State::from_rows([state.header_row()]), Ok(state.clone()));
        let fault = state.apply(at(1, 1), Payload::Membership(&vec![0; actual]));
        let source = CodecError::TooLong { actual, allowed };
        assert_eq!(fault, Err(Fault::UnstorableRow { key: "00".to_owned(), source }));
    }

    #[test]
    fn rows_that_are_not_the_headers_are_a_fault() {
        let state = some_state();
        let rows = all_rows(&state);
        assert_eq!(State::from_rows(rows.clone()), Ok(state));
        let is_mismatch =
            |rows| matches!(State::from_rows(rows), Err(Fault::DigestMismatch { .. }));
        assert!(is_mismatch(rows[1..].to_vec()), "a row is missing");
        let mut flipped = rows.clone();
        let mut value = flipped[0].1.to_vec();
        value[1] ^= 1;
        flipped[0].1 = value.into();
        assert!(is_mismatch(flipped), "a bit is flipped");
        let more = (Bytes::from([0x7f].as_slice()), Bytes::from([1].as_slice()));
        assert!(is_mismatch(rows.iter().cloned().chain([more]).collect()), "a row is too many");
        let headless = rows[..rows.len() - 1].to_vec();
        assert_eq!(State::from_rows(headless), Err(Fault::NoHeader));
    }

    #[test]
    fn a_header_that_cannot_be_read_is_a_fault() {
        let key = Bytes::from(header::KEY.as_slice());
        let source = CodecError::UnknownVersion { found: 9, known: 1 };
        let fault = Err(Fault::CorruptRow { key: "00".to_owned(), source });
        assert_eq!(State::from_rows([(key.clone(), [9].as_slice().into())]), fault);
        let later = Header { level: 2, ..Header::first() };
        let fault = Err(Fault::UnknownLevel { level: 2, known: 1 });
        assert_eq!(State::from_rows([(key, later.encode())]), fault);
    }

    #[test]
    fn a_clone_is_a_snapshot() {
        let mut state = some_state();
        let snapshot = state.clone();
        let rows = all_rows(&snapshot);
        let entry = Entry { clock_ms: 50_000, wall_ms: 0, requests: vec![] };
        let applied = state.apply(at(1, 1), Payload::Batch(&entry)).expect("it is in order");
        assert!(!applied.changes.is_empty());
        assert_ne!(state, snapshot);
        assert_eq!(all_rows(&snapshot), rows);
    }
}
