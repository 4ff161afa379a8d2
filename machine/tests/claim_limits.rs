//! C6, C7, G9: at most so many wait for one change source, and one lease for at most so many; a master owns at
//! most so many, with all members of their groups. What becomes free all at once is granted in bounded steps, and
//! each of it to who waits.

use holdfast_machine::changesources::{self, Reply as Claimed};
use holdfast_machine::limits::{
    CLAIMS_PER_MASTER_MAX, GRANTS_PER_ENTRY_MAX, GROUP_MEMBERS_MAX, PLACES_PER_LEASE_MAX,
    WAITERS_PER_SOURCE_MAX,
};
use holdfast_machine::{
    Command, Entry, LogPosition, Origin, Payload, Refusal, Reply, Request, State, masters, sessions,
};

const NAMESPACE: &str = "default";

/// A state with one session, which makes all writes.
struct Cluster {
    state: State,
    index: u64,
    seq: u64,
}

impl Cluster {
    fn new() -> Cluster {
        let mut cluster = Cluster { state: State::new(), index: 0, seq: 0 };
        let open = Command::Session(sessions::Command::Open { idle_ms: 60_000 });
        cluster.apply(vec![Request { origin: None, command: open }]);
        cluster
    }

    fn apply(&mut self, requests: Vec<Request>) -> Vec<Result<Reply, Refusal>> {
        let entry = Entry { clock_ms: 0, wall_ms: 0, requests };
        let at = LogPosition { term: 1, index: self.index };
        self.index += 1;
        let applied = self.state.apply(at, Payload::Batch(&entry)).expect("no fault");
        applied.responses.into_iter().map(|response| response.outcome).collect()
    }

    fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        self.seq += 1;
        let seq = self.seq;
        let origin = Some(Origin { session: 1, seq, first_incomplete: seq, resent: false });
        self.apply(vec![Request { origin, command }]).remove(0)
    }

    fn lease(&mut self, name: &str) -> u64 {
        let (namespace, name) = (NAMESPACE.to_owned(), name.to_owned());
        let (instance, ttl_ms, grace_ms) = ([7; 32], 1_000_000, 0);
        let open = masters::Command::OpenLease { namespace, name, instance, ttl_ms, grace_ms };
        match self.run(Command::Masters(open)) {
            Ok(Reply::Masters(masters::Reply::Lease { lease, .. })) => lease,
            other => panic!("{other:?}"),
        }
    }

    fn close(&mut self, lease: u64) {
        let namespace = NAMESPACE.to_owned();
        self.run(Command::Masters(masters::Command::CloseLease { namespace, lease }))
            .expect("ours");
    }

    fn source(&mut self, nth: u64) -> i64 {
        let (namespace, name) = (NAMESPACE.to_owned(), format!("source-{nth}"));
        match self.run(Command::ChangeSources(changesources::Command::FindId { namespace, name })) {
            Ok(Reply::ChangeSources(Claimed::Id(id))) => id,
            other => panic!("{other:?}"),
        }
    }

    /// A new group of as many change sources as there may be, the names of which begin at `nth`.
    fn group(&mut self, nth: u64) -> Vec<i64> {
        let members: Vec<i64> = (nth..nth + GROUP_MEMBERS_MAX).map(|n| self.source(n)).collect();
        for changesource in &members {
            let set = changesources::Command::SetGroup {
                namespace: NAMESPACE.to_owned(),
                changesource: *changesource,
                group: Some(format!("group-{nth}")),
            };
            assert_eq!(self.claims(set), Ok(Claimed::GroupSet(true)));
        }
        members
    }

    fn wait(&mut self, changesource: i64, lease: u64) -> Result<Claimed, Refusal> {
        let namespace = NAMESPACE.to_owned();
        self.claims(changesources::Command::Await { namespace, changesource, lease })
    }

    fn release(&mut self, changesource: i64, token: u64) {
        let namespace = NAMESPACE.to_owned();
        let release = changesources::Command::Release { namespace, changesource, token };
        assert_eq!(self.claims(release), Ok(Claimed::Released(true)));
    }

    fn claims(&mut self, command: changesources::Command) -> Result<Claimed, Refusal> {
        let reply = self.run(Command::ChangeSources(command))?;
        let Reply::ChangeSources(reply) = reply else { panic!("{reply:?}") };
        Ok(reply)
    }

    fn owned(&self) -> u64 {
        changesources::counts(&self.state).expect("no fault").owned
    }

    fn is_sound(&self) {
        assert_eq!(self.state.audit(), Ok(vec![]));
    }
}

