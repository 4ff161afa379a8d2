//! C4, M5: a change source has one owner at a time, also by the watches of those who own it.
//!
//! Who was granted a source owns it until their lease is over by their own reckoning: counted from
//! before the last renewal was sent, less a hundredth and 10 ms. That is enough only while clocks
//! are right to within a hundredth; with worse ones only the cluster's own word is looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_machine::{Command, Event, Reply, changesources, masters};

use super::tenure::{Tenure, overlaps};
use crate::{Call, History};

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

/// No two clients took themselves for owners of one source, or of one group, at once.
fn by_the_owners(history: &History) -> Vec<String> {
    let renewals = renewals(history);
    let mut owned: BTreeMap<i64, Vec<Tenure>> = BTreeMap::new();
    for (call, reply, _) in history.replies() {
        if let Command::ChangeSources(
            changesources::Command::Claim { changesource, lease, .. }
            | changesources::Command::Await { changesource, lease, .. },
        ) = &call.command
            && let Reply::ChangeSources(changesources::Reply::Granted { token }) = reply
            && let Some(renewals) = renewals.get(lease)
        {
            let (client, token, from) = (call.client, *token, call.ended);
            let until = relied_on(renewals, from).min(given_up(history, client, token, *lease));
            let owned = owned.entry(history.head(*changesource)).or_default();
            owned.push(Tenure { client, token, from, until });
        }
    }
    let broken = owned.iter().map(|(id, owned)| overlaps(&format!("source {id}"), "owners", owned));
    broken.flatten().collect()
}

/// An answer to who opened or renewed a lease.
struct Renewal {
    known: Duration,
    /// When the lease is over without another one, by its holder's reckoning.
    over: Duration,
}

fn renewals(history: &History) -> BTreeMap<u64, Vec<Renewal>> {
    let mut renewals: BTreeMap<u64, Vec<Renewal>> = BTreeMap::new();
    for (call, reply, _) in history.replies() {
        let (Command::Masters(command), Reply::Masters(reply)) = (&call.command, reply) else {
            continue;
        };
        let (lease, ttl_ms) = match (command, reply) {
            (_, masters::Reply::Lease { lease, ttl_ms, .. }) => (*lease, *ttl_ms),
            (
                masters::Command::KeepAlive { lease, .. }
                | masters::Command::KeepWithinGrace { lease, .. },
                masters::Reply::Renewed { ttl_ms, .. },
            ) => (*lease, *ttl_ms),
            _ => continue,
        };
        let ttl = Duration::from_millis(ttl_ms);
        let over = call.began + ttl.saturating_sub(ttl / 100 + Duration::from_millis(10));
        renewals.entry(lease).or_default().push(Renewal { known: call.ended, over });
    }
    renewals
}

/// Until when a lease was relied on by one who was granted something at this time: it was renewed
/// again and again, as long as each renewal was known in time.
fn relied_on(renewals: &[Renewal], from: Duration) -> Duration {
    let before = renewals.iter().filter(|renewal| renewal.known <= from);
    let mut until = before.map(|renewal| renewal.over).max().unwrap_or_default();
    for renewal in renewals.iter().filter(|renewal| renewal.known > from) {
        if renewal.known > until {
            break;
        }
        until = until.max(renewal.over);
    }
    until
}

/// When a client began to give a grant back, or to end its lease: closing it, or opening another one,
/// which is for those who take themselves for owners no more.
fn given_up(history: &History, client: usize, token: u64, lease: u64) -> Duration {
    let opened = history.replies().find(|(_, reply, _)| {
        matches!(reply, Reply::Masters(masters::Reply::Lease { lease: opened, .. })
            if *opened == lease)
    });
    let opened = opened.map_or(Duration::ZERO, |(call, _, _)| call.ended);
    let gives_up = |call: &&Call| match &call.command {
        // With a member of a group all of it is given back.
        Command::ChangeSources(changesources::Command::Release { token: given, .. }) => {
            *given == token
        }
        Command::Masters(masters::Command::CloseLease { lease: closed, .. }) => *closed == lease,
        Command::Masters(masters::Command::OpenLease { .. }) => call.began >= opened,
        _ => false,
    };
    let calls = history.calls.iter().filter(|call| call.client == client);
    calls.filter(gives_up).map(|call| call.began).min().unwrap_or(Duration::MAX)
}
