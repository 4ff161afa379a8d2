//! A lease with a grace: it goes soon after its holder's connection, stays when nodes come and go, and
//! its holder knows in time.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use futures::channel::mpsc;
use holdfast_client::{BootTime, Claimed, Client, Instance, LeaseHolder, Loss, Opened};
use holdfast_cluster_tests::{
    Cluster, Event, Options, Percentiles, Proxy, StandIn, StandInOptions, bound, millis, report,
    scale, wait_for,
};
use holdfast_proto::v1;
use holdfast_proto::v1::masters_client::MastersClient;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

/// Far longer than a test waits: whatever ends sooner has been shrunk.
const TTL: Duration = Duration::from_secs(60);
/// A lease that no test outlives.
const LONG: Duration = Duration::from_secs(600);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// From the end of a lease to the grant at its heir.
const TAKE_OVER_MAX: Duration = millis(350);

// M6
#[tokio::test(flavor = "multi_thread")]
async fn heir_of_a_killed_holder_waits_for_the_grace_alone() -> anyhow::Result<()> {
    const GRACE: Duration = Duration::from_secs(1);
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let source = client.change_sources().find_id("wanted").await?;
    let heir = holder(&client, "heir", LONG, Duration::ZERO).await?;
    let mut took = Vec::new();
    for round in 0..scale(20, 2) {
        let options = StandInOptions {
            ttl: TTL,
            grace: GRACE,
            sources: vec![source],
            ..StandInOptions::new(&format!("owner-{round}"), cluster.endpoints())
        };
        let mut owner = StandIn::start(&options)?;
        owner.next("all granted", WAIT_MAX, all_granted).await?;
        if !owner.seen().contains(&Event::Attached) {
            owner.next("attached", WAIT_MAX, attached_event).await?;
        }
        owner.kill();
        let killed = BootTime::now();
        let granted = tokio::time::timeout(WAIT_MAX, heir.await_claim(source)).await;
        took.push(BootTime::now().since(killed));
        let token = granted.context("the heir is granted it")??;
        ensure!(heir.release(source, token).await?, "it was ours");
    }
    let took = Percentiles::of(took);
    report("kill -9 of a holder with 1 s of grace and a 60 s lease: to the heir's grant", &took);
    // The kill is stamped when the process has been waited for, a moment after its connection broke.
    ensure!(took.best() + millis(50) >= GRACE, "{took}: the grace was cut short");
    ensure!(took.worst() <= GRACE + bound(TAKE_OVER_MAX), "{took}");
    cluster.finish().await
}

// M6 N4
#[tokio::test(flavor = "multi_thread")]
async fn holder_keeps_its_lease_while_nodes_stop_and_are_killed() -> anyhow::Result<()> {
    const GRACE: Duration = Duration::from_secs(4);
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let kept = Kept::begin(&client, &client, GRACE).await?;
    for node in 0..cluster.size() {
        cluster.term(node)?;
        let status = cluster.wait_end(node, WAIT_MAX).await?;
        ensure!(status.success(), "n{node}: {status}");
        cluster.start_node(node)?;
        cluster.settled().await?;
        ensure!(kept.holder.is_live(), "lost while n{node} was stopped and started");
    }
    for node in 0..cluster.size() {
        cluster.kill(node);
        cluster.start_node(node)?;
        cluster.settled().await?;
        ensure!(kept.holder.is_live(), "lost while n{node} was killed and started");
    }
    // Not a wait for something: the time in which a lease that was shrunk would end.
    tokio::time::sleep(GRACE + millis(500)).await;
    kept.end().await?;
    report("all nodes stopped, then killed, one by one, under a lease with a grace", "kept");
    cluster.finish().await
}

