//! A fail-over before your eyes: an owner is killed, its heir takes over, the old fence is refused.
//!
//! The owner is a process of its own, so that killing it is a real `kill -9`: nothing of it can say
//! good-bye. The heir waits in this process. Time is counted from the kill to the heir's grant.

use std::process::Stdio;
use std::time::{Duration, Instant};

use holdfast_client::{Claimed, Client, Error, Fence, Instance, LeaseHolder, Opened};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::places::Places;
use super::ready::NAMESPACE;
use super::state_file::LocalCluster;
use crate::args::StandInArgs;
use crate::codes::{Code, Exit};
use crate::connect::Connection;
use crate::endpoints;
use crate::errors::{Failure, Outcome};
use crate::output::{Output, print_line};
use crate::progress::Progress;
use crate::units::{human, measured, millis};

const SOURCE: &str = "git-main";
const OWNER: &str = "master-a";
const HEIR: &str = "master-b";
/// How often the heir asks for the change source.
const CLAIM_EVERY: Duration = Duration::from_millis(10);
/// What a fail-over may take beyond the lease, an election included.
const SLACK: Duration = Duration::from_secs(20);

/// What happened, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handover {
    /// The fence of the owner that was killed.
    pub(crate) old_fence: u64,
    /// The fence of its heir.
    pub(crate) new_fence: u64,
    /// How long the owner's lease lasted without a renewal.
    pub(crate) ttl: Duration,
    /// From the kill to the heir's grant.
    pub(crate) took: Duration,
}

impl Handover {
    /// One line that sums it up.
    pub(crate) fn sentence(&self) -> String {
        format!(
            "{SOURCE} went from {OWNER} to {HEIR} {} after kill -9 (lease {}, fence {} -> {}); a \
             write under the stale fence {} was refused.",
            measured(self.took),
            human(self.ttl),
            self.old_fence,
            self.new_fence,
            self.old_fence,
        )
    }

    /// For scripts.
    pub(crate) fn json(&self) -> Value {
        json!({
            "schema": "holdfast.failover/v1",
            "changesource": SOURCE,
            "from": OWNER,
            "to": HEIR,
            "old_fence": self.old_fence.to_string(),
            "new_fence": self.new_fence.to_string(),
            "lease_ms": millis(self.ttl),
            "failover_ms": millis(self.took),
            "stale_fence_refused": true,
        })
    }
}

/// `holdfast local failover`.
pub(crate) async fn run(places: &Places, ttl: Duration, output: Output) -> Outcome<()> {
    let endpoints = LocalCluster::require(places)?.endpoints();
    let waiting = Progress::start(output, "waiting for the lease of the killed owner to run out");
    let handover = fail_over(&endpoints, ttl).await?;
    drop(waiting);
    output.answer(&handover.sentence(), || handover.json());
    Ok(())
}

/// Carries the fail-over out on the cluster at these endpoints.
pub(crate) async fn fail_over(endpoints: &[String], ttl: Duration) -> Outcome<Handover> {
    let connection = Connection::to(endpoints.to_vec(), NAMESPACE, SLACK);
    let (mut owner, old_fence) = start_owner(endpoints, ttl).await?;
    let heir = match hold(&connection, HEIR, ttl).await {
        Ok(heir) => heir,
        Err(failure) => {
            kill(&mut owner).await?;
            return Err(failure);
        }
    };
    let sources = connection.client.change_sources();
    let source = connection.ok(sources.find_id(SOURCE).await).await?;
    kill(&mut owner).await?;
    let killed = Instant::now();
    let new_fence = wait_for_claim(&connection, &heir, source, killed + ttl + SLACK).await?;
    let took = killed.elapsed();
    check_fences(&connection, &heir, source, old_fence, new_fence).await?;
    // What is left open ends by itself.
    let _lapses = heir.close().await;
    connection.close().await;
    Ok(Handover { old_fence, new_fence, ttl, took })
}

async fn start_owner(endpoints: &[String], ttl: Duration) -> Outcome<(Child, u64)> {
    let binary = std::env::current_exe()
        .map_err(|error| Failure::bug(format!("cannot find our own binary: {error}")))?;
    let mut owner = Command::new(&binary)
        .args(["__master", "--master", OWNER, "--changesource", SOURCE])
        .args(["--ttl", &format!("{}ms", ttl.as_millis())])
        .args(["--endpoints", &endpoints.join(","), "--namespace", NAMESPACE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::file("start", &binary, &error))?;
    let mut line = String::new();
    if let Some(stdout) = owner.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        let within = tokio::time::timeout(ttl + SLACK * 2, stdout.read_line(&mut line)).await;
        if !matches!(within, Ok(Ok(_))) {
            line.clear();
        }
    }
    match line.trim().strip_prefix("fence ").and_then(|fence| fence.parse().ok()) {
        Some(fence) => Ok((owner, fence)),
        None => {
            kill(&mut owner).await?;
            Err(Failure::new(Code::DemoFailed, format!("{OWNER} could not claim {SOURCE}"))
                .help("its own error stands above; look at holdfast status"))
        }
    }
}

