//! The engine: brings one call to an answer, on whichever node, by its deadline.
//!
//! One call is sent as one or more *copies*. A copy goes to one endpoint and ends with an answer,
//! or is lost (the connection broke, or the node itself does not know). When a copy has not been
//! answered for a while another one goes to another endpoint beside it, so that a node that hangs
//! costs a second and not the deadline. A node without a leader holds a call until there is one,
//! so a copy that is not answered at once is nothing unusual.
//!
//! Invariants:
//! - All copies of a write carry the same seq, and only the first is not marked as resent.
//! - The answer to an unmarked copy may have come without a log entry, and then it says nothing
//!   about marked ones: one of them that arrives later would still be carried out. It is the call's
//!   result only if no other copy can be on its way; else a marked copy has to be answered.
//! - *Definitely not applied* is reported only if every copy that was handed to a connection got a
//!   definite answer, or if the refusal of one holds for all of them ([`Reach`]). A copy counts as
//!   sent from the moment it is handed over, whether or not a byte of it left.
//! - Nothing is sent after the deadline, nor after a refusal while copies are still in the air.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::error::{
    Answer, Attempt, Cause, Error, Header, Reach, Refusal, SILENCE, is_transport_error,
};
use crate::pool::Pool;
use crate::rpc::{self, Call, Headed};

/// Most copies of one call in the air together: enough to get around two nodes that hang.
const COPIES_MAX: usize = 4;
/// Pause after all endpoints have failed once; doubles from round to round.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between rounds: about an election, after which a leader can be found.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// In how much of a first run's time nodes may carry copies out. They hold a copy until nearly the end
/// of that while there is no leader, and the rest is for their word that it was not carried out: too
/// late, that leaves the outcome unknown.
const FIRST_SHARE: f64 = 0.8;

/// What is said of a node whose answer is not enough.
const STRAY: &str = "answered, but another copy of the write may still be on its way";

/// What a lost copy means for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: repeating it does no harm, and nobody asks whether it was carried out.
    Read,
    /// It may have been applied; further copies under the same seq get its outcome.
    Write,
    /// It may have been carried out; repeating it does no harm, but its refusal then says nothing.
    /// Never more than one copy in the air.
    Admin,
}

/// What came before a run that brings a call to an answer, and whether others may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// The only one: it does all it can by its deadline.
    Only,
    /// The first of several, and a short one: it does not send copies beside each other, since a later run
    /// can do that in peace, and waits longer than nodes hold them.
    First,
    /// Copies of an earlier run may be on their way, or may have been carried out.
    Further,
}

/// Sends `load(resent)` until it is answered or the deadline passes.
pub(crate) async fn run<C: Call>(
    pool: &Pool,
    kind: Kind,
    deadline: Deadline,
    load: impl Fn(bool) -> C + Sync,
) -> Result<C::Response, Error> {
    run_again(pool, kind, Run::Only, deadline, load).await
}

/// As [`run`], for a call that may take several runs. What was said of earlier ones counts as one copy that
/// was lost, so that all copies are marked as resent and none is reported as definitely not applied.
pub(crate) async fn run_again<C: Call>(
    pool: &Pool,
    kind: Kind,
    nth: Run,
    deadline: Deadline,
    load: impl Fn(bool) -> C + Sync,
) -> Result<C::Response, Error> {
    let lost = u32::from(nth == Run::Further);
    let sent = AtomicU32::new(lost);
    let mut progress = Progress::<C::Response> { lost, ..Progress::new(kind, C::NAME, &sent) };
    let mut round = Round::default();
    let mut flights = FuturesUnordered::new();
    let mut hedge = Hedge::new(kind, pool, deadline);
    hedge.is_allowed &= nth != Run::First;
    let carried_out_by = match nth {
        Run::First => deadline.at_most(deadline.remaining().mul_f64(FIRST_SHARE)),
        Run::Only | Run::Further => deadline,
    };
    if let Some(faults) = pool.faults() {
        progress.note_faults(faults);
        return Err(progress.give_up());
    }
    loop {
        if deadline.has_passed() {
            progress.note_silent(&round.in_flight);
            return Err(progress.give_up());
        }
        let mut pause = None;
        let may_send = progress.may_send() && !carried_out_by.has_passed();
        if flights.len() < hedge.copies && may_send {
            match round.next(pool) {
                Some(endpoint) => {
                    hedge.sent_to(&endpoint);
                    flights.push(transmit(endpoint, carried_out_by, &sent, &load));
                    continue;
                }
                None => pause = Some(round.pause()),
            }
        }
        tokio::select! {
            biased;
            Some(flight) = flights.next() => {
                round.land(&flight.endpoint);
                if let Some(result) = progress.take_in(pool, flight) {
                    return result;
                }
            }
            () = sleep_or_never(pause) => round.begin_again(),
            () = hedge.due() => hedge.add_copy(),
            () = deadline.reached() => {}
        }
    }
}

