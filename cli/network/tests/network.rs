//! What passes, waits, comes late or ends, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_network::relay::{self, HELD_BYTES_MAX, Lane};
use holdfast_network::{Flow, Network, Route, Rules, host_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Ends a test that hangs.
const LONG: Duration = Duration::from_secs(10);
/// For so long nothing is to come; what is wrongly let through comes within a fraction of it.
const QUIET: Duration = Duration::from_millis(100);

/// A node 2 that listens, behind a network.
struct Fixture {
    network: Network,
    listener: TcpListener,
    listen: SocketAddr,
}

async fn fixture() -> Fixture {
    let network = Network::start().unwrap();
    let listener = TcpListener::bind((host_of(2).unwrap(), 0)).await.unwrap();
    // The same port on another address, as local clusters have it.
    let target = listener.local_addr().unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], target.port()));
    network.open(Route { node: 2, listen, target }).unwrap();
    Fixture { network, listener, listen }
}

impl Fixture {
    async fn dial(&self, source: IpAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        socket.connect(self.listen).await.unwrap()
    }

    /// A connection from that node, and the other end of it.
    async fn pair(&self, node: u64) -> (TcpStream, TcpStream) {
        let near = self.dial(host_of(node).unwrap()).await;
        let (far, _) = timeout(LONG, self.listener.accept()).await.unwrap().unwrap();
        (near, far)
    }

    fn cut(&self, from: u64, to: u64) {
        self.network.change(|rules| rules.cut(&[from].into(), &[to].into()));
    }

    fn heal(&self) {
        self.network.change(|rules| *rules = Rules::default());
    }
}

async fn arrives(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    timeout(LONG, stream.read_exact(&mut got)).await.expect("in time").expect("bytes");
    assert_eq!(got, expected);
}

async fn is_quiet(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = timeout(QUIET, stream.read(&mut byte)).await;
    assert!(read.is_err(), "something came: {read:?}");
}

#[tokio::test]
async fn a_cut_holds_one_direction_and_a_heal_resumes_it_in_order() {
    let it = fixture().await;
    let (mut near, mut far) = it.pair(1).await;
    near.write_all(b"one").await.unwrap();
    arrives(&mut far, b"one").await;
    it.cut(1, 2);
    near.write_all(b"two").await.unwrap();
    far.write_all(b"back").await.unwrap();
    arrives(&mut near, b"back").await;
    is_quiet(&mut far).await;
    near.write_all(b"three").await.unwrap();
    it.heal();
    arrives(&mut far, b"twothree").await;
}

#[tokio::test]
async fn a_connection_that_is_asked_for_during_a_cut_is_made_by_the_heal() {
    let it = fixture().await;
    for (from, to) in [(1, 2), (2, 1)] {
        it.cut(from, to);
        let mut near = it.dial(host_of(1).unwrap()).await;
        near.write_all(b"hello").await.unwrap();
        let accepted = timeout(QUIET, it.listener.accept()).await;
        assert!(accepted.is_err(), "connected in spite of the cut {from} to {to}");
        it.heal();
        let (mut far, _) = timeout(LONG, it.listener.accept()).await.unwrap().unwrap();
        arrives(&mut far, b"hello").await;
    }
}

