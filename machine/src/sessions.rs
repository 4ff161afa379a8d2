//! Sessions: what makes a write happen exactly once, however often it is sent.
//!
//! # Model
//!
//! A client opens a session and numbers its writes in it. With each write it says which is the first that it
//! has no answer to. The state keeps the outcome of every write that is not below that one, so a retry, on
//! any node, after any change of leader, finds the first outcome and is not run again.
//!
//! A session that is not used for its idle time, by the cluster clock, has expired. To find those, each
//! session has one row in an index by time. A use does not move it: when its time comes, the row is put
//! where the session would really expire, or the session goes.
//!
//! # Invariants
//!
//! - A session id is the revision that opened it; it is never given again, and no write opens a session.
//! - `first_incomplete` only rises; it rises with every request of a live session, also with a refused one.
//! - Outcomes are kept for exactly the writes that were run and are not below `first_incomplete`; there are
//!   at most [`UNDECIDED_MAX`] of them, and the session counts them.
//! - An outcome once stored is returned unchanged, with its revision.
//! - Whether a session has expired is decided by the clock alone; clearing it away is bounded for each entry.
//!
//! # What it leaves out
//!
//! Sessions have no owner: who knows the id can write in it.

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::limits::{
    OUTCOMES_DROPPED_PER_ENTRY_MAX, SESSION_IDLE_MS_MAX, SESSION_IDLE_MS_MIN,
    SESSIONS_CHECKED_PER_ENTRY_MAX, SESSIONS_MAX, UNDECIDED_MAX,
};
use crate::machine::Stop;
use crate::table::{Counter, Table, Txn, Value, View};
use crate::{Origin, Refusal, Response, State};

/// Sessions by id.
const SESSIONS: Table<u64, Session> = Table::new(0x10, "session");
/// When to look at which session.
const CHECKS: Table<(u64, u64), ()> = Table::new(0x11, "session check");
/// Outcomes by session and number of the write.
const OUTCOMES: Table<(u64, u64), Response> = Table::new(0x12, "outcome");

/// A session. The session is live as long as `used_ms + idle_ms` is above the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Never changes.
    idle_ms: u64,
    /// The cluster clock at the last request.
    used_ms: u64,
    /// Where its row in the index is; at most when it would expire.
    check_ms: u64,
    /// Below it nothing is kept, and nothing is run any more. Only rises.
    first_incomplete: u64,
    /// How many outcomes are kept.
    undecided: u32,
}

impl Value for Session {
    const VERSION: u8 = 1;
    type At<'a> = Session;
}

/// A write to the sessions themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens a session.
    Open {
        /// How long it lives without use, in milliseconds.
        idle_ms: u64,
    },
    /// Uses a session without writing anything.
    Keep {
        /// The session.
        session: u64,
    },
    /// Ends a session and forgets its outcomes.
    Close {
        /// The session.
        session: u64,
    },
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The session is open.
    Opened {
        /// Its id: the revision that opened it.
        session: u64,
        /// How long it lives without use, in milliseconds.
        idle_ms: u64,
    },
    /// The session lives for its idle time from here.
    Kept,
    /// The session is closed.
    Closed,
}

impl Command {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        let (min, max) = (SESSION_IDLE_MS_MIN, SESSION_IDLE_MS_MAX);
        match *self {
            Command::Open { idle_ms: actual } if !(min..=max).contains(&actual) => {
                Err(Refusal::BadIdle { actual, min, max })
            }
            Command::Open { .. } | Command::Keep { .. } | Command::Close { .. } => Ok(()),
        }
    }

    /// Whether the command counts as a change of the state, and not only of its bookkeeping.
    pub(crate) fn raises_revision(&self) -> bool {
        match self {
            Command::Open { .. } => true,
            Command::Keep { .. } | Command::Close { .. } => false,
        }
    }
}

/// How many sessions there are, those that have just expired among them.
pub fn count(state: &State) -> Result<u64, Fault> {
    Counter::Sessions.get(state.view())
}

/// Carries out a command.
pub(crate) fn apply(txn: &mut Txn<'_>, command: &Command) -> Result<Reply, Stop> {
    match *command {
        Command::Open { idle_ms } => open(txn, idle_ms),
        Command::Keep { session } => {
            let row = live(txn.view(), session)?;
            SESSIONS.put(txn, session, &Session { used_ms: txn.clock_ms, ..row })?;
            Ok(Reply::Kept)
        }
        Command::Close { session } => {
            let row = live(txn.view(), session)?;
            drop_outcomes(txn, session, u64::MAX, row.undecided)?;
            remove(txn, session, row)?;
            Ok(Reply::Closed)
        }
    }
}

