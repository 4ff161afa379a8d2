//! Malformed frames on both ports of every node: the connection ends or the call gets an error,
//! nothing changes, and the node stays healthy. // G11

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_cluster_tests::{Cluster, scale};
use holdfast_proto::peer::peer_client::PeerClient;
use holdfast_proto::{peer, v1};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// What begins every HTTP/2 connection (RFC 9113, section 3.4), and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// A node has to give up a hopeless connection within this time.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http2_end_the_connection() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let before = Standing::of(&cluster).await?;
    for port in ports(&cluster) {
        for (what, bytes) in garbage() {
            tokio::task::spawn_blocking({
                let port = port.clone();
                move || is_closed(&port, &bytes).with_context(|| format!("{what} at {port}"))
            })
            .await??;
        }
    }
    before.still(&cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_off_or_say_nothing_do_no_harm() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let before = Standing::of(&cluster).await?;
    let mut silent = Vec::new();
    for port in ports(&cluster) {
        for end in 0..=PREFACE.len() {
            // Dropped: the connection ends in the middle of whatever that was.
            TcpStream::connect(&*port)?.write_all(&PREFACE[..end])?;
        }
        // Headers of 16 KiB announced, and none sent.
        let mut cut_off = TcpStream::connect(&*port)?;
        cut_off.write_all(PREFACE)?;
        cut_off.write_all(b"\x00\x40\x00\x01\x04\x00\x00\x00\x01\x82\x86")?;
        drop(cut_off);
        for _ in 0..scale(200, 50) {
            silent.push(TcpStream::connect(&*port)?);
        }
    }
    // With all of those still open:
    before.still(&cluster).await?;
    drop(silent);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_make_no_sense_get_an_error() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let before = Standing::of(&cluster).await?;
    for index in 0..cluster.size() {
        let channel = connect(&cluster.endpoint(index)).await?;
        // A message of another type: field 1 is a number where a message is expected.
        let wrong = v1::OpenSessionRequest { idle_ms: 5 };
        let status = call(&channel, "/holdfast.v1.State/SetState", wrong).await?;
        ensure!(status.message().contains("decode"), "{status:?}");
        for path in ["/holdfast.v1.State/Explode", "/holdfast.v2.State/SetState", "/x", "/"] {
            let status = call(&channel, path, v1::OpenSessionRequest { idle_ms: 0 }).await?;
            ensure!(status.code() == Code::Unimplemented, "{path}: {status:?}");
        }
        // Larger than any message may be.
        let value = vec![b'7'; 32 << 20];
        let large = v1::SetStateRequest { object_id: 1, value, ..Default::default() };
        let status = call(&channel, "/holdfast.v1.State/SetState", large).await?;
        ensure!(
            status.message().contains("too large") || status.code() == Code::Unknown,
            "{status:?}"
        );
    }
    before.still(&cluster).await
}

/// Only members of this cluster are listened to on the peer port; a stranger who knows the cluster's
/// id gets no further.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_the_peer_port_are_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let before = Standing::of(&cluster).await?;
    let leader = cluster.leader().await?;
    let status = cluster.status(leader).await?;
    // Were it believed, it would end the leader's term.
    let vote = Some(peer::Vote { term: status.header.term + 1_000, node_id: 1, committed: true });
    for index in 0..cluster.size() {
        let mut client = PeerClient::new(connect(&cluster.peer_endpoint(index)).await?);
        let request = peer::VoteRequest { vote, last_log_id: None, leader_transfer: true };
        let no_word = Request::new(request);
        refused(client.vote(no_word).await, "foreign-cluster")?;

        let named = |cluster: &str, node: u64| {
            let mut named = Request::new(request);
            let metadata = named.metadata_mut();
            metadata.insert("holdfast-cluster", cluster.parse().expect("plain text"));
            metadata.insert("holdfast-node", node.into());
            metadata.insert("holdfast-incarnation", 7.into());
            metadata.insert("holdfast-nonce", 9.into());
            named
        };
        let other = "00000000-0000-7000-8000-000000000000";
        refused(client.vote(named(other, 1)).await, "foreign-cluster")?;
        refused(client.vote(named(&status.header.cluster_id, 2)).await, "wiped-directory")?;

        let append = peer::AppendRequest { vote, ..Default::default() };
        let stream = futures::stream::iter([append]);
        refused(client.stream_append(stream).await, "foreign-cluster")?;
        let forward = peer::ForwardRequest { id: 1, request: vec![1, 2, 3].into(), timeout_ms: 5 };
        refused(client.forward(futures::stream::iter([forward])).await, "foreign-cluster")?;
        refused(client.digest(peer::DigestRequest { index: 1 }).await, "foreign-cluster")?;
    }
    before.still(&cluster).await
}

/// What must not change.
struct Standing {
    term: u64,
    revision: u64,
}

impl Standing {
    async fn of(cluster: &Cluster) -> anyhow::Result<Standing> {
        let header = cluster.status(cluster.leader().await?).await?.header;
        Ok(Standing { term: header.term, revision: header.revision })
    }

    /// No election, no change, all nodes in good health, and writes reach all of them.
    async fn still(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let now = Standing::of(cluster).await?;
        ensure!(now.term == self.term, "an election: term {} after {}", now.term, self.term);
        ensure!(now.revision == self.revision, "something was written");
        for index in 0..cluster.size() {
            let alarms = cluster.status(index).await?.alarms;
            ensure!(alarms.is_empty(), "n{} has alarms: {alarms:?}", index + 1);
        }
        cluster.written_everywhere().await?;
        cluster.finish().await
    }
}

fn ports(cluster: &Cluster) -> Vec<String> {
    (0..cluster.size())
        .flat_map(|index| [cluster.endpoint(index), cluster.peer_endpoint(index)])
        .collect()
}

fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let random: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
    let after_preface = [PREFACE, &random].concat();
    // A frame that announces 16 MiB, above what any HTTP/2 server allows unasked.
    let huge = [PREFACE, b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", &random].concat();
    vec![
        ("random bytes", random),
        ("zeros", vec![0; 4096]),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50)),
        ("random frames", after_preface),
        ("a huge frame", huge),
    ]
}

/// Whether the other end closes the connection after these bytes, whatever it says before.
fn is_closed(port: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(port)?;
    stream.set_read_timeout(Some(CLOSED_WITHIN))?;
    if let Err(error) = stream.write_all(bytes) {
        return is_end(error.kind()).then_some(()).with_context(|| error.to_string());
    }
    let mut answer = [0; 4096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if is_end(error.kind()) => return Ok(()),
            Err(error) => bail!("it is not closed: {error}"),
        }
    }
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

async fn connect(endpoint: &str) -> anyhow::Result<Channel> {
    Ok(Channel::from_shared(format!("http://{endpoint}"))?.connect().await?)
}

/// The error with which a call of that path and message ends.
async fn call<M>(channel: &Channel, path: &'static str, message: M) -> anyhow::Result<Status>
where
    M: prost::Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let codec = ProstCodec::<M, v1::SetStateResponse>::default();
    let answer = grpc.unary(Request::new(message), path.parse()?, codec).await;
    answer.err().with_context(|| format!("{path} was carried out"))
}

fn refused<T>(answer: Result<T, Status>, what: &str) -> anyhow::Result<()> {
    let status = answer.err().with_context(|| format!("{what}: it was listened to"))?;
    ensure!(status.code() == Code::FailedPrecondition, "{what}: {status:?}");
    ensure!(status.message().contains(what), "{what}: {status:?}");
    Ok(())
}
