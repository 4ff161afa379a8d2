//! `/metrics`: what is documented is what is shown, and the values are those of what happened.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_cluster_tests::{Cluster, http};
use holdfast_proto::v1;
use holdfast_proto::v1::watch_client::WatchClient;
use tonic::transport::Channel;

use crate::raw::Raw;

/// What one node shows at one moment.
pub(crate) struct Exposition {
    kind: String,
    /// The type of each family, by the name that its samples begin with.
    types: BTreeMap<String, String>,
    /// By name and labels, as they are written.
    samples: BTreeMap<String, f64>,
    text: String,
}

impl Exposition {
    pub(crate) async fn of(cluster: &Cluster, index: usize) -> anyhow::Result<Exposition> {
        let page = http::get(&cluster.endpoint(index), "/metrics").await?;
        ensure!(page.status == 200, "{page:?}");
        let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
        for line in page.body.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').context("a type")?;
                let total = if kind == "counter" { "_total" } else { "" };
                let before = types.insert(format!("{name}{total}"), kind.to_owned());
                ensure!(before.is_none(), "{name} comes twice");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').context("a sample")?;
                let before = samples.insert(name.to_owned(), value.parse()?);
                ensure!(before.is_none(), "{name} comes twice");
            }
        }
        Ok(Exposition { kind: page.kind, types, samples, text: page.body })
    }

    /// The value of a sample: its name, with its labels if it has any.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.samples.get(name).copied()
    }

    fn known(&self, name: &str) -> anyhow::Result<f64> {
        self.value(name).with_context(|| format!("no {name} in\n{}", self.text))
    }
}

/// Names and types as `docs/metrics.md` lists them.
fn documented() -> anyhow::Result<BTreeMap<String, String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let text = std::fs::read_to_string(path)?;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `holdfast_"));
    rows.map(|row| {
        let mut cells = row.split('|').map(str::trim);
        let name = cells.next().and_then(|cell| cell.strip_suffix('`')).context("a name")?;
        let kind = cells.next().context("a type")?;
        Ok((format!("holdfast_{name}"), kind.to_owned()))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_documented_is_shown_and_nothing_else() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let documented = documented()?;
    for index in 0..3 {
        let now = Exposition::of(&cluster, index).await?;
        ensure!(now.types == documented, "n{}: {:?}\n{documented:?}", index + 1, now.types);
        ensure!(now.text.ends_with("# EOF\n"), "it is cut off");
        ensure!(now.kind.starts_with("application/openmetrics-text; version=1.0.0"), now.kind);
        for sample in now.samples.keys() {
            let family = sample.split('{').next().context("a name")?;
            let known = now.types.iter().any(|(name, kind)| match kind.as_str() {
                "histogram" => ["_bucket", "_count", "_sum"]
                    .iter()
                    .any(|part| family == format!("{name}{part}")),
                _ => family == name,
            });
            ensure!(known, "{sample} has no type");
        }
    }
    for (name, kind) in &documented {
        let unit = name.trim_end_matches("_total");
        ensure!(
            !["_ms", "_millis", "_kib", "_mib"].iter().any(|odd| unit.ends_with(odd)),
            "{name}"
        );
        ensure!((kind == "counter") == name.ends_with("_total"), "{name} is a {kind}");
    }
    cluster.finish().await
}