// M6
#[tokio::test(flavor = "multi_thread")]
async fn holder_keeps_its_lease_when_its_connection_moves() -> anyhow::Result<()> {
    const GRACE: Duration = Duration::from_secs(2);
    let options = Options { hide_endpoints: true, ..Options::default() };
    let cluster = Cluster::start(3, options).await?;
    let proxies = proxies(&cluster).await?;
    let behind = cluster.client_with(|config| config.endpoints = addresses(&proxies));
    let kept = Kept::begin(&cluster.client(), &behind, GRACE).await?;
    for round in 0..scale(6, 1) {
        for (nth, proxy) in proxies.iter().enumerate() {
            // Both ways to be cut off: refused, and into nothing.
            if (nth + round) % 2 == 0 {
                proxy.cut().await?
            } else {
                proxy.stall()
            }
            // Not a wait for something: a lease that hung on this connection would end meanwhile.
            tokio::time::sleep(GRACE + millis(500)).await;
            ensure!(kept.holder.is_live(), "round {round}: lost with its connection to n{nth}");
            if (nth + round) % 2 == 0 { proxy.heal().await? } else { proxy.pass() }
        }
    }
    kept.end().await?;
    report("each connection of a holder with a grace cut and stalled in turn", "kept");
    cluster.finish().await
}

// M5 M6 C4
#[tokio::test(flavor = "multi_thread")]
async fn holder_cut_off_knows_before_its_heir_has_it() -> anyhow::Result<()> {
    const GRACE: Duration = Duration::from_secs(1);
    let options = Options { hide_endpoints: true, ..Options::default() };
    let cluster = Cluster::start(3, options).await?;
    let client = cluster.client();
    let source = client.change_sources().find_id("wanted").await?;
    let heir = holder(&client, "heir", LONG, Duration::ZERO).await?;
    let mut leads = Vec::new();
    for round in 0..scale(21, 3) {
        let proxies = proxies(&cluster).await?;
        let behind = cluster.client_with(|config| config.endpoints = addresses(&proxies));
        let owner = holder(&behind, &format!("owner-{round}"), TTL, GRACE).await?;
        let claimed = owner.claim(source).await?;
        ensure!(matches!(claimed, Claimed::Granted { .. }), "{claimed:?}");
        attached(&owner, GRACE).await?;
        for (nth, proxy) in proxies.iter().enumerate() {
            if nth > 0 {
                // Not a wait for something: the holder moves on, and is cut off again on its way.
                tokio::time::sleep(millis(round as u64 % 7)).await;
            }
            match round % 3 {
                0 => proxy.cut().await?,
                1 => proxy.stall(),
                // One way only. In the other way its renewals arrive, and it alone does not know.
                _ => proxy.up(holdfast_cluster_tests::Flow::Stall),
            }
        }
        let cut = BootTime::now();
        let loss = async { (owner.lost().await, BootTime::now()) };
        let grant = async { (heir.await_claim(source).await, BootTime::now()) };
        let both = tokio::time::timeout(WAIT_MAX, async { tokio::join!(loss, grant) }).await;
        let ((loss, lost_at), (granted, granted_at)) = both.context("lost and granted")?;
        ensure!(loss == Loss::Expired, "{loss:?}");
        ensure!(lost_at < granted_at, "round {round}: {:?} late", lost_at.since(granted_at));
        // A stalled connection is silent for the grace before its node shrinks the lease; the first third of one
        // more goes to a renewal that was on its way.
        let took = granted_at.since(cut);
        ensure!(took <= bound(GRACE * 5 / 2), "round {round}: granted {took:?} after the last cut");
        leads.push(granted_at.since(lost_at));
        ensure!(heir.release(source, granted?).await?, "it was ours");
    }
    report("holder with a grace cut off: from lost to the heir's grant", Percentiles::of(leads));
    cluster.finish().await
}

// G9 G11
#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_4096_attached_leases_and_no_more() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Options::default()).await?;
    let endpoint = format!("http://{}", cluster.endpoint(0));
    let channel = Channel::from_shared(endpoint)?.connect().await?;
    let reason = |answer: Result<_, Status>| {
        let status = answer.err().context("refused")?;
        let info = status.get_details_error_info().context("it says why")?;
        Ok::<_, anyhow::Error>((info.reason, status.message().to_owned()))
    };
    let (refused, message) = reason(attach(&channel, "default", 99).await)?;
    ensure!(refused == "BAD_REQUEST" && message.contains("silence_ms is 99"), "{message}");
    let (refused, message) = reason(attach(&channel, &"n".repeat(1025), 100).await)?;
    ensure!(refused == "NAME_TOO_LONG", "{refused}: {message}");
    let mut streams = Vec::new();
    for _ in 0..4096 {
        streams.push(attach(&channel, "default", 0).await?);
    }
    let (refused, message) = reason(attach(&channel, "default", 0).await)?;
    ensure!(refused == "OVERLOADED", "{refused}: {message}");
    streams.pop();
    wait_for("there is room for another one", WAIT_MAX, || async {
        attach(&channel, "default", 100).await.ok()
    })
    .await?;
    cluster.finish().await
}