#[tokio::test]
async fn an_end_does_not_pass_a_cut() {
    let it = fixture().await;
    let (near, mut far) = it.pair(1).await;
    it.cut(1, 2);
    drop(near);
    is_quiet(&mut far).await;
    it.heal();
    assert_eq!(timeout(LONG, far.read(&mut [0])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn others_and_strangers_are_not_cut_off() {
    let it = fixture().await;
    it.cut(1, 2);
    let (mut third, mut far) = it.pair(3).await;
    third.write_all(b"3").await.unwrap();
    arrives(&mut far, b"3").await;
    let mut stranger = it.dial(IpAddr::from([127, 0, 0, 1])).await;
    stranger.write_all(b"s").await.unwrap();
    let (mut far, _) = timeout(LONG, it.listener.accept()).await.unwrap().unwrap();
    arrives(&mut far, b"s").await;
}

#[tokio::test]
async fn what_a_slow_node_is_sent_comes_late_and_all_of_it() {
    let it = fixture().await;
    let (mut near, mut far) = it.pair(1).await;
    let delay = Duration::from_millis(60);
    it.network.change(|rules| rules.slow(2, delay)).unwrap();
    let begin = Instant::now();
    near.write_all(b"there").await.unwrap();
    arrives(&mut far, b"there").await;
    assert!(begin.elapsed() >= delay, "{:?}", begin.elapsed());
    far.write_all(b"back").await.unwrap();
    arrives(&mut near, b"back").await;
    assert!(begin.elapsed() >= 2 * delay, "{:?}", begin.elapsed());
    // Delayed is not throttled: many messages are on their way at once.
    let begin = Instant::now();
    for _ in 0..20 {
        near.write_all(b"m").await.unwrap();
        // Apart from each other, so that each is carried by itself.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    arrives(&mut far, &[b'm'; 20]).await;
    assert!(begin.elapsed() < 10 * delay, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_node_that_does_not_listen_ends_the_connection() {
    let it = fixture().await;
    let Fixture { network, listener, listen } = it;
    drop(listener);
    let mut near = TcpStream::connect(listen).await.unwrap();
    let read = timeout(LONG, near.read(&mut [0])).await.unwrap();
    assert!(matches!(&read, Ok(0)) || read.is_err(), "{read:?}");
    drop(network);
}

#[tokio::test]
async fn a_route_that_is_closed_takes_its_connections_and_rules_along() {
    let it = fixture().await;
    let (mut near, _far) = it.pair(1).await;
    it.cut(1, 2);
    it.network.close(2).unwrap();
    assert!(it.network.rules().is_whole());
    let read = timeout(LONG, near.read(&mut [0])).await.unwrap();
    assert!(matches!(&read, Ok(0)) || read.is_err(), "{read:?}");
    // The port is free again, and can be opened again.
    let target = it.listener.local_addr().unwrap();
    let opened = async {
        while let Err(error) = it.network.open(Route { node: 2, listen: it.listen, target }) {
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, opened).await.unwrap();
    let (mut near, mut far) = it.pair(1).await;
    near.write_all(b"again").await.unwrap();
    arrives(&mut far, b"again").await;
}

/// Bytes of which no part is like the one before it.
fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// Two sockets, and a relay between their other ends.
async fn relayed(
    flow: Flow,
    patience: Option<Duration>,
) -> (TcpStream, TcpStream, watch::Sender<Flow>, Arc<AtomicUsize>) {
    async fn connected() -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let ours = TcpStream::connect(listener.local_addr()?).await?;
        Ok((ours, listener.accept().await?.0))
    }
    let ((near, near_end), (far, far_end)) =
        (connected().await.unwrap(), connected().await.unwrap());
    let (sender, rules) = watch::channel(flow);
    let held = Arc::new(AtomicUsize::new(0));
    let lane = |flow: fn(&Flow) -> Flow, held| Lane {
        rules: rules.clone(),
        flow: Box::new(flow),
        deaf: |_| false,
        held,
        patience,
    };
    let (up, down) = (lane(|flow| *flow, Arc::clone(&held)), lane(|_| Flow::Pass, Arc::default()));
    tokio::spawn(relay::carry(near_end, far_end, up, down));
    (near, far, sender, held)
}

#[tokio::test]
async fn what_is_held_is_bounded_and_none_of_it_is_lost() {
    let (mut near, mut far, rules, held) = relayed(Flow::Stall, None).await;
    // More than fits into the relay and both sockets.
    let total = HELD_BYTES_MAX + (32 << 20);
    let writer = tokio::spawn(async move { near.write_all(&pattern(total)).await.map(|()| near) });
    let full = async {
        while held.load(Ordering::Relaxed) < HELD_BYTES_MAX - (64 << 10) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, full).await.expect("it takes in what it may");
    is_quiet(&mut far).await;
    assert!(held.load(Ordering::Relaxed) <= HELD_BYTES_MAX);
    assert!(!writer.is_finished(), "its sender has to wait");
    rules.send_replace(Flow::Pass);
    let mut got = vec![0; total];
    timeout(LONG, far.read_exact(&mut got)).await.expect("in time").unwrap();
    assert!(got == pattern(total), "bytes that were not sent");
    writer.await.unwrap().unwrap();
    let empty = async {
        while held.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, empty).await.expect("nothing is held");
}

#[tokio::test]
async fn patience_ends_a_connection_on_which_something_waits_and_no_other() {
    let patience = Duration::from_millis(50);
    let (mut near, mut far, _rules, held) = relayed(Flow::Stall, Some(patience)).await;
    is_quiet(&mut near).await;
    near.write_all(b"held").await.unwrap();
    let begin = Instant::now();
    for stream in [&mut near, &mut far] {
        let read = timeout(LONG, stream.read(&mut [0])).await.unwrap();
        assert!(matches!(&read, Ok(0)) || read.is_err(), "{read:?}");
    }
    assert!(begin.elapsed() >= patience - Duration::from_millis(5), "{:?}", begin.elapsed());
    assert_eq!(held.load(Ordering::Relaxed), 0);
}