#[test]
fn at_most_1_000_wait_for_one_change_source() {
    let mut cluster = Cluster::new();
    let source = cluster.source(0);
    let owner = cluster.lease("owner");
    assert!(matches!(cluster.wait(source, owner), Ok(Claimed::Granted { .. })));
    let mut first = None;
    for nth in 0..WAITERS_PER_SOURCE_MAX {
        let lease = cluster.lease(&format!("waiter-{nth}"));
        assert_eq!(cluster.wait(source, lease), Ok(Claimed::Waiting { ahead: nth }));
        first.get_or_insert(lease);
    }
    let late = cluster.lease("late");
    let (actual, allowed) = (1000, 1000);
    let full = Refusal::TooManyWaiters { changesource: source, actual, allowed };
    assert_eq!(cluster.wait(source, late), Err(full));
    cluster.close(first.expect("a thousand"));
    assert_eq!(cluster.wait(source, late), Ok(Claimed::Waiting { ahead: 999 }));
    cluster.is_sound();
}

#[test]
fn one_lease_waits_for_at_most_4_096_and_gets_them_in_bounded_steps() {
    let mut cluster = Cluster::new();
    let (owner, waiter) = (cluster.lease("owner"), cluster.lease("waiter"));
    for nth in 0..PLACES_PER_LEASE_MAX {
        let source = cluster.source(nth);
        cluster.wait(source, owner).expect("it is free");
        assert_eq!(cluster.wait(source, waiter), Ok(Claimed::Waiting { ahead: 0 }));
    }
    let one_more = cluster.source(PLACES_PER_LEASE_MAX);
    cluster.wait(one_more, owner).expect("it is free");
    let (actual, allowed) = (4096, 4096);
    let full = Refusal::TooManyPlaces { lease: waiter, actual, allowed };
    assert_eq!(cluster.wait(one_more, waiter), Err(full));

    // All of them become free in one step, and go to who waits, some with each entry.
    cluster.close(owner);
    let mut entries = 1;
    while cluster.state.next_deadline_ms() == Some(0) {
        cluster.is_sound();
        cluster.apply(vec![]);
        entries += 1;
    }
    assert_eq!(entries, 4096 / GRANTS_PER_ENTRY_MAX);
    assert_eq!(cluster.owned(), PLACES_PER_LEASE_MAX);
    cluster.is_sound();
}

// C7
#[test]
fn a_group_counts_with_all_its_members_among_the_10_000_of_a_master() {
    let most = u64::from(CLAIMS_PER_MASTER_MAX);
    let mut cluster = Cluster::new();
    let owner = cluster.lease("owner");
    let members = cluster.group(most);
    let others = most - GROUP_MEMBERS_MAX + 1;
    let mut one = None;
    for nth in 0..others {
        let source = cluster.source(nth);
        match cluster.wait(source, owner) {
            Ok(Claimed::Granted { token }) => one = Some((source, token)),
            other => panic!("{other:?}"),
        }
    }
    let (actual, allowed) = (10_001, 10_000);
    let too_many = Refusal::TooManyClaims { master: 1, actual, allowed };
    assert_eq!(cluster.wait(members[9], owner), Err(too_many));
    assert_eq!(cluster.owned(), others);
    let (source, token) = one.expect("there are many");
    cluster.release(source, token);
    assert!(matches!(cluster.wait(members[9], owner), Ok(Claimed::Granted { .. })));
    assert_eq!(cluster.owned(), most);
    cluster.is_sound();
    cluster.close(owner);
    assert_eq!(cluster.owned(), 0);
    cluster.is_sound();
}

// C7 C6
#[test]
fn groups_are_granted_whole_and_one_entry_grants_no_more_than_one_full_group() {
    const GROUPS: u64 = 3;
    let mut cluster = Cluster::new();
    let (owner, waiter) = (cluster.lease("owner"), cluster.lease("waiter"));
    for nth in 0..GROUPS {
        let members = cluster.group(nth * GROUP_MEMBERS_MAX);
        assert!(matches!(cluster.wait(members[1], owner), Ok(Claimed::Granted { .. })));
        // Waiting for any member is waiting for all of them: one place.
        for member in members {
            assert_eq!(cluster.wait(member, waiter), Ok(Claimed::Waiting { ahead: 0 }));
        }
    }
    cluster.close(owner);
    for granted in 1..=GROUPS {
        assert_eq!(cluster.owned(), granted * GROUP_MEMBERS_MAX);
        cluster.is_sound();
        cluster.apply(vec![]);
    }
    assert_eq!(cluster.state.next_deadline_ms(), Some(60_000), "nothing is left to be granted");
    assert_eq!(cluster.owned(), GROUPS * GROUP_MEMBERS_MAX);
}