fn open(txn: &mut Txn<'_>, idle_ms: u64) -> Result<Reply, Stop> {
    let actual = Counter::Sessions.get(txn.view())?;
    if actual >= SESSIONS_MAX {
        return Err(Refusal::TooManySessions { actual, allowed: SESSIONS_MAX }.into());
    }
    Counter::Sessions.set(txn, actual + 1)?;
    let (session, used_ms) = (txn.revision, txn.clock_ms);
    let check_ms = used_ms.saturating_add(idle_ms);
    let row = Session { idle_ms, used_ms, check_ms, first_incomplete: 1, undecided: 0 };
    SESSIONS.put(txn, session, &row)?;
    CHECKS.put(txn, (check_ms, session), &())?;
    Ok(Reply::Opened { session, idle_ms })
}

impl Session {
    fn expires_ms(&self) -> u64 {
        self.used_ms.saturating_add(self.idle_ms)
    }

    /// Whether less than half of its idle time is left.
    pub(crate) fn is_aging(&self, clock_ms: u64) -> bool {
        clock_ms.saturating_sub(self.used_ms) > self.idle_ms / 2
    }
}

/// A session, unless it has expired or never was.
pub(crate) fn live(view: View<'_>, session: u64) -> Result<Session, Stop> {
    match SESSIONS.get(view, session)? {
        Some(row) if row.expires_ms() > view.clock_ms => Ok(row),
        Some(_) | None => Err(Refusal::SessionExpired { session }.into()),
    }
}

/// The stored outcome of a write, if its session still keeps it.
pub(crate) fn outcome(view: View<'_>, origin: &Origin) -> Result<Option<Response>, Fault> {
    OUTCOMES.get(view, (origin.session, origin.seq))
}

/// What to do with a write, by what its session knows of it.
pub(crate) enum Standing {
    /// Run it, and store its outcome.
    New,
    /// It was run; this came of it.
    Known(Response),
    /// It may not be run.
    Refused(Refusal),
}

/// A write's standing in its live session.
pub(crate) fn look_up(view: View<'_>, origin: &Origin, row: &Session) -> Result<Standing, Fault> {
    let Origin { session, seq, .. } = *origin;
    let first_incomplete = row.first_incomplete.max(origin.first_incomplete);
    if seq < first_incomplete {
        return Ok(Standing::Refused(Refusal::StaleSeq { seq, first_incomplete }));
    }
    if let Some(response) = outcome(view, origin)? {
        return Ok(Standing::Known(response));
    }
    let (mut actual, allowed) = (u64::from(row.undecided), u64::from(UNDECIDED_MAX));
    if actual >= allowed {
        // Only then is it worth to count what this request's first_incomplete will drop.
        actual -= outcomes_below(view, session, first_incomplete).count() as u64;
    }
    Ok(match actual >= allowed {
        true => Standing::Refused(Refusal::TooManyUndecided { session, actual, allowed }),
        false => Standing::New,
    })
}

/// Stores a session's row after a request, with the outcome if the request was run.
pub(crate) fn settle(
    txn: &mut Txn<'_>,
    origin: &Origin,
    mut row: Session,
    outcome: Option<&Response>,
) -> Result<(), Fault> {
    let Origin { session, seq, first_incomplete, .. } = *origin;
    row.used_ms = txn.clock_ms;
    if first_incomplete > row.first_incomplete {
        // Mostly the one before this write: then there is no need to look for what is kept.
        let is_next = row.undecided == 1 && first_incomplete == row.first_incomplete + 1;
        row.undecided -= match is_next && OUTCOMES.delete(txn, (session, row.first_incomplete)) {
            true => 1,
            false => drop_outcomes(txn, session, first_incomplete, row.undecided)?,
        };
        row.first_incomplete = first_incomplete;
    }
    if let Some(response) = outcome {
        OUTCOMES.put(txn, (session, seq), response)?;
        row.undecided += 1;
    }
    SESSIONS.put(txn, session, &row)
}

/// The numbers of a session's kept outcomes below a number.
fn outcomes_below(
    view: View<'_>,
    session: u64,
    below: u64,
) -> impl Iterator<Item = Result<u64, Fault>> {
    OUTCOMES
        .keys(view, session)
        .map(|key| key.map(|(_, seq)| seq))
        .take_while(move |seq| seq.as_ref().map_or(true, |seq| *seq < below))
}

