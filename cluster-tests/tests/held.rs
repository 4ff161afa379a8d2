//! Calls that are held while there is no leader: so many of one connection, and so many bytes; those
//! that were held are carried out once there is a leader again. // G3, G9

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use holdfast_cluster_tests::{Cluster, Options, http, millis};
use holdfast_proto::v1;
use holdfast_proto::v1::cluster_client::ClusterClient;
use holdfast_proto::v1::pipeline_client::PipelineClient;
use holdfast_proto::v1::state_client::StateClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::metrics::Exposition;
use crate::raw::Raw;

/// How many bytes of calls a node holds at most.
const HELD_BYTES_MAX: u64 = 64 << 20;
/// So many calls with such values fit in, and not one more.
const LARGE_CALLS: u64 = 64;
const LARGE_VALUE_BYTES: usize = (1 << 20) - 512;
/// Calls in flight on one connection at most.
const CALLS_PER_CONNECTION_MAX: u64 = 256;
/// Far longer than a node takes to say how it is.
const NO_ANSWER_WITHIN: Duration = millis(500);
/// No call comes near it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node that is left without a leader, and a connection to it with a session.
struct Left {
    cluster: Cluster,
    node: usize,
    away: Vec<usize>,
    channel: Channel,
    session: Raw,
    object: i64,
}

impl Left {
    async fn alone() -> anyhow::Result<Left> {
        let cluster = Cluster::start_three().await?;
        let node = cluster.follower().await?;
        let mut sessions = Raw::on_leader_and_follower(&cluster).await?;
        let object = sessions[0].object("held", "Test").await?;
        let session = sessions.pop().context("there are two")?;
        let channel = connect(&cluster, node).await?;
        let away: Vec<usize> = (0..3).filter(|index| *index != node).collect();
        for index in &away {
            cluster.kill(*index);
        }
        cluster
            .wait("the leader is lost", || async {
                let page = http::get(&cluster.endpoint(node), "/readyz").await.ok()?;
                (page.status == 503 && page.body.contains("no leader")).then_some(())
            })
            .await?;
        Ok(Left { cluster, node, away, channel, session, object })
    }

    /// A write that is held, of a session with as many undecided ones as there may be.
    fn write(
        &mut self,
        value_bytes: usize,
    ) -> impl Future<Output = Result<Response<v1::SetStateResponse>, Status>> + use<> {
        let context = self.session.context();
        let context = context.map(|context| v1::WriteContext { first_incomplete: 1, ..context });
        let name = format!("value-{}", context.as_ref().map_or(0, |context| context.seq));
        let value = vec![b'7'; value_bytes];
        let object_id = self.object;
        let write = v1::SetStateRequest { context, object_id, name, value, ..Default::default() };
        let mut request = Request::new(write);
        request.set_timeout(DEADLINE);
        let mut client = StateClient::new(self.channel.clone());
        async move { client.set_state(request).await }
    }

