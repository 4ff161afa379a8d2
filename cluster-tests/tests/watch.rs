//! Watching: every change once and in order, whatever happens to nodes and readers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::{
    Client, Error, Event, Instance, LeaseHolder, Opened, Watch, WatchFilter, WatchOptions,
};
use holdfast_cluster_tests::{Chaos, Cluster, Options, bound, millis, report, scale, wait_for};
use holdfast_proto::v1;
use holdfast_proto::v1::watch_client::WatchClient;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

const WAIT_MAX: Duration = Duration::from_secs(60);

/// A change of a value, as a writer was told of it or a watcher saw it.
type Put = (u64, String, Vec<u8>);

// W1 W2
#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_sees_every_change_once_while_leaders_die() -> anyhow::Result<()> {
    const WRITERS: usize = 4;
    const WRITE_EVERY: Duration = millis(100);
    let watchers = scale(1000, 120);
    let kills_min = scale(20, 3);
    let cluster = Arc::new(Cluster::start_three().await?);
    let client = cluster.client();
    let object = client.state().get_object_id("watched", "Test").await?;

    // Several watches share a client, as they would in a program.
    let clients: Vec<Client> = (0..watchers / 20).map(|nth| cluster.client_on(nth % 3)).collect();
    let mut watching = JoinSet::new();
    for nth in 0..watchers {
        let watch = clients[nth % clients.len()].watch(of_object(object)).await?;
        watching.spawn(async move {
            see_until_end(watch).await.with_context(|| format!("watcher {nth}"))
        });
    }

    let over = Arc::new(AtomicBool::new(false));
    let mut writing = JoinSet::new();
    for nth in 0..WRITERS {
        let (client, over) = (cluster.client(), over.clone());
        writing.spawn(async move {
            let mut acknowledged = Vec::new();
            for count in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let (name, value) = (format!("writer-{nth}"), format!("{count}").into_bytes());
                let written = client.state().set(object, &name, value.clone()).await?;
                acknowledged.push((written.mod_revision, name, value));
                tokio::time::sleep(WRITE_EVERY).await;
            }
            anyhow::Ok(acknowledged)
        });
    }
    let chaos = Chaos::start(cluster.clone(), Duration::from_secs(2), millis(500));
    let began = Instant::now();
    while chaos.kills().len() < kills_min {
        ensure!(began.elapsed() < Duration::from_secs(300), "too few kills");
        ensure!(chaos.is_running(), "the killing stopped: {:#}", chaos.stop().await.unwrap_err());
        tokio::time::sleep(millis(100)).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut expected: Vec<Put> = Vec::new();
    while let Some(written) = writing.join_next().await {
        expected.extend(written??);
    }
    let kills = chaos.stop().await?;
    let end = client.state().set(object, END, "").await?;
    expected.push((end.mod_revision, END.to_owned(), Vec::new()));
    expected.sort();

    let ended = Instant::now();
    while let Some(seen) = tokio::time::timeout(WAIT_MAX, watching.join_next()).await? {
        let seen = seen??;
        if let Some(at) =
            (0..expected.len().max(seen.len())).find(|at| seen.get(*at) != expected.get(*at))
        {
            bail!("change {at} was {:?}, written {:?}", seen.get(at), expected.get(at));
        }
    }
    report(
        "watchers under leader kills",
        format!(
            "{watchers} watchers on three nodes saw all {} changes once and in order over {} \
             kills; the last {} ms after the last write",
            expected.len(),
            kills.len(),
            ended.elapsed().as_millis()
        ),
    );
    drop(clients);
    cluster.finish().await
}

/// The value after which nothing more is watched.
const END: &str = "end";

fn of_object(object: i64) -> WatchOptions {
    let filter = WatchFilter::State { object: Some(object), name_prefix: String::new() };
    WatchOptions { filters: vec![filter], ..WatchOptions::default() }
}

