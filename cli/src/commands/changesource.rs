//! `holdfast changesource`: who owns what, and taking it by hand.
//!
//! A claim of the command line has no lease behind it unless `--ttl` asks for one, because nobody
//! stays to renew it: it stands until it is released, moved, or its master is expired.

use std::time::Duration;

use holdfast_client::{ChangeSource, Claimant, Claimed, Instance, OpenedLease};
use serde_json::{Value, json};

use crate::args::{ChangesourceArgs, ChangesourceVerb};
use crate::codes::{Code, Exit};
use crate::commands::group;
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::output::{Output, table};
use crate::units::{human, millis};

/// Carries out `holdfast changesource …`.
pub(crate) async fn run(args: &ChangesourceArgs, output: Output) -> Outcome<Exit> {
    let connection = Connection::open(&args.call, output)?;
    let done = match &args.verb {
        ChangesourceVerb::List { master, owned, free } => {
            let active = (*owned || *free).then_some(*owned);
            list(&connection, master.as_deref(), active, output).await
        }
        ChangesourceVerb::Claim { name, master, ttl } => {
            claim(&connection, name, master, *ttl, output).await
        }
        ChangesourceVerb::Release { name, fence } => {
            release(&connection, name, *fence, output).await
        }
        ChangesourceVerb::Move { name, master } => {
            hand_over(&connection, name, master, output).await
        }
        ChangesourceVerb::Group { verb } => group::run(&connection, verb, output).await,
    };
    connection.close().await;
    done.map(|()| Exit::Done)
}

/// The change source of that name, which must be there.
pub(crate) async fn find(connection: &Connection, name: &str) -> Outcome<ChangeSource> {
    let sources = connection.call(connection.client.change_sources().list(None, None)).await?;
    sources.into_iter().find(|source| source.name == name).ok_or_else(|| {
        Failure::new(Code::Absent, format!("there is no change source {name}"))
            .help("list them: holdfast changesource list")
    })
}

/// "fence 12, lease 6.8 s left"
pub(crate) fn hold(claimant: &Claimant) -> String {
    match claimant.lease {
        Some(_) => {
            format!("fence {}, lease {} left", claimant.token, human(claimant.lease_remaining))
        }
        None => format!("fence {}, no lease", claimant.token),
    }
}

async fn list(
    connection: &Connection,
    master: Option<&str>,
    active: Option<bool>,
    output: Output,
) -> Outcome<()> {
    let sources = connection.client.change_sources();
    let mut found = connection.call(sources.list(active, None)).await?;
    if let Some(master) = master {
        found.retain(|s| s.claimant.as_ref().is_some_and(|c| c.master_name == master));
    }
    let mut rows = table(&["CHANGESOURCE", "OWNER", "FENCE", "LEASE LEFT", "GROUP"]);
    for source in &found {
        let [owner, fence, left] = owner_cells(source.claimant.as_ref());
        let group = source.group.clone().unwrap_or_else(|| "-".to_owned());
        rows.add_row([source.name.clone(), owner, fence, left, group]);
    }
    let json = found.iter().map(source_json).collect();
    output.list("holdfast.changesources/v1", "changesources", &rows, json);
    Ok(())
}

/// The owner, the fence, and how long the lease has to run.
pub(crate) fn owner_cells(claimant: Option<&Claimant>) -> [String; 3] {
    let none = || "-".to_owned();
    claimant.map_or_else(
        || [none(), none(), none()],
        |owner| {
            let left = owner.lease.map_or_else(none, |_| human(owner.lease_remaining));
            [owner.master_name.clone(), owner.token.to_string(), left]
        },
    )
}

/// A change source for scripts.
pub(crate) fn source_json(source: &ChangeSource) -> Value {
    json!({
        "changesource": source.name,
        "id": source.id.to_string(),
        "owner": source.claimant.as_ref().map(claimant_json),
        "group": source.group,
    })
}

pub(crate) fn claimant_json(claimant: &Claimant) -> Value {
    json!({
        "master": claimant.master_name,
        "master_id": claimant.master.to_string(),
        "fence": claimant.token.to_string(),
        "lease": claimant.lease.map(|lease| lease.to_string()),
        "lease_remaining_ms": claimant.lease.map(|_| millis(claimant.lease_remaining)),
    })
}

async fn claim(
    connection: &Connection,
    name: &str,
    master: &str,
    ttl: Option<Duration>,
    output: Output,
) -> Outcome<()> {
    let sources = connection.client.change_sources();
    let id = connection.call(sources.find_id(name)).await?;
    let claimed = match ttl {
        None => {
            let master_id = connection.call(connection.client.masters().find_id(master)).await?;
            connection.call(sources.set_master(id, master_id)).await?
        }
        Some(ttl) => {
            let lease = open_lease(connection, master, ttl).await?;
            connection.call(sources.claim(lease, id)).await?
        }
    };
    let fence = granted(name, master, claimed)?;
    say_granted(output, "claimed", name, master, fence);
    Ok(())
}