/// Does a little of everything on the leader; the queue's place, the upload and the watch stay.
async fn do_something(raw: &mut Raw) -> anyhow::Result<()> {
    let object = raw.object("demo", "Test").await?;
    for number in 0..10 {
        raw.set(object, "number", number.to_string().as_bytes()).await?;
    }
    raw.get(object, "number").await?;
    ensure!(raw.set(object + 1, "number", b"1").await.is_err(), "there is no such object");
    let lease = raw.lease("master", 60_000).await?;
    let source = raw.source("git").await?;
    raw.claim(source, lease).await?;
    let request = v1::OpenLeaseRequest {
        context: raw.context(),
        name: "heir".to_owned(),
        instance: vec![8; 32],
        ttl_ms: 60_000,
        ..Default::default()
    };
    let outcome = raw.masters.open_lease(request).await?.into_inner().outcome;
    let Some(v1::open_lease_response::Outcome::Lease(heir)) = outcome else {
        anyhow::bail!("no lease: {outcome:?}");
    };
    let request = v1::AwaitClaimRequest {
        context: raw.context(),
        changesource_id: source,
        lease_id: heir.lease_id,
        ..Default::default()
    };
    raw.sources.await_claim(request).await?;
    let request = v1::OpenUploadRequest { context: raw.context(), ..Default::default() };
    raw.objects.open_upload(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_those_of_what_happened() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let leader = cluster.leader().await?;
    let mut raw = Raw::on_leader_and_follower(&cluster).await?;
    let before = Exposition::of(&cluster, leader).await?;
    do_something(&mut raw[0]).await?;
    let endpoint = format!("http://{}", cluster.endpoint(leader));
    let mut watch = WatchClient::new(Channel::from_shared(endpoint)?.connect().await?);
    let watched = watch.watch(v1::WatchRequest::default()).await?;
    let after = Exposition::of(&cluster, leader).await?;

    let status = cluster.status(leader).await?;
    let now = |name: &str| after.known(&format!("holdfast_{name}"));
    let rose = |name: &str| -> anyhow::Result<f64> {
        let name = format!("holdfast_{name}");
        Ok(after.known(&name)? - before.known(&name)?)
    };
    // An object, ten values, a master twice, a source, a claim, a place in its queue and an upload.
    ensure!(rose(r#"writes_total{outcome="applied"}"#)? == 17.0, "{}", after.text);
    ensure!(rose(r#"writes_total{outcome="refused"}"#)? == 1.0, "{}", after.text);
    ensure!(rose("write_duration_seconds_count")? == 18.0, "{}", after.text);
    ensure!(rose(r#"reads_total{outcome="linearizable"}"#)? >= 1.0, "{}", after.text);
    ensure!(rose("requests_proposed_total")? >= 16.0, "{}", after.text);
    let entries = rose("entries_proposed_total")?;
    ensure!(entries >= 16.0, "one after the other: {entries} entries");
    ensure!(rose("log_sync_entries_sum")? >= entries, "{}", after.text);
    ensure!(rose("log_sync_duration_seconds_count")? >= 16.0, "{}", after.text);
    ensure!(rose("log_sync_duration_seconds_sum")? > 0.0, "{}", after.text);
    ensure!(rose("syncs_total")? >= 16.0, "{}", after.text);
    for index in ["raft_last_log_index", "raft_committed_index", "raft_applied_index"] {
        ensure!(rose(index)? >= entries, "{index}\n{}", after.text);
    }
    ensure!(rose("state_revision")? >= 16.0 && rose("state_rows")? > 0.0, "{}", after.text);
    ensure!(rose("state_bytes")? > 100.0 && rose("cluster_clock_seconds")? > 0.0);
    let exactly = [
        ("ready", 1.0),
        ("raft_is_leader", 1.0),
        ("raft_leader_id", (leader + 1) as f64),
        ("raft_term", status.header.term as f64),
        ("raft_voters", 3.0),
        ("raft_learners", 0.0),
        ("leases", 2.0),
        ("changesources", 1.0),
        ("claims", 1.0),
        ("queue_places", 1.0),
        ("uploads", 1.0),
        ("watches", 1.0),
        (r#"waiting_calls{queue="held"}"#, 0.0),
        (r#"waiting_calls{queue="proposed"}"#, 0.0),
        (r#"waiting_bytes{queue="proposed"}"#, 0.0),
        (r#"alarm{name="quota-full"}"#, 0.0),
    ];
    for (name, value) in exactly {
        ensure!(now(name)? == value, "{name} is not {value}\n{}", after.text);
    }
    ensure!(now("quota_bytes")? > now("state_bytes")?, "{}", after.text);
    ensure!(now("disk_free_bytes")? > now("disk_floor_bytes")?, "{}", after.text);
    ensure!(now("sessions")? >= 2.0, "both of ours");
    for other in (0..3).filter(|other| *other != leader) {
        let label = format!("{{node=\"{}\"}}", other + 1);
        let silence = now(&format!("raft_peer_silence_seconds{label}"))?;
        ensure!((0.0..Duration::from_secs(5).as_secs_f64()).contains(&silence), "{silence} s");
        ensure!(now(&format!("raft_peer_matched_index{label}"))? > 0.0);
    }
    drop(watched);
    cluster
        .wait("the watch is gone", || async {
            let now = Exposition::of(&cluster, leader).await.ok()?;
            (now.value("holdfast_watches") == Some(0.0)).then_some(())
        })
        .await?;
    cluster.finish().await
}