async fn see_until_end(mut watch: Watch) -> anyhow::Result<Vec<Put>> {
    let mut seen = Vec::new();
    loop {
        let change = match watch.next().await {
            Ok(change) => change,
            Err(Error::Unavailable { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let Event::StatePut { name, value, .. } = change.event else {
            bail!("nobody does that: {change:?}");
        };
        let is_end = name == END;
        seen.push((change.revision, name, value));
        if is_end {
            return Ok(seen);
        }
    }
}

/// Readers that take nothing, on one node, while much more is written than fits on the way to them.
// W2 G9
#[tokio::test(flavor = "multi_thread")]
async fn reader_that_stops_is_cut_off_and_goes_on_where_it_was() -> anyhow::Result<()> {
    const VALUE_BYTES: usize = 16 << 10;
    const GROWTH_MAX: u64 = 160 << 20;
    let readers = scale(200, 40);
    let writes = 1500;
    let cluster = Cluster::start(1, Options::default()).await?;
    let client = cluster.client();
    let object = client.state().get_object_id("watched", "Test").await?;
    let mut streams = Vec::new();
    for _ in 0..readers {
        // A connection each, or they would share one window.
        streams.push(open(&channel(&cluster, 0).await?, from(object, 0)).await?);
    }
    let before = resident_bytes(&cluster, 0)?;
    let mut last = 0;
    for nth in 0..writes {
        let value = vec![u8::try_from(nth % 251)?; VALUE_BYTES];
        last = client.state().set(object, "key", value).await?.mod_revision;
    }
    // A watch that is read comes through meanwhile.
    let mut lively =
        client.watch(WatchOptions { from_revision: Some(last), ..of_object(object) }).await?;
    ensure!(lively.next().await?.revision == last, "another change");
    // They are cut off ten seconds after they stopped; the library need not wait for that.
    let cut = "watches are cut off";
    wait_for(cut, bound(Duration::from_secs(15)), || async {
        (cluster.status(0).await.ok()?.watches == 1).then_some(())
    })
    .await?;
    let grown = resident_bytes(&cluster, 0)?.saturating_sub(before);
    report(
        "readers that stopped reading",
        format!(
            "{readers} cut off after {} MiB of changes; the node grew by {} MiB",
            (writes * VALUE_BYTES) >> 20,
            grown >> 20
        ),
    );
    ensure!(grown < GROWTH_MAX, "the node grew by {} MiB", grown >> 20);
    for stream in &mut streams {
        let (mut revisions, status) = drain(stream).await?;
        let (reason, fields) = reason(&status)?;
        ensure!(reason == "SLOW_READER", "{status:?}");
        let cut_at: u64 = fields.get("last").context("the last revision is missing")?.parse()?;
        ensure!(revisions.last().is_none_or(|sent| *sent <= cut_at), "{cut_at}: {revisions:?}");
        let mut resumed = open(&channel(&cluster, 0).await?, from(object, cut_at + 1)).await?;
        while revisions.last() != Some(&last) {
            let response = resumed.message().await?.context("it ended")?;
            revisions.extend(response.events.iter().map(|event| event.revision));
        }
        ensure!(revisions.len() == writes, "{} of {writes} changes", revisions.len());
        ensure!(revisions.is_sorted_by(|one, next| one < next), "out of order: {revisions:?}");
    }
    cluster.finish().await
}

/// A node that is cut off from the others knows nothing new, and must not look as if nothing happened.
// W1
#[tokio::test(flavor = "multi_thread")]
async fn node_without_a_leader_ends_its_watches() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let object = client.state().get_object_id("watched", "Test").await?;
    let left = cluster.follower().await?;
    let channel = channel(&cluster, left).await?;
    let mut stream = open(&channel, from(object, 0)).await?;
    let others: Vec<usize> = cluster.running().into_iter().filter(|index| *index != left).collect();
    for index in &others {
        cluster.pause(*index)?;
    }
    let (revisions, status) = drain(&mut stream).await?;
    ensure!(revisions.is_empty() && reason(&status)?.0 == "NO_LEADER", "{status:?}");
    let refused = open(&channel, from(object, 1)).await.err().context("it knows nothing new")?;
    ensure!(reason(&refused)?.0 == "NO_LEADER", "{refused:?}");
    for index in others {
        cluster.resume(index)?;
    }
    cluster.written_everywhere().await?;
    open(&channel, from(object, 1)).await?;
    cluster.finish().await
}

// W2
#[tokio::test(flavor = "multi_thread")]
async fn history_is_bounded_and_says_where_it_begins() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Options::default()).await?;
    let client = cluster.client();
    let object = client.state().get_object_id("watched", "Test").await?;
    let first = client.state().set(object, "key", "first").await?.mod_revision;
    let whole = WatchOptions { from_revision: Some(first), ..of_object(object) };
    ensure!(client.watch(whole.clone()).await?.next().await?.revision == first, "not the first");
    let mut last = first;
    for nth in 0..70_u8 {
        last = client.state().set(object, "key", vec![nth; 1 << 20]).await?.mod_revision;
    }
    // The stream is opened first, and then ends.
    let compacted = match client.watch(whole).await {
        Ok(mut watch) => watch.next().await.err(),
        Err(error) => Some(error),
    };
    let compacted = compacted.context("64 MiB are remembered, and 70 were written")?;
    let Error::Refused { reason, fields, .. } = &compacted else { bail!("{compacted:?}") };
    ensure!(reason == "COMPACTED", "{compacted:?}");
    let oldest: u64 = fields.get("oldest").context("oldest is missing")?.parse()?;
    ensure!(first < oldest && oldest <= last, "{oldest} is not between {first} and {last}");
    for (from_revision, is_kept) in [(oldest, true), (oldest - 1, false)] {
        let options = WatchOptions { from_revision: Some(from_revision), ..of_object(object) };
        let next = match client.watch(options).await {
            Ok(mut watch) => watch.next().await,
            Err(error) => Err(error),
        };
        ensure!(next.is_ok() == is_kept, "from {from_revision}: {next:?}");
    }
    cluster.finish().await
}