    /// How many calls are held, and their bytes.
    async fn held(&self) -> Option<(f64, f64)> {
        let now = Exposition::of(&self.cluster, self.node).await.ok()?;
        let value = |name| now.value(&format!(r#"holdfast_{name}{{queue="held"}}"#));
        value("waiting_calls").zip(value("waiting_bytes"))
    }

    /// Waits until so many are held; returns their bytes.
    async fn all_held(&self, calls: u64) -> anyhow::Result<f64> {
        let what = format!("{calls} calls are held");
        let held = async || self.held().await.filter(|(held, _)| *held == calls as f64);
        self.cluster.wait(&what, held).await.map(|(_, bytes)| bytes)
    }

    fn others_come_back(&self) -> anyhow::Result<()> {
        self.away.iter().try_for_each(|index| self.cluster.start_node(*index))
    }
}

async fn connect(cluster: &Cluster, node: usize) -> anyhow::Result<Channel> {
    Ok(Channel::from_shared(format!("http://{}", cluster.endpoint(node)))?.connect().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_held_bytes_and_one_beyond() -> anyhow::Result<()> {
    let mut left = Left::alone().await?;
    let mut calls = FuturesUnordered::new();
    for _ in 0..LARGE_CALLS {
        calls.push(left.write(LARGE_VALUE_BYTES));
    }
    // None of them has an answer meanwhile.
    let bytes = tokio::select! {
        bytes = left.all_held(LARGE_CALLS) => bytes?,
        answer = calls.next() => anyhow::bail!("one was answered: {answer:?}"),
    };
    let room = HELD_BYTES_MAX as f64 - bytes;
    ensure!((0.0..LARGE_VALUE_BYTES as f64).contains(&room), "{bytes} bytes are held");

    let beyond = left.write(LARGE_VALUE_BYTES).await.err().context("one beyond")?;
    let info = beyond.get_details_error_info().context("the reason")?;
    ensure!(info.reason == "OVERLOADED" && info.metadata["applied"] == "no", "{beyond:?}");
    ensure!(beyond.message().contains(&HELD_BYTES_MAX.to_string()), "{beyond:?}");
    let now = Exposition::of(&left.cluster, left.node).await?;
    ensure!(now.value(r#"holdfast_overloaded_total{queue="held"}"#) == Some(1.0));

    left.others_come_back()?;
    while let Some(answer) = calls.next().await {
        answer.context("it was held")?;
    }
    ensure!(left.held().await == Some((0.0, 0.0)), "nothing is left behind");
    left.cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_calls_of_one_stream_and_one_beyond() -> anyhow::Result<()> {
    let mut left = Left::alone().await?;
    let mut client = PipelineClient::new(left.channel.clone());
    let (requests, stream) = futures::channel::mpsc::unbounded();
    let mut answers = client.exchange(stream).await?.into_inner();
    let calls = (0..CALLS_PER_CONNECTION_MAX).map(|_| {
        let context = left.session.context();
        let context = context.map(|context| v1::WriteContext { first_incomplete: 1, ..context });
        let id = context.as_ref().map_or(0, |context| context.seq);
        let (name, object_id) = (format!("value-{id}"), left.object);
        let write = v1::SetStateRequest { context, object_id, name, ..Default::default() };
        piped(id, "State/SetState", &write)
    });
    requests.unbounded_send(v1::ExchangeRequest { calls: calls.collect() })?;
    left.all_held(CALLS_PER_CONNECTION_MAX).await?;
    // This one is answered without a leader, and only once one of them is.
    let beyond = piped(0, "Cluster/Status", &v1::StatusRequest {});
    requests.unbounded_send(v1::ExchangeRequest { calls: vec![beyond] })?;
    let early = tokio::time::timeout(NO_ANSWER_WITHIN, answers.message()).await;
    ensure!(early.is_err(), "one beyond the limit was answered: {early:?}");

    left.others_come_back()?;
    let mut answered = BTreeSet::new();
    while answered.len() as u64 <= CALLS_PER_CONNECTION_MAX {
        let message = answers.message().await?.context("the stream goes on")?;
        for answer in message.answers {
            ensure!(answer.code == 0, "{answer:?}");
            ensure!(answered.insert(answer.id), "{} was answered twice", answer.id);
        }
    }
    drop(requests);
    ensure!(answers.message().await?.is_none(), "both sides have ended");
    left.cluster.finish().await
}

fn piped(id: u64, method: &str, request: &impl prost::Message) -> v1::PipedCall {
    let method = format!("/holdfast.v1.{method}");
    let timeout_ms = u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX);
    v1::PipedCall { id, method, timeout_ms, message: request.encode_to_vec() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_of_calls_does_not_carry_is_said() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Options::default()).await?;
    let mut client = PipelineClient::new(connect(&cluster, 0).await?);
    let large = v1::SetStateRequest { value: vec![b'7'; 2 << 20], ..Default::default() };
    let calls = vec![
        piped(1, "Watch/Watch", &v1::WatchRequest::default()),
        piped(2, "State/Nothing", &v1::StatusRequest {}),
        piped(3, "State/SetState", &v1::SetStateRequest::default()),
        piped(4, "State/SetState", &large),
        v1::PipedCall { message: vec![255], ..piped(5, "Cluster/Status", &v1::StatusRequest {}) },
    ];
    let requests = futures::stream::iter([v1::ExchangeRequest { calls }]);
    let mut answers = client.exchange(requests).await?.into_inner();
    let mut codes = BTreeMap::new();
    while let Some(message) = answers.message().await? {
        for answer in message.answers {
            let code = tonic::Code::from(answer.code as i32);
            let status = Status::with_details(code, answer.error, answer.details.into());
            let reason = status.get_details_error_info().map(|info| info.reason);
            codes.insert(answer.id, (code, reason));
        }
    }
    let bad = Some("BAD_REQUEST".to_owned());
    let expected = BTreeMap::from([
        (1, (tonic::Code::Unimplemented, None)),
        (2, (tonic::Code::Unimplemented, None)),
        (3, (tonic::Code::InvalidArgument, bad.clone())),
        (4, (tonic::Code::InvalidArgument, bad)),
        (5, (tonic::Code::Internal, None)),
    ]);
    ensure!(codes == expected, "{codes:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_calls_of_one_connection_and_one_beyond() -> anyhow::Result<()> {
    let mut left = Left::alone().await?;
    let mut calls = FuturesUnordered::new();
    for _ in 0..CALLS_PER_CONNECTION_MAX - 1 {
        calls.push(left.write(1));
    }
    let mut same = ClusterClient::new(left.channel.clone());
    let last = tokio::select! {
        held = left.all_held(CALLS_PER_CONNECTION_MAX - 1) => {
            held?;
            // One more has its answer at once.
            same.status(v1::StatusRequest {}).await?;
            left.write(1)
        }
        answer = calls.next() => anyhow::bail!("one was answered: {answer:?}"),
    };
    calls.push(last);
    tokio::select! {
        held = left.all_held(CALLS_PER_CONNECTION_MAX) => held?,
        answer = calls.next() => anyhow::bail!("one was answered: {answer:?}"),
    };
    let mut beyond = tokio::spawn(async move { same.status(v1::StatusRequest {}).await });
    let early = tokio::time::timeout(NO_ANSWER_WITHIN, &mut beyond).await;
    ensure!(early.is_err(), "one beyond the limit was answered: {early:?}");
    // It waits in its connection, and nobody else does.
    let mut other = ClusterClient::new(connect(&left.cluster, left.node).await?);
    other.status(v1::StatusRequest {}).await?;

    left.others_come_back()?;
    while let Some(answer) = calls.next().await {
        answer.context("it was held")?;
    }
    beyond.await?.context("it waited in its connection")?;
    left.cluster.finish().await
}
