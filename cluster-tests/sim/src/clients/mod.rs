//! Clients as the client library is one: sessions, and writes that are sent again under the same seq
//! until there is an answer or their time is over.

mod creators;
mod exclusive;
mod masters;
mod readers;
pub(crate) mod stored;
pub(crate) mod transactions;
mod watchers;
mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_machine::{Command, Origin, Refusal, Reply, Request, sessions};
use holdfast_node::sim::{self, CallFailed, Plant, World, plant};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::history::{Answer, Call, Recorder};

/// Where all clients are.
pub(crate) const NAMESPACE: &str = "default";
/// How long a write is tried before the caller is told that nobody knows.
const CALL_MAX: Duration = Duration::from_secs(6);
/// Pause before another node is tried.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Sessions do not idle out in a run.
const IDLE_MS: u64 = 600_000;

/// What all clients share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) world: Arc<World>,
    pub(crate) recorder: Recorder,
    pub(crate) nodes: Vec<u64>,
    /// The object that all items belong to.
    pub(crate) object: i64,
    /// The change sources that are claimed.
    pub(crate) sources: Vec<i64>,
    /// How often a client has less patience than an election takes, of 1.
    pub(crate) gives_up: f64,
    /// Told when the run is over.
    pub(crate) stop: Arc<AtomicBool>,
    /// How many clients are not done.
    pub(crate) busy: Arc<AtomicU64>,
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Starts a client of some kind.
    fn start<F: Future<Output = ()> + Send + 'static>(
        &self,
        number: usize,
        random: &mut SmallRng,
        kind: impl FnOnce(Client) -> F,
    ) {
        let client = Client::new(number, self, random);
        self.busy.fetch_add(1, Ordering::Relaxed);
        let (busy, lives) = (Arc::clone(&self.busy), kind(client));
        sim::spawn(async move {
            lives.await;
            busy.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Starts all clients.
pub(crate) fn start(shared: &Shared, random: &mut SmallRng) {
    for number in 1..=3 {
        shared.start(number, random, creators::race);
        shared.start(10 + number, random, writers::write);
        shared.start(20 + number, random, masters::claim);
        shared.start(30 + number, random, watchers::watch);
        shared.start(60 + number, random, transactions::share);
    }
    for number in 1..=2 {
        shared.start(40 + number, random, readers::read);
        shared.start(50 + number, random, exclusive::create);
        // Two uploads with one id are a fault, which ends a run before this defect shows elsewhere.
        if !plant::is(Plant::RevisionPerEntry) {
            shared.start(70 + number, random, stored::keep);
        }
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) shared: Shared,
    pub(crate) random: SmallRng,
    node: u64,
    /// 0 before it has one.
    session: u64,
    seq: u64,
}

impl Client {
    pub(crate) fn new(number: usize, shared: &Shared, random: &mut SmallRng) -> Client {
        let mut random = SmallRng::seed_from_u64(random.random());
        let node = shared.nodes[random.random_range(0..shared.nodes.len())];
        Client { number, shared: shared.clone(), random, node, session: 0, seq: 0 }
    }

    fn goes_on(&self) -> bool {
        self.shared.goes_on()
    }

    /// Waits for about this long.
    async fn pause(&mut self, about: Duration) {
        let pause = about.mul_f64(self.random.random_range(0.5..1.5));
        sim::sleep(pause).await;
    }

    /// A value that no other write has.
    fn unique(&self) -> String {
        format!("{}.{}", self.number, self.seq + 1)
    }

    /// Some node, for a call or from here on.
    fn any_node(&mut self) -> u64 {
        self.shared.nodes[self.random.random_range(0..self.shared.nodes.len())]
    }

    /// Carries out a write exactly once. None if nobody knows what came of it, or nothing did.
    pub(crate) async fn write(&mut self, command: Command) -> Option<Result<Reply, Refusal>> {
        let patience = match self.random.random_bool(self.shared.gives_up) {
            true => Duration::from_millis(self.random.random_range(20..1000)),
            false => CALL_MAX,
        };
        let given_up = sim::now() + patience;
        self.have_session(given_up).await?;
        self.seq += 1;
        let began = sim::now();
        // All before it have been answered, or given up.
        let origin = Origin {
            session: self.session,
            seq: self.seq,
            first_incomplete: self.seq,
            resent: false,
        };
        let request = Request { origin: Some(origin), command: command.clone() };
        let answer = self.send(request, given_up).await;
        let known = match &answer {
            Answer::Reply { reply, .. } => Some(Ok(reply.clone())),
            Answer::Refused(refusal) => Some(Err(refusal.clone())),
            Answer::NotApplied | Answer::Unknown => None,
        };
        if matches!(&answer, Answer::Refused(Refusal::SessionExpired { .. })) {
            self.session = 0;
        }
        let (client, ended) = (self.number, sim::now());
        let call = Call { client, began, ended, command, answer };
        self.shared.recorder.lock().calls.push(call);
        known
    }

    /// Sends a write again and again until it has an answer.
    async fn send(&mut self, mut request: Request, given_up: Duration) -> Answer {
        let mut is_unknown = false;
        loop {
            let left = given_up.saturating_sub(sim::now());
            if left.is_zero() {
                return if is_unknown { Answer::Unknown } else { Answer::NotApplied };
            }
            // Mostly long enough for an election; sometimes so short that copies overlap.
            let timeout = match self.random.random_bool(0.8) {
                true => Duration::from_secs(2),
                false => Duration::from_millis(self.random.random_range(3..300)),
            };
            let sent = self.shared.world.write(self.node, request.clone(), timeout.min(left)).await;
            match sent {
                Ok(response) => {
                    self.shared.world.note(format_args!(
                        "c{} at {}: {:?}",
                        self.number, response.revision, response.outcome
                    ));
                    return match response.outcome {
                        Ok(reply) => Answer::Reply { revision: response.revision, reply },
                        // A session that is gone says nothing of copies sent before.
                        Err(Refusal::SessionExpired { .. } | Refusal::StaleSeq { .. })
                            if is_unknown =>
                        {
                            self.session = 0;
                            Answer::Unknown
                        }
                        Err(refusal) => Answer::Refused(refusal),
                    };
                }
                Err(CallFailed::NotApplied(_)) => {}
                Err(CallFailed::Unknown(_)) => is_unknown = true,
            }
            if is_unknown && let Some(origin) = &mut request.origin {
                origin.resent = true;
            }
            self.node = self.any_node();
            self.pause(RETRY_PAUSE).await;
        }
    }

    async fn have_session(&mut self, given_up: Duration) -> Option<()> {
        while self.session == 0 {
            if sim::now() > given_up {
                return None;
            }
            let open = sessions::Command::Open { idle_ms: IDLE_MS };
            let request = Request { origin: None, command: Command::Session(open) };
            let timeout = Duration::from_secs(1);
            if let Ok(response) = self.shared.world.write(self.node, request, timeout).await
                && let Ok(Reply::Session(sessions::Reply::Opened { session, .. })) =
                    response.outcome
            {
                (self.session, self.seq) = (session, 0);
                break;
            }
            self.node = self.any_node();
            self.pause(RETRY_PAUSE).await;
        }
        Some(())
    }
}
