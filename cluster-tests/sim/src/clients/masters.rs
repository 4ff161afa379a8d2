//! Clients that hold leases and claim the same change sources: most behave, some fall silent and
//! come back late (M3, C6).

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_machine::changesources::{self, Fence};
use holdfast_machine::{Command, Refusal, Reply, masters, state};
use holdfast_node::sim;
use rand::RngExt as _;

use super::{Client, NAMESPACE};

/// One who holds a lease.
struct Holder {
    lease: u64,
    ttl: Duration,
    /// Change sources that it was granted, with their tokens.
    held: BTreeMap<i64, u64>,
}

pub(super) async fn claim(mut client: Client) {
    while client.goes_on() {
        if let Some(mut holder) = open(&mut client).await {
            while client.goes_on() && step(&mut client, &mut holder).await.is_some() {}
        }
        client.pause(Duration::from_millis(100)).await;
    }
}

async fn open(client: &mut Client) -> Option<Holder> {
    let ttl_ms = [500, 800, 1500, 3000][client.random.random_range(0..4)];
    let command = masters::Command::OpenLease {
        namespace: NAMESPACE.to_owned(),
        name: format!("master-{}", client.number),
        instance: [u8::try_from(client.number).unwrap(); 32],
        ttl_ms,
        grace_ms: 0,
    };
    match client.write(Command::Masters(command)).await? {
        Ok(Reply::Masters(masters::Reply::Lease { lease, ttl_ms, .. })) => {
            Some(Holder { lease, ttl: Duration::from_millis(ttl_ms), held: BTreeMap::new() })
        }
        _ => None,
    }
}

/// One thing that a holder does. None once its lease is over, or nobody knows.
async fn step(client: &mut Client, holder: &mut Holder) -> Option<()> {
    let namespace = || NAMESPACE.to_owned();
    let (lease, ttl) = (holder.lease, holder.ttl);
    let any = client.random.random_range(0..client.shared.sources.len());
    let changesource = client.shared.sources[any];
    match client.random.random_range(0..100) {
        0..40 => {
            client.pause(ttl / 4).await;
            keep_alive(client, lease).await
        }
        40..65 => {
            let command = match client.random.random_bool(0.5) {
                true => {
                    changesources::Command::Claim { namespace: namespace(), changesource, lease }
                }
                false => {
                    changesources::Command::Await { namespace: namespace(), changesource, lease }
                }
            };
            match client.write(Command::ChangeSources(command)).await? {
                Ok(Reply::ChangeSources(changesources::Reply::Granted { token })) => {
                    holder.held.insert(changesource, token);
                    Some(())
                }
                Ok(_) => Some(()),
                Err(refusal) => goes_on_after(&refusal),
            }
        }
        65..75 => {
            let Some((changesource, token)) = holder.held.pop_first() else { return Some(()) };
            let command =
                changesources::Command::Release { namespace: namespace(), changesource, token };
            client.write(Command::ChangeSources(command)).await?.ok().map(drop)
        }
        75..90 => {
            let Some((changesource, token)) = holder.held.first_key_value() else {
                return Some(());
            };
            let fence = Some(Fence { changesource: *changesource, token: *token });
            let command = state::Command::Set {
                namespace: namespace(),
                object: client.shared.object,
                name: format!("fenced-{changesource}"),
                value: client.unique().into_bytes().into(),
                if_revision: None,
                fence,
                noted_revision: None,
            };
            // Refused once the claim has moved on; the lease may live all the same.
            let _ = client.write(Command::State(command)).await?;
            Some(())
        }
        90..95 => {
            // Silent for longer than the lease lasts, and then as if nothing had been.
            sim::sleep(ttl.mul_f64(client.random.random_range(0.9..2.0))).await;
            keep_alive(client, lease).await
        }
        95..98 => {
            let command = masters::Command::CloseLease { namespace: namespace(), lease };
            // Whatever came of it, this client is done with the lease.
            let _ = client.write(Command::Masters(command)).await;
            // Now and then it forgets that it was.
            if client.random.random_bool(0.3) { keep_alive(client, lease).await } else { None }
        }
        _ => {
            client.pause(ttl / 10).await;
            Some(())
        }
    }
}

async fn keep_alive(client: &mut Client, lease: u64) -> Option<()> {
    let command = masters::Command::KeepAlive { namespace: NAMESPACE.to_owned(), lease };
    match client.write(Command::Masters(command)).await? {
        Ok(_) => Some(()),
        Err(refusal) => goes_on_after(&refusal),
    }
}

fn goes_on_after(refusal: &Refusal) -> Option<()> {
    (!matches!(refusal, Refusal::LeaseLost { .. })).then_some(())
}