/// Sends `request` to this one endpoint, once.
pub(crate) async fn run_at<C: Call>(
    pool: &Pool,
    endpoint: Arc<Endpoint>,
    deadline: Deadline,
    request: C,
) -> Result<C::Response, Error> {
    let sent = AtomicU32::new(0);
    let mut progress = Progress::<C::Response>::new(Kind::Read, C::NAME, &sent);
    let load = |_| request.clone();
    let silent = BTreeSet::from([endpoint.address().clone()]);
    let flight = tokio::select! {
        biased;
        flight = transmit(endpoint, deadline, &sent, &load) => flight,
        () = deadline.reached() => {
            progress.note_silent(&silent);
            return Err(progress.give_up());
        }
    };
    match progress.take_in(pool, flight) {
        Some(result) => result,
        None => Err(progress.give_up()),
    }
}

/// One copy that has landed.
struct Flight<R> {
    endpoint: Arc<Endpoint>,
    /// Whether it was handed to a connection.
    was_sent: bool,
    was_resent: bool,
    result: Result<R, Answer>,
}

async fn transmit<C: Call>(
    endpoint: Arc<Endpoint>,
    deadline: Deadline,
    sent: &AtomicU32,
    load: &impl Fn(bool) -> C,
) -> Flight<C::Response> {
    let unsent = |endpoint, message| Flight {
        endpoint,
        was_sent: false,
        was_resent: false,
        result: Err(Answer::NotSent { message }),
    };
    let connection = match endpoint.connection().await {
        Ok(connection) => connection,
        Err(message) => return unsent(endpoint, message.to_string()),
    };
    if deadline.has_passed() {
        return unsent(endpoint, "connected too late to send".to_owned());
    }
    let was_resent = sent.fetch_add(1, Ordering::Relaxed) > 0;
    let request = load(was_resent);
    let result = match rpc::send(&connection, request, deadline.remaining()).await {
        Ok(response) => Ok(response),
        Err(status) => {
            if is_transport_error(&status) {
                endpoint.forget(&connection);
            }
            Err(Answer::from_status(&status))
        }
    };
    Flight { endpoint, was_sent: true, was_resent, result }
}

/// What is known about a call that has no answer yet.
struct Progress<'a, R> {
    kind: Kind,
    name: &'static str,
    started: Instant,
    /// Copies handed to a connection.
    sent: &'a AtomicU32,
    /// Those of them that certainly changed nothing.
    definite: u32,
    /// Those of them of which nobody knows what became.
    lost: u32,
    /// The answer to the unmarked copy, while marked ones may be on their way.
    answered: Option<R>,
    /// The last refusal, and whether the refused copy was marked as resent.
    refused: Option<(Refusal, bool)>,
    attempts: BTreeMap<Arc<str>, Attempt>,
    header: Option<Box<Header>>,
}

