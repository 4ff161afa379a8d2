//! `holdfast master`: who is alive, what they own, and declaring one dead.

use holdfast_client::{ChangeSource, Master};
use serde_json::{Value, json};

use crate::args::{MasterArgs, MasterVerb};
use crate::codes::{Code, Exit};
use crate::commands::changesource::{hold, source_json};
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::output::{Output, table};
use crate::roles::counted;
use crate::units::{clock_time, human, millis};

/// Carries out `holdfast master …`.
pub(crate) async fn run(args: &MasterArgs, output: Output) -> Outcome<Exit> {
    let connection = Connection::open(&args.call, output)?;
    let done = match &args.verb {
        MasterVerb::List => list(&connection, output).await,
        MasterVerb::Show { name } => show(&connection, name, output).await,
        MasterVerb::Expire { name } => expire(&connection, name, output).await,
    };
    connection.close().await;
    done.map(|()| Exit::Done)
}

async fn list(connection: &Connection, output: Output) -> Outcome<()> {
    let masters = connection.call(connection.client.masters().list()).await?;
    let mut rows = table(&["MASTER", "STATE", "LEASE LEFT", "OWNS", "LAST ACTIVE"]);
    for master in &masters {
        rows.add_row([
            master.name.clone(),
            state(master).to_owned(),
            master.lease.map_or("-".to_owned(), |_| human(master.lease_remaining)),
            master.claims.to_string(),
            last_active(master),
        ]);
    }
    output.list("holdfast.masters/v1", "masters", &rows, masters.iter().map(master_json).collect());
    Ok(())
}

async fn show(connection: &Connection, name: &str, output: Output) -> Outcome<()> {
    let master = find(connection, name).await?;
    let sources = connection.client.change_sources();
    let owned = connection.call(sources.list(None, Some(master.id))).await?;
    output.answer(&show_text(&master, &owned), || {
        let mut object = master_json(&master);
        object["schema"] = json!("holdfast.master/v1");
        object["changesources"] = owned.iter().map(source_json).collect();
        object
    });
    Ok(())
}

fn show_text(master: &Master, owned: &[ChangeSource]) -> String {
    let lease = match master.lease {
        Some(lease) => format!(", lease {lease}, {} left", human(master.lease_remaining)),
        None => ", no lease".to_owned(),
    };
    let active = match master.last_active_unix_ms {
        0 => String::new(),
        _ => format!(", last active {}", last_active(master)),
    };
    let mut lines = vec![format!("{}  {}{lease}{active}", master.name, state(master))];
    lines.extend(owned.iter().map(|source| {
        let how = source.claimant.as_ref().map(hold).unwrap_or_default();
        format!("  {}  {how}", source.name)
    }));
    lines.join("\n")
}

/// Marks a master inactive, which frees all that it owns in the same step.
async fn expire(connection: &Connection, name: &str, output: Output) -> Outcome<()> {
    let master = find(connection, name).await?;
    let masters = connection.client.masters();
    let changed = connection.call(masters.set_state(master.id, false)).await?;
    let freed = usize::try_from(master.claims).unwrap_or(usize::MAX);
    let text = match (changed, freed) {
        (false, 0) => format!("{name} was inactive already"),
        _ => format!("expired {name}: {} free", counted(freed, "change source")),
    };
    output.answer(&text, || {
        json!({
            "schema": "holdfast.master.expire/v1",
            "master": name,
            "changed": changed,
            "freed": freed,
        })
    });
    Ok(())
}

async fn find(connection: &Connection, name: &str) -> Outcome<Master> {
    let masters = connection.call(connection.client.masters().list()).await?;
    masters.into_iter().find(|master| master.name == name).ok_or_else(|| {
        Failure::new(Code::Absent, format!("there is no master {name}"))
            .help("list them: holdfast master list")
    })
}

/// `alive` under a lease, `active` without one (marked by hand), else `inactive`.
fn state(master: &Master) -> &'static str {
    match (master.lease, master.active) {
        (Some(_), _) => "alive",
        (None, true) => "active",
        (None, false) => "inactive",
    }
}

fn last_active(master: &Master) -> String {
    match master.last_active_unix_ms {
        0 => "-".to_owned(),
        since => clock_time(since),
    }
}

fn master_json(master: &Master) -> Value {
    json!({
        "master": master.name,
        "id": master.id.to_string(),
        "state": state(master),
        "lease": master.lease.map(|lease| lease.to_string()),
        "lease_remaining_ms": master.lease.map(|_| millis(master.lease_remaining)),
        "last_active_unix_ms": master.last_active_unix_ms.to_string(),
        "claims": master.claims,
    })
}

#[cfg(test)]
mod tests {
    //! What is said of a master.
    use super::*;
    use std::time::Duration;

    fn master(lease: Option<u64>, active: bool) -> Master {
        Master {
            id: 3,
            name: "master-a".to_owned(),
            active,
            lease,
            lease_remaining: Duration::from_millis(6_800),
            last_active_unix_ms: 0,
            claims: 1,
        }
    }

    #[test]
    fn states() {
        assert_eq!(state(&master(Some(9), true)), "alive");
        assert_eq!(state(&master(None, true)), "active");
        assert_eq!(state(&master(None, false)), "inactive");
    }

    #[test]
    fn show_names_lease_and_change_sources() {
        let owned =
            [ChangeSource { id: 5, name: "git-main".to_owned(), claimant: None, group: None }];
        assert_eq!(
            show_text(&master(Some(9), true), &owned),
            "master-a  alive, lease 9, 6.8 s left\n  git-main  "
        );
    }

    #[test]
    fn json_of_a_master() {
        assert_eq!(
            master_json(&master(None, true)).to_string(),
            "{\"claims\":1,\"id\":\"3\",\"last_active_unix_ms\":\"0\",\"lease\":null,\
             \"lease_remaining_ms\":null,\"master\":\"master-a\",\"state\":\"active\"}"
        );
    }
}