/// Removes a session's outcomes below a number, at most so many; says how many they were.
fn drop_outcomes(txn: &mut Txn<'_>, session: u64, below: u64, at_most: u32) -> Result<u32, Fault> {
    let seqs: Vec<u64> = outcomes_below(txn.view(), session, below)
        .take(at_most as usize)
        .collect::<Result<_, _>>()?;
    let mut dropped = 0;
    for seq in seqs {
        OUTCOMES.delete(txn, (session, seq));
        dropped += 1;
    }
    Ok(dropped)
}

fn remove(txn: &mut Txn<'_>, session: u64, row: Session) -> Result<(), Fault> {
    SESSIONS.delete(txn, session);
    CHECKS.delete(txn, (row.check_ms, session));
    match Counter::Sessions.get(txn.view())?.checked_sub(1) {
        Some(count) => Counter::Sessions.set(txn, count),
        None => Err(Fault::Contradiction { what: "an uncounted session", id: session }),
    }
}

/// The earliest time at which a session is to be looked at.
pub(crate) fn first_check_ms(view: View<'_>) -> Result<Option<u64>, Fault> {
    let first = CHECKS.scan_all(view).next().transpose()?;
    Ok(first.map(|((check_ms, _), ())| check_ms))
}

/// Clears away expired sessions, within bounds; what is left over waits for the next entry.
pub(crate) fn expire(txn: &mut Txn<'_>) -> Result<(), Fault> {
    let mut outcomes_left = OUTCOMES_DROPPED_PER_ENTRY_MAX;
    for _ in 0..SESSIONS_CHECKED_PER_ENTRY_MAX {
        let Some(((check_ms, session), ())) = CHECKS.scan_all(txn.view()).next().transpose()?
        else {
            break;
        };
        if check_ms > txn.clock_ms {
            break;
        }
        let Some(mut row) = SESSIONS.get(txn.view(), session)? else {
            return Err(Fault::Contradiction { what: "a check without its session", id: session });
        };
        if row.expires_ms() > txn.clock_ms {
            CHECKS.delete(txn, (check_ms, session));
            row.check_ms = row.expires_ms();
            CHECKS.put(txn, (row.check_ms, session), &())?;
            SESSIONS.put(txn, session, &row)?;
            continue;
        }
        let dropped = drop_outcomes(txn, session, u64::MAX, row.undecided.min(outcomes_left))?;
        outcomes_left -= dropped;
        if dropped < row.undecided {
            row.undecided -= dropped;
            SESSIONS.put(txn, session, &row)?;
            break;
        }
        remove(txn, session, row)?;
    }
    Ok(())
}

/// Whether a row is an outcome.
#[cfg(feature = "plant")]
pub(crate) fn is_outcome(key: &[u8]) -> bool {
    OUTCOMES.has(key)
}

/// Spells a row of this file's tables.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    let of_session = SESSIONS.describe(key, value);
    of_session.or_else(|| CHECKS.describe(key, value)).or_else(|| OUTCOMES.describe(key, value))
}

/// Appends what does not hold of this file's invariants.
pub(crate) fn audit(view: View<'_>, broken: &mut Vec<String>) -> Result<(), Fault> {
    let (mut sessions, mut outcomes) = (0, 0);
    for row in SESSIONS.scan_all(view) {
        let (id, row) = row?;
        sessions += 1;
        outcomes += u64::from(row.undecided);
        let (mut kept, mut lowest) = (0, u64::MAX);
        for key in OUTCOMES.keys(view, id) {
            kept += 1;
            lowest = lowest.min(key?.1);
        }
        if kept != row.undecided || kept > UNDECIDED_MAX {
            broken.push(format!("session {id} keeps {kept} outcomes: {row:?}"));
        }
        if lowest < row.first_incomplete && row.expires_ms() > view.clock_ms {
            broken.push(format!("session {id} keeps outcome {lowest}: {row:?}"));
        }
        if row.check_ms > row.expires_ms() || !CHECKS.contains(view, (row.check_ms, id)) {
            broken.push(format!("session {id} is not checked in time: {row:?}"));
        }
    }
    if sessions != Counter::Sessions.get(view)? || sessions != CHECKS.scan_all(view).count() as u64
    {
        broken.push(format!("{sessions} sessions are not counted right"));
    }
    if outcomes != OUTCOMES.scan_all(view).count() as u64 {
        broken.push("there are outcomes without a session".to_owned());
    }
    Ok(())
}