/// The two ends of a stream.
type Attached = (mpsc::Sender<v1::AttachLeaseRequest>, Streaming<v1::AttachLeaseResponse>);

/// A stream about some lease, once its first message was answered.
async fn attach(channel: &Channel, namespace: &str, silence_ms: u32) -> Result<Attached, Status> {
    let namespace = namespace.to_owned();
    let first = v1::AttachLeaseRequest { namespace, lease_id: 7, renewal: 3, silence_ms };
    let (sender, more) = mpsc::channel(1);
    let messages = futures::stream::iter([first]).chain(more);
    let mut masters = MastersClient::new(channel.clone());
    let mut answers = masters.attach_lease(messages).await?.into_inner();
    let answer = answers.message().await?;
    let renewal = answer.map(|answer| answer.renewal);
    if renewal != Some(3) {
        return Err(Status::internal(format!("it answers {renewal:?}")));
    }
    Ok((sender, answers))
}

/// A holder that is to keep its lease, and what shows whether it did.
struct Kept {
    holder: LeaseHolder,
    /// Through a client that nothing happens to.
    client: Client,
    source: i64,
    /// It rises with every grant, so that an interruption shows.
    token: u64,
}

impl Kept {
    async fn begin(client: &Client, behind: &Client, grace: Duration) -> anyhow::Result<Kept> {
        let source = client.change_sources().find_id("kept").await?;
        let holder = holder(behind, "keeper", TTL, grace).await?;
        let Claimed::Granted { token } = holder.claim(source).await? else { bail!("it was free") };
        attached(&holder, grace).await?;
        Ok(Kept { holder, client: client.clone(), source, token })
    }

    /// The claim is still the first one, and has never been away.
    async fn end(self) -> anyhow::Result<()> {
        self.holder.check()?;
        let sources = self.client.change_sources();
        let found = sources.get(self.source).await?.context("it is there")?;
        let owner = found.claimant.context("nobody owns it")?;
        ensure!(owner.token == self.token, "{owner:?}, and granted under {}", self.token);
        ensure!(owner.lease == Some(self.holder.lease().id), "{owner:?}");
        ensure!(self.holder.release(self.source, self.token).await?, "it was ours");
        self.holder.close().await?;
        Ok(())
    }
}

async fn holder(
    client: &Client,
    name: &str,
    ttl: Duration,
    grace: Duration,
) -> anyhow::Result<LeaseHolder> {
    let instance = Instance::random();
    match LeaseHolder::open_with_grace(client, name, &instance, ttl, grace).await? {
        Opened::Granted(holder) => Ok(holder),
        Opened::HeldBy(by) => bail!("the lease of {name} is taken: {by:?}"),
    }
}

/// Waits until a node has answered the holder: from then on the end of its lease is the grace's.
async fn attached(holder: &LeaseHolder, grace: Duration) -> anyhow::Result<()> {
    let first = wait_for("a node is told", WAIT_MAX, || async {
        let until = holder.lost_at();
        (until.since(BootTime::now()) <= grace).then_some(until)
    })
    .await?;
    wait_for("it answers", WAIT_MAX, || async { (holder.lost_at() > first).then_some(()) }).await
}

async fn proxies(cluster: &Cluster) -> anyhow::Result<Vec<Proxy>> {
    let mut proxies = Vec::new();
    for endpoint in cluster.endpoints() {
        proxies.push(Proxy::start(&endpoint).await?);
    }
    Ok(proxies)
}

fn addresses(proxies: &[Proxy]) -> Vec<String> {
    proxies.iter().map(Proxy::address).collect()
}

fn all_granted(event: &Event) -> Option<()> {
    matches!(event, Event::AllGranted { .. }).then_some(())
}

fn attached_event(event: &Event) -> Option<()> {
    matches!(event, Event::Attached).then_some(())
}
