//! C4, M5: a change source has one owner at a time, also by the watches of those who own it.
//!
//! Who was granted a source owns it until their lease is over by their own reckoning: counted from
//! before the last renewal was sent, less a hundredth and 10 ms. That is enough only while clocks
//! are right to within a hundredth; with worse ones only the cluster's own word is looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_machine::{Command, Event, Reply, changesources, masters};

use crate::{Answer, History};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut broken = by_the_cluster(history);
    if history.clocks_are_good {
        broken.extend(by_the_owners(history));
    }
    broken
}

/// No source passes from one owner to the next without being free between.
fn by_the_cluster(history: &History) -> Vec<String> {
    let mut owners: BTreeMap<i64, (u64, Option<(i64, u64)>)> = BTreeMap::new();
    let mut broken = Vec::new();
    for (revision, events) in history.events() {
        for event in events {
            let Event::ChangeSource(changesources::Event { id, owner, .. }) = event else {
                continue;
            };
            let before = owners.insert(*id, (revision, *owner));
            if let Some((since, Some(old))) = before
                && let Some(new) = owner
                && old != *new
                && (since..=revision).all(|revision| history.is_watched(revision))
            {
                broken.push(format!(
                    "source {id} passed from {old:?} to {new:?} at revision {revision}"
                ));
            }
        }
    }
    broken
}

/// From when to when a client took itself for the owner.
struct Owned {
    client: usize,
    token: u64,
    from: Duration,
    until: Duration,
}

/// No two clients took themselves for owners of one source at once.
fn by_the_owners(history: &History) -> Vec<String> {
    let leases = leases(history);
    let mut owned: BTreeMap<i64, Vec<Owned>> = BTreeMap::new();
    for (call, reply, _) in history.replies() {
        let (Command::ChangeSources(command), Reply::ChangeSources(reply)) = (&call.command, reply)
        else {
            continue;
        };
        let (changesource, lease) = match command {
            changesources::Command::Claim { changesource, lease, .. }
            | changesources::Command::Await { changesource, lease, .. } => (*changesource, *lease),
            _ => continue,
        };
        let changesources::Reply::Granted { token } = reply else { continue };
        let Some(lives) = leases.get(&lease) else { continue };
        // Renewed again and again, as long as each renewal came in time.
        let mut until = Duration::ZERO;
        for (sent, known, over) in lives {
            if until != Duration::ZERO && *known > until {
                break;
            }
            if *known <= call.ended || until != Duration::ZERO {
                until = until.max(*over);
            }
            let _ = sent;
        }
        let (client, token, from) = (call.client, *token, call.ended);
        until = until.min(given_up(history, client, changesource, token, lease));
        if until > from {
            owned.entry(changesource).or_default().push(Owned { client, token, from, until });
        }
    }
    let mut broken = Vec::new();
    for (id, owned) in &owned {
        for (at, one) in owned.iter().enumerate() {
            for other in &owned[..at] {
                let overlap = one.from < other.until && other.from < one.until;
                if one.token != other.token && overlap {
                    broken.push(format!(
                        "source {id} had two owners at once: c{} under {} from {:?} to {:?}, and \
                         c{} under {} from {:?} to {:?}",
                        one.client,
                        one.token,
                        one.from,
                        one.until,
                        other.client,
                        other.token,
                        other.from,
                        other.until
                    ));
                }
            }
        }
    }
    broken
}

/// When a lease was opened or renewed: sent, known, and over without another renewal.
type Lives = BTreeMap<u64, Vec<(Duration, Duration, Duration)>>;

fn leases(history: &History) -> Lives {
    let mut lives = Lives::new();
    for (call, reply, _) in history.replies() {
        let (Command::Masters(command), Reply::Masters(reply)) = (&call.command, reply) else {
            continue;
        };
        let (lease, ttl_ms) = match (command, reply) {
            (_, masters::Reply::Lease { lease, ttl_ms, .. }) => (*lease, *ttl_ms),
            (masters::Command::KeepAlive { lease, .. }, masters::Reply::Renewed { ttl_ms }) => {
                (*lease, *ttl_ms)
            }
            _ => continue,
        };
        let ttl = Duration::from_millis(ttl_ms);
        let margin = ttl / 100 + Duration::from_millis(10);
        let over = call.began + ttl.saturating_sub(margin);
        lives.entry(lease).or_default().push((call.began, call.ended, over));
    }
    lives
}

/// When a client began to give a source back, or its lease, or opened a new one.
fn given_up(
    history: &History,
    client: usize,
    changesource: i64,
    token: u64,
    lease: u64,
) -> Duration {
    let gives_up = history.calls.iter().filter(|call| call.client == client).filter(|call| {
        match &call.command {
            Command::ChangeSources(changesources::Command::Release {
                changesource: id,
                token: released,
                ..
            }) => *id == changesource && *released == token,
            Command::Masters(masters::Command::CloseLease { lease: closed, .. }) => {
                *closed == lease
            }
            Command::Masters(masters::Command::OpenLease { .. }) => match &call.answer {
                Answer::Reply {
                    reply: Reply::Masters(masters::Reply::Lease { lease: opened, .. }),
                    ..
                } => *opened > lease,
                _ => false,
            },
            _ => false,
        }
    });
    // An OpenLease whose answer was lost ends the lease as well, unbeknownst to its owner; the same
    // client waits for its outcome and takes itself for no owner meanwhile.
    let unknown = history.calls.iter().filter(|call| {
        call.client == client
            && matches!(call.command, Command::Masters(masters::Command::OpenLease { .. }))
            && matches!(call.answer, Answer::Unknown)
    });
    let after = |call: &&crate::Call| call.ended > Duration::ZERO;
    gives_up
        .chain(unknown.filter(|call| call.began > lease_known(history, lease)))
        .filter(after)
        .map(|call| call.began)
        .min()
        .unwrap_or(Duration::MAX)
}

fn lease_known(history: &History, lease: u64) -> Duration {
    let opened = history.replies().find(|(_, reply, _)| {
        matches!(reply, Reply::Masters(masters::Reply::Lease { lease: opened, .. })
            if *opened == lease)
    });
    opened.map_or(Duration::MAX, |(call, _, _)| call.ended)
}