// G9
#[tokio::test(flavor = "multi_thread")]
async fn connection_has_1024_watches_and_no_more() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Options::default()).await?;
    let channel = channel(&cluster, 0).await?;
    let mut streams = Vec::new();
    for _ in 0..1024 {
        streams.push(open(&channel, v1::WatchRequest::default()).await?);
    }
    let refused = open(&channel, v1::WatchRequest::default()).await;
    let status = refused.err().context("one watch too many")?;
    let (reason, fields) = reason(&status)?;
    ensure!(reason == "TOO_MANY_WATCHES" && fields["allowed"] == "1024", "{status:?}");
    streams.pop();
    wait_for("there is room for another one", WAIT_MAX, || async {
        open(&channel, v1::WatchRequest::default()).await.ok()
    })
    .await?;
    cluster.finish().await
}

/// A lease that ends frees everything in one step, and that is one response.
// W1 M4 C4
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_one_revision_come_together() -> anyhow::Result<()> {
    const SOURCES: usize = 100;
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let Opened::Granted(holder) =
        LeaseHolder::open(&client, "owner", &Instance::random(), Duration::from_secs(60)).await?
    else {
        bail!("nobody else is called so")
    };
    for nth in 0..SOURCES {
        let source = client.change_sources().find_id(&format!("source-{nth}")).await?;
        holder.claim(source).await?;
    }
    let channel = channel(&cluster, cluster.follower().await?).await?;
    let mut stream = open(&channel, v1::WatchRequest::default()).await?;
    holder.close().await?;
    let response = stream.message().await?.context("it ended")?;
    let revisions: Vec<u64> = response.events.iter().map(|event| event.revision).collect();
    ensure!(revisions.len() == SOURCES + 1, "{} events, with the master's", revisions.len());
    ensure!(revisions.iter().all(|revision| *revision == revisions[0]), "{revisions:?}");
    let header = response.header.context("every response has a header")?;
    ensure!(header.revision >= revisions[0], "{header:?} is behind its events");
    cluster.finish().await
}