async fn kill(owner: &mut Child) -> Outcome<()> {
    owner.kill().await.map_err(|error| Failure::bug(format!("cannot kill {OWNER}: {error}")))
}

/// Opens a lease, waiting for one that an earlier run left behind to run out.
async fn hold(connection: &Connection, master: &str, ttl: Duration) -> Outcome<LeaseHolder> {
    let begin = Instant::now();
    let instance = Instance::random();
    loop {
        let opened = LeaseHolder::open(&connection.client, master, &instance, ttl).await;
        let held = match connection.ok(opened).await? {
            Opened::Granted(holder) => return Ok(holder),
            Opened::HeldBy(held) => held,
        };
        if begin.elapsed() > SLACK {
            return Err(Failure::new(
                Code::LeaseHeld,
                format!("{master} has a live lease of another process (lease {})", held.lease),
            )
            .help("wait until that fail-over has ended"));
        }
        tokio::time::sleep(held.remaining.min(Duration::from_millis(200))).await;
    }
}

async fn wait_for_claim(
    connection: &Connection,
    heir: &LeaseHolder,
    source: i64,
    deadline: Instant,
) -> Outcome<u64> {
    loop {
        match connection.ok(heir.claim(source).await).await? {
            Claimed::Granted { token } => return Ok(token),
            Claimed::AlreadyClaimed(owner) if Instant::now() >= deadline => {
                return Err(Failure::new(
                    Code::DemoFailed,
                    format!("{SOURCE} is still owned by {}", owner.master_name),
                )
                .help("this should not happen: please report it"));
            }
            Claimed::AlreadyClaimed(_) => tokio::time::sleep(CLAIM_EVERY).await,
        }
    }
}

/// The old owner's fence must be refused, and the heir's must not.
async fn check_fences(
    connection: &Connection,
    heir: &LeaseHolder,
    source: i64,
    old: u64,
    new: u64,
) -> Outcome<()> {
    let state = connection.client.state();
    let object = connection.ok(state.get_object_id("failover", "cli").await).await?;
    let fence = |token| Fence { change_source: source, token };
    match state.set_fenced(object, "last_change", b"\"late\"".to_vec(), fence(old)).await {
        Err(Error::Refused { reason, .. }) if reason == "STALE_FENCE" => {}
        Err(other) => return connection.ok(Err(other)).await,
        Ok(_) => {
            return Err(Failure::new(Code::DemoFailed, format!("the stale fence {old} was taken"))
                .help("this must not happen: please report it"));
        }
    }
    let value = format!("\"{new}\"").into_bytes();
    connection.ok(heir.set_fenced(object, "last_change", value, fence(new)).await).await?;
    Ok(())
}

/// `holdfast __master`: claims, says so, and holds on until it is killed or loses its lease.
pub(crate) async fn stand_in(args: &StandInArgs) -> Outcome<Exit> {
    let endpoints = endpoints::resolve(&args.call.cluster)?;
    let connection = Connection::to(endpoints, &args.call.namespace, args.call.timeout);
    let client: &Client = &connection.client;
    let holder = hold(&connection, &args.master, args.ttl).await?;
    let sources = client.change_sources();
    let source = connection.ok(sources.find_id(&args.changesource).await).await?;
    let deadline = Instant::now() + args.ttl + SLACK;
    let fence = wait_for_claim(&connection, &holder, source, deadline).await?;
    print_line(&format!("fence {fence}"));
    holder.lost().await;
    Err(Failure::new(Code::LeaseLost, format!("{} lost its lease", args.master))
        .help("this stand-in master ends here"))
}

#[cfg(test)]
mod tests {
    //! The line that sums a fail-over up.
    use super::*;

    #[test]
    fn one_line_sums_it_up() {
        let handover = Handover {
            old_fence: 12,
            new_fence: 17,
            ttl: Duration::from_secs(1),
            took: Duration::from_millis(1_043),
        };
        assert_eq!(
            handover.sentence(),
            "git-main went from master-a to master-b 1043 ms after kill -9 (lease 1.0 s, fence 12 \
             -> 17); a write under the stale fence 12 was refused."
        );
        assert_eq!(handover.json()["failover_ms"], 1_043);
        assert_eq!(handover.json()["new_fence"], "17");
    }
}