/// A lease that nobody renews, so that what is claimed under it is free again by itself.
async fn open_lease(connection: &Connection, master: &str, ttl: Duration) -> Outcome<u64> {
    let masters = connection.client.masters();
    let instance = Instance::random();
    match connection.call(masters.open_lease(master, &instance, ttl)).await? {
        OpenedLease::Granted(lease) => Ok(lease.id),
        OpenedLease::HeldBy(held) => Err(Failure::new(
            Code::LeaseHeld,
            format!(
                "{master} has a live lease of another process (lease {}, {} left)",
                held.lease,
                human(held.remaining)
            ),
        )
        .help(format!("wait for it, or end it: holdfast master expire {master}"))
        .field("lease", held.lease)
        .field("lease_remaining_ms", millis(held.remaining))),
    }
}

/// The fence of a grant, or the error that names who was faster.
fn granted(name: &str, master: &str, claimed: Claimed) -> Outcome<u64> {
    match claimed {
        Claimed::Granted { token } => Ok(token),
        Claimed::AlreadyClaimed(owner) => Err(Failure::new(
            Code::Claimed,
            format!("{name} is owned by {} ({})", owner.master_name, hold(&owner)),
        )
        .help(format!("wait for it, or take it: holdfast changesource move {name} {master}"))
        .field("owner", &owner.master_name)
        .field("fence", owner.token)
        .field("lease_remaining_ms", millis(owner.lease_remaining))),
    }
}

fn say_granted(output: Output, did: &str, name: &str, master: &str, fence: u64) {
    output.answer(&format!("{did}  fence {fence}"), || {
        json!({
            "schema": "holdfast.claim/v1",
            "did": did,
            "changesource": name,
            "master": master,
            "fence": fence.to_string(),
        })
    });
}

async fn release(
    connection: &Connection,
    name: &str,
    fence: Option<u64>,
    output: Output,
) -> Outcome<()> {
    let source = find(connection, name).await?;
    let sources = connection.client.change_sources();
    let is_released = match fence {
        Some(token) => connection.call(sources.release(source.id, token)).await?,
        None => connection.call(sources.unset_master(source.id)).await.map(|()| true)?,
    };
    if !is_released {
        let owner = find(connection, name).await?.claimant;
        let now = owner.map_or("nobody owns it".to_owned(), |owner| {
            format!("{} owns it ({})", owner.master_name, hold(&owner))
        });
        let fence = fence.unwrap_or_default();
        return Err(Failure::new(
            Code::NotOwner,
            format!("{name} is not held under fence {fence}: {now}"),
        )
        .help("nothing was released; whoever had that fence has lost the change source"));
    }
    output.answer(
        "released",
        || json!({ "schema": "holdfast.release/v1", "changesource": name, "released": true }),
    );
    Ok(())
}

/// Unsets the owner, whoever it is, and sets the new one. Another master can come between the two
/// steps; it is then named.
async fn hand_over(
    connection: &Connection,
    name: &str,
    master: &str,
    output: Output,
) -> Outcome<()> {
    let source = find(connection, name).await?;
    let sources = connection.client.change_sources();
    let master_id = connection.call(connection.client.masters().find_id(master)).await?;
    connection.call(sources.unset_master(source.id)).await?;
    let claimed = connection.call(sources.set_master(source.id, master_id)).await?;
    let fence = granted(name, master, claimed)?;
    say_granted(output, "moved", name, master, fence);
    Ok(())
}

#[cfg(test)]
mod tests {
    //! What is said of an owner, to the letter.
    use super::*;

    fn owner(lease: Option<u64>) -> Claimant {
        Claimant {
            master: 3,
            master_name: "master-a".to_owned(),
            token: 12,
            lease,
            lease_remaining: Duration::from_millis(6_800),
        }
    }

    #[test]
    fn a_claim_that_comes_too_late_names_the_owner() {
        let failure =
            granted("git-main", "master-c", Claimed::AlreadyClaimed(owner(Some(9)))).unwrap_err();
        assert_eq!(failure.code.exit().number(), 1);
        assert_eq!(
            anstream::adapter::strip_str(&failure.to_text()).to_string(),
            "error[claimed]: git-main is owned by master-a (fence 12, lease 6.8 s left)\n   help: \
             wait for it, or take it: holdfast changesource move git-main master-c"
        );
        assert_eq!(failure.to_json()["fence"], "12");
        assert_eq!(hold(&owner(None)), "fence 12, no lease");
        let claimed = Claimed::Granted { token: 13 };
        assert_eq!(granted("git-main", "master-c", claimed), Ok(13));
    }

    #[test]
    fn json_of_a_change_source() {
        let mut source = ChangeSource {
            id: 5,
            name: "git-main".to_owned(),
            claimant: Some(owner(Some(9))),
            group: Some("project".to_owned()),
        };
        assert_eq!(
            source_json(&source).to_string(),
            "{\"changesource\":\"git-main\",\"group\":\"project\",\"id\":\"5\",\"owner\":{\"fence\":\"12\",\"lease\":\"9\",\
             \"lease_remaining_ms\":6800,\"master\":\"master-a\",\"master_id\":\"3\"}}"
        );
        (source.claimant, source.group) = (None, None);
        assert_eq!(source_json(&source)["owner"], Value::Null);
        assert_eq!(source_json(&source)["group"], Value::Null);
    }
}