impl<'a, R: Headed> Progress<'a, R> {
    fn new(kind: Kind, name: &'static str, sent: &'a AtomicU32) -> Progress<'a, R> {
        Progress {
            kind,
            name,
            started: Instant::now(),
            sent,
            definite: 0,
            lost: 0,
            answered: None,
            refused: None,
            attempts: BTreeMap::new(),
            header: None,
        }
    }

    /// Copies that may have been applied: lost, or still in the air.
    fn undecided(&self) -> u32 {
        self.sent.load(Ordering::Relaxed) - self.definite
    }

    /// After a refusal the copies in the air come first.
    fn may_send(&self) -> bool {
        self.refused.is_none() || self.undecided() == self.lost
    }

    /// Takes in what became of one copy; returns the call's result once that is certain.
    fn take_in(&mut self, pool: &Pool, flight: Flight<R>) -> Option<Result<R, Error>> {
        let Flight { endpoint, was_sent, was_resent, result } = flight;
        let answer = match result {
            Ok(response) => {
                let header = response.header().map(Header::from).unwrap_or_default();
                match pool.observe(&endpoint, &header, true) {
                    Ok(()) => {
                        endpoint.mark_good();
                        if self.kind != Kind::Write || was_resent {
                            return Some(Ok(response));
                        }
                        // It counts as lost from here: only its answer is left, and that is kept.
                        self.lost += 1;
                        self.note(endpoint.address(), None, STRAY.to_owned());
                        self.answered = Some(response);
                        return self.verdict();
                    }
                    Err(message) => {
                        let reason = Some("FOREIGN_CLUSTER".to_owned());
                        Answer::Unknown { reason, message, header: None }
                    }
                }
            }
            Err(answer) => {
                match answer.header().map(|header| pool.observe(&endpoint, header, false)) {
                    Some(Err(message)) => answer.in_foreign_cluster(message),
                    Some(Ok(())) | None => answer,
                }
            }
        };
        let (reason, message, header) = match answer {
            Answer::NotSent { message } => {
                self.definite += u32::from(was_sent);
                endpoint.mark_bad();
                (None, message, None)
            }
            Answer::Elsewhere { reason, message, header } => {
                self.definite += 1;
                (Some(reason), message, header)
            }
            Answer::Unknown { reason, message, header } => {
                self.lost += 1;
                endpoint.mark_bad();
                (reason, message, header)
            }
            Answer::Refused(refusal) => {
                self.definite += 1;
                endpoint.mark_good();
                let noted = (Some(refusal.reason.clone()), refusal.message.clone());
                let header = refusal.header.clone();
                self.refused = Some((refusal, was_resent));
                (noted.0, noted.1, header)
            }
        };
        self.header = header.or(self.header.take());
        self.note(endpoint.address(), reason, message);
        self.verdict()
    }

    /// The call's result, if what has come in so far settles it.
    fn verdict(&mut self) -> Option<Result<R, Error>> {
        // Nor can a copy do anything any more once the session is gone.
        let is_forgotten =
            self.refused.as_ref().is_some_and(|(refusal, _)| refusal.reach() == Reach::Forgotten);
        if self.answered.is_some() && (self.undecided() == 1 || is_forgotten) {
            return self.answered.take().map(Ok);
        }
        self.refusal_stands().map(Err)
    }

    /// Whether the last refusal settles the call.
    fn refusal_stands(&mut self) -> Option<Error> {
        let (refusal, was_resent) = self.refused.as_ref()?;
        let reach = refusal.reach();
        let holds_for_all = match (reach, self.kind) {
            (_, Kind::Read) | (Reach::Request, Kind::Write | Kind::Admin) => true,
            (Reach::Outcome, Kind::Write) => *was_resent,
            (Reach::Outcome, Kind::Admin) => false,
            (Reach::Forgotten | Reach::Copy, Kind::Write | Kind::Admin) => false,
        };
        if holds_for_all || self.undecided() == 0 {
            return self.refused.take().map(|(refusal, _)| refusal.into_error());
        }
        let is_in_the_air = self.undecided() > self.lost;
        let is_hopeless = reach == Reach::Forgotten || self.kind == Kind::Admin;
        if is_hopeless && !is_in_the_air { Some(self.unknown()) } else { None }
    }

    /// Says of the endpoints that none of them can be used at all.
    fn note_faults(&mut self, faults: Vec<(Arc<str>, String)>) {
        for (address, message) in faults {
            self.note(&address, None, message);
        }
    }

    /// Says of the endpoints with a copy in the air that they have not answered it.
    fn note_silent(&mut self, in_flight: &BTreeSet<Arc<str>>) {
        for address in in_flight {
            self.note(address, None, SILENCE.to_owned());
        }
    }

    fn note(&mut self, address: &Arc<str>, reason: Option<String>, message: String) {
        let attempt = Attempt { endpoint: address.to_string(), reason, message };
        self.attempts.insert(address.clone(), attempt);
    }

    /// The result of a call whose deadline has passed.
    fn give_up(&mut self) -> Error {
        if self.kind == Kind::Read {
            let cause = self.cause("got no answer");
            return Error::Unavailable { cause, header: self.header.take() };
        }
        if self.undecided() > 0 {
            return self.unknown();
        }
        let cause = self.cause("was not carried out");
        Error::NotApplied { cause, header: self.header.take() }
    }

    fn unknown(&mut self) -> Error {
        let cause = self.cause("was sent and may have been carried out, but got no answer");
        Error::OutcomeUnknown { cause, header: self.header.take() }
    }

    fn cause(&mut self, what: &str) -> Cause {
        let seconds = self.started.elapsed().as_secs_f64();
        let mut summary = format!("{} {what} within {seconds:.1} s", self.name);
        if self.attempts.is_empty() {
            summary.push_str("; there are no endpoints to try");
        }
        Cause { summary, attempts: std::mem::take(&mut self.attempts).into_values().collect() }
    }
}