// W1 W2
#[tokio::test(flavor = "multi_thread")]
async fn filters_and_progress() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let state = client.state();
    let object = state.get_object_id("watched", "Test").await?;
    let other = state.get_object_id("other", "Test").await?;
    let only = |what| v1::WatchRequest {
        filters: vec![v1::WatchFilter { what: Some(what) }],
        progress_ms: 200,
        ..v1::WatchRequest::default()
    };
    let by_name = v1::watch_filter::What::State(v1::StateFilter {
        object_id: object,
        name_prefix: "a".to_owned(),
    });
    let sources = v1::watch_filter::What::Changesources(v1::ChangeSourceFilter::default());
    let channel = channel(&cluster, cluster.follower().await?).await?;
    let mut by_name = open(&channel, only(by_name)).await?;
    let mut sources = open(&channel, only(sources)).await?;
    state.set(object, "b", "1").await?;
    state.set(other, "a", "1").await?;
    client.with_namespace("elsewhere").state().get_object_id("a", "Test").await?;
    let wanted = state.set(object, "ab", "1").await?.mod_revision;
    let created = client.change_sources().find_id("repo").await?;

    let events = next_events(&mut by_name).await?;
    ensure!(events.len() == 1 && events[0].revision == wanted, "{events:?}");
    let events = next_events(&mut sources).await?;
    let Some(v1::watch_event::Event::ChangesourceChanged(source)) = &events[0].event else {
        bail!("{events:?}")
    };
    ensure!(events.len() == 1 && source.changesource_id == created, "{events:?}");
    // What does not pass is no event, and still it is known how far the stream has come.
    let last = state.set(other, "c", "1").await?.mod_revision;
    loop {
        let response = tokio::time::timeout(WAIT_MAX, by_name.message()).await??;
        let response = response.context("it ended")?;
        ensure!(response.events.is_empty(), "{response:?}");
        if response.header.is_some_and(|header| header.revision >= last) {
            break;
        }
    }
    for (request, field) in [
        (v1::WatchRequest { progress_ms: 99, ..Default::default() }, "progress_ms"),
        (
            v1::WatchRequest { filters: vec![v1::WatchFilter::default()], ..Default::default() },
            "filters",
        ),
        (
            v1::WatchRequest {
                filters: vec![
                    only(v1::watch_filter::What::State(v1::StateFilter::default()))
                        .filters[0]
                        .clone();
                    65
                ],
                ..Default::default()
            },
            "65 filters",
        ),
    ] {
        let status = open(&channel, request).await.err().context("it makes no sense")?;
        ensure!(status.code() == Code::InvalidArgument, "{status:?}");
        ensure!(status.message().contains(field), "{status:?}");
    }
    cluster.finish().await
}

async fn channel(cluster: &Cluster, index: usize) -> anyhow::Result<Channel> {
    Ok(Channel::from_shared(format!("http://{}", cluster.endpoint(index)))?.connect().await?)
}

fn from(object_id: i64, from_revision: u64) -> v1::WatchRequest {
    let filter = v1::StateFilter { object_id, ..v1::StateFilter::default() };
    let what = Some(v1::watch_filter::What::State(filter));
    let filters = vec![v1::WatchFilter { what }];
    v1::WatchRequest { from_revision, filters, ..v1::WatchRequest::default() }
}

/// Opens a stream and takes its first response.
async fn open(
    channel: &Channel,
    request: v1::WatchRequest,
) -> Result<Streaming<v1::WatchResponse>, Status> {
    let mut client = WatchClient::new(channel.clone());
    let mut stream = client.watch(request).await?.into_inner();
    let first = stream.message().await?;
    assert!(first.is_some_and(|first| first.events.is_empty()), "the first says where it begins");
    Ok(stream)
}

async fn next_events(
    stream: &mut Streaming<v1::WatchResponse>,
) -> anyhow::Result<Vec<v1::WatchEvent>> {
    loop {
        let response = tokio::time::timeout(WAIT_MAX, stream.message()).await??;
        let events = response.context("it ended")?.events;
        if !events.is_empty() {
            return Ok(events);
        }
    }
}

/// The revisions that are still on their way, and the last word.
async fn drain(stream: &mut Streaming<v1::WatchResponse>) -> anyhow::Result<(Vec<u64>, Status)> {
    let mut revisions = Vec::new();
    loop {
        match tokio::time::timeout(WAIT_MAX, stream.message()).await? {
            Ok(Some(response)) => {
                revisions.extend(response.events.iter().map(|event| event.revision));
            }
            Ok(None) => bail!("it ended without a word"),
            Err(status) => return Ok((revisions, status)),
        }
    }
}

fn reason(status: &Status) -> anyhow::Result<(String, BTreeMap<String, String>)> {
    let info = status.get_details_error_info().with_context(|| format!("{status:?}"))?;
    Ok((info.reason, info.metadata.into_iter().collect()))
}

/// What a node's process has in memory, in bytes.
fn resident_bytes(cluster: &Cluster, index: usize) -> anyhow::Result<u64> {
    let pid = cluster.pid(index).context("it runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib << 10)
}
