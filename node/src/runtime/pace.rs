//! openraft on the runtime, without looking at its timers for nothing.
//!
//! openraft wakes its core five times in a heartbeat, to see whether a heartbeat is due or an
//! election. Those 100 wakes a second were most of what an idle node used. But a leader that has
//! just sent heartbeats has nothing to do until the next ones, and a follower that hears its leader
//! cannot come to elect before the shortest election time-out has passed from there. So the ticker's
//! sleep is made longer by what is certain when it begins; else openraft's own rhythm stays.
//!
//! openraft names its runtime as a type and hands it no configuration: the [`Pace`] of a node
//! travels with the tasks that openraft spawns. Only the ticker sleeps to an instant that is more
//! than a moment away.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::{AsyncRuntime, Instant as _, OptionalSend};

use super::{Base, Instant, now};

type RaftInstant = <Base as AsyncRuntime>::Instant;

/// Timers are no finer; whoever sleeps for less is not the ticker.
const FINEST: Duration = Duration::from_millis(1);

tokio::task_local! {
    static PACE: Arc<Pace>;
}

/// The rhythm of one node: what it sent and heard last.
#[derive(Debug)]
pub(crate) struct Pace {
    heartbeat: Duration,
    election_min: Duration,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// When this node last sent a heartbeat.
    sent: Option<Instant>,
    /// When this process last heard from a leader.
    heard: Option<Instant>,
}

impl Pace {
    /// `heartbeat`: how often a leader shows life; `election_min`: for how long no follower that
    /// heard it elects.
    pub(crate) fn new(heartbeat: Duration, election_min: Duration) -> Arc<Pace> {
        Arc::new(Pace { heartbeat, election_min, last: Mutex::default() })
    }

    /// Runs what starts openraft, so that its ticker keeps this pace.
    pub(crate) async fn drive<F: Future>(self: &Arc<Pace>, start: F) -> F::Output {
        PACE.scope(Arc::clone(self), start).await
    }

    pub(crate) fn sent(&self) {
        self.last().sent = Some(now());
    }

    pub(crate) fn heard(&self) {
        self.last().heard = Some(now());
    }

    /// How long ago a leader was heard; none if that was never.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.last().heard.map(|heard| heard.elapsed())
    }

    /// For how long from `now` on it is certain that no timer is due.
    fn quiet_for(&self, now: Instant) -> Duration {
        let last = self.last();
        let since = |at: Instant| now.saturating_duration_since(at);
        let until_heartbeat = last.sent.map(|sent| match since(sent) {
            early if early < self.heartbeat => self.heartbeat + FINEST - early,
            // The tick that sends the next one comes by here before it is sent.
            due if due < 2 * self.heartbeat => self.heartbeat + FINEST,
            _ => Duration::ZERO,
        });
        let until_election = last.heard.map(|heard| self.election_min.saturating_sub(since(heard)));
        until_heartbeat.max(until_election).unwrap_or_default()
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().expect("no code panics while it holds this lock")
    }
}

/// The runtime, but for the sleep of a ticker that was started under a [`Pace`].
#[derive(Debug)]
pub(crate) struct Paced(Base);

impl AsyncRuntime for Paced {
    type JoinError = <Base as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Base as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Base as AsyncRuntime>::Sleep;
    type Instant = RaftInstant;
    type TimeoutError = <Base as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Base as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Base as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Base as AsyncRuntime>::Mpsc;
    type Watch = <Base as AsyncRuntime>::Watch;
    type Oneshot = <Base as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Base as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match PACE.try_with(Arc::clone) {
            Ok(pace) => Base::spawn(PACE.scope(pace, future)),
            Err(_) => Base::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Base::sleep(duration)
    }

    fn sleep_until(deadline: RaftInstant) -> Self::Sleep {
        let raft_now = RaftInstant::now();
        if deadline < raft_now + FINEST {
            return Base::sleep_until(deadline);
        }
        let quiet = PACE.try_with(|pace| pace.quiet_for(now())).unwrap_or_default();
        Base::sleep_until(deadline.max(raft_now + quiet))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Base::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: RaftInstant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Base::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Base::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Base::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Paced(Base::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn pace() -> Arc<Pace> {
        Pace::new(ms(50), ms(150))
    }

    #[test]
    fn follower_is_quiet_until_an_election_could_be_due() {
        let pace = pace();
        let begin = now();
        assert_eq!(pace.quiet_for(begin), ms(0), "nothing was heard");
        pace.last().heard = Some(begin);
        assert_eq!(pace.quiet_for(begin + ms(40)), ms(110));
        assert_eq!(pace.quiet_for(begin + ms(150)), ms(0));
        assert_eq!(pace.quiet_for(begin + ms(500)), ms(0), "its leader is silent");
    }

    #[test]
    fn leader_is_quiet_until_just_behind_its_next_heartbeat() {
        let pace = pace();
        let begin = now();
        pace.last().sent = Some(begin);
        assert_eq!(pace.quiet_for(begin + ms(20)), ms(31), "a tick that came too early");
        assert_eq!(pace.quiet_for(begin + ms(51)), ms(51), "the tick that sends the next one");
        assert_eq!(pace.quiet_for(begin + ms(99)), ms(51));
        assert_eq!(pace.quiet_for(begin + ms(100)), ms(0), "it has stopped sending");
    }

    /// How long a task sleeps that wants to wake after this.
    async fn slept(pace: &Arc<Pace>, wanted: Duration) -> Duration {
        let began = now();
        // In a task of its own, as openraft starts it.
        let ticker = async { Paced::spawn(Paced::sleep_until(RaftInstant::now() + wanted)).await };
        pace.drive(ticker).await.expect("a sleep does not panic");
        began.elapsed()
    }

    #[tokio::test]
    async fn ticker_keeps_the_pace_it_was_started_under() {
        let pace = pace();
        pace.heard();
        assert!(slept(&pace, ms(10)).await >= ms(140));
        pace.heard();
        let short = slept(&pace, Duration::from_micros(1)).await;
        assert!(short < ms(140), "{short:?}: not a tick");
    }
}