/// One pass over the endpoints, each of which gets one copy.
#[derive(Default)]
struct Round {
    tried: BTreeSet<Arc<str>>,
    in_flight: BTreeSet<Arc<str>>,
    number: u32,
}

impl Round {
    /// The next endpoint that has not had a copy in this round and has none in the air. The order
    /// is looked at afresh each time, so that a hint is followed at once.
    fn next(&mut self, pool: &Pool) -> Option<Arc<Endpoint>> {
        let endpoint = pool.in_order().into_iter().find(|endpoint| {
            let address = endpoint.address();
            !self.tried.contains(address) && !self.in_flight.contains(address)
        })?;
        self.tried.insert(endpoint.address().clone());
        self.in_flight.insert(endpoint.address().clone());
        Some(endpoint)
    }

    fn land(&mut self, endpoint: &Endpoint) {
        self.in_flight.remove(endpoint.address());
    }

    /// How long to wait before the next round, with jitter, so that clients that failed together
    /// do not come back together.
    fn pause(&self) -> Duration {
        let longest = (PAUSE_FIRST * (1 << self.number.min(8))).min(PAUSE_MAX);
        longest.mul_f64(rand::random_range(0.5..1.0))
    }

    fn begin_again(&mut self) {
        self.tried.clear();
        self.number = self.number.saturating_add(1);
    }
}

/// When to send another copy beside those in the air.
struct Hedge {
    copies: usize,
    is_allowed: bool,
    wait: Duration,
    at: Instant,
    newest: Option<(Arc<Endpoint>, Instant)>,
    /// Silence after which a node is suspect, however short the call's own time is.
    suspect: Duration,
}

impl Hedge {
    fn new(kind: Kind, pool: &Pool, deadline: Deadline) -> Hedge {
        let wait = pool.config().attempt_timeout.min(deadline.remaining() / 4);
        Hedge {
            copies: 1,
            is_allowed: kind != Kind::Admin,
            wait,
            at: Instant::now() + wait,
            newest: None,
            suspect: pool.config().attempt_timeout,
        }
    }

    fn sent_to(&mut self, endpoint: &Arc<Endpoint>) {
        let now = Instant::now();
        self.newest = Some((endpoint.clone(), now));
        self.at = now + self.wait;
    }

    async fn due(&self) {
        if self.is_allowed && self.copies < COPIES_MAX {
            tokio::time::sleep_until(self.at).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    fn add_copy(&mut self) {
        if let Some((silent, since)) = self.newest.take()
            && since.elapsed() >= self.suspect
        {
            silent.mark_bad();
        }
        self.copies += 1;
        self.wait = self.wait * 3 / 2;
        self.at = Instant::now() + self.wait;
    }
}

async fn sleep_or_never(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
