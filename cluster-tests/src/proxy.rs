//! A TCP proxy that misbehaves when told to.
//!
//! It runs on a thread of its own, so that a busy test does not delay what it carries. Both
//! directions are controlled apart. Bytes that it holds stay in order and are delivered when it
//! lets them go, also if their sender has closed its connection meanwhile: that is how a message
//! arrives long after its sender gave it up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ports::{self, Port};

/// How long the proxy may take to do what it is told.
const OBEY_MAX: Duration = Duration::from_secs(5);
/// What is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// They are passed on at once.
    Pass,
    /// They are taken in and held, until that changes.
    Stall,
    /// They are passed on so long after they came.
    Delay(Duration),
}

/// A proxy before one address. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    control: watch::Sender<Control>,
    /// Whether it listens.
    open: watch::Receiver<bool>,
    held: Arc<Held>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
struct Control {
    cut: bool,
    /// From the client to the server.
    up: Flow,
    /// From the server to the client.
    down: Flow,
    /// What clients send from now on is thrown away.
    deaf: bool,
    end: bool,
}

/// Bytes that were read and not yet written, by direction.
#[derive(Debug, Default)]
struct Held {
    up: AtomicUsize,
    down: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Proxy {
    /// Starts one in front of `target` (`host:port`), which need not listen yet; it passes
    /// everything on.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(target: &str) -> anyhow::Result<Proxy> {
        let port = ports::reserve(1)?.pop().context("one port was asked for")?;
        let first =
            Control { cut: false, up: Flow::Pass, down: Flow::Pass, deaf: false, end: false };
        let (control, controls) = watch::channel(first);
        let (opened, open) = watch::channel(false);
        let held = Arc::new(Held::default());
        let target: SocketAddr = target.parse().context("the address behind the proxy")?;
        let listen: SocketAddr = port.address().parse().expect("host:port");
        let carrier = Carrier { listen, target, controls, held: held.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name(format!("proxy-{}", port.number()))
            .spawn(move || runtime.block_on(carrier.run(opened)))?;
        let proxy = Proxy { port, control, open, held, thread: Some(thread) };
        proxy.is_open(true).await?;
        Ok(proxy)
    }

    /// Where it listens, as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// Closes all connections, throws away what it holds, and refuses new connections; returns when
    /// that is so.
    ///
    /// # Errors
    /// If it does not obey.
    pub async fn cut(&self) -> anyhow::Result<()> {
        self.control.send_modify(|control| control.cut = true);
        self.is_open(false).await
    }

    /// Takes connections again after [`Proxy::cut`].
    ///
    /// # Errors
    /// If it does not obey.
    pub async fn heal(&self) -> anyhow::Result<()> {
        self.control.send_modify(|control| control.cut = false);
        self.is_open(true).await
    }

    /// What happens from now on to bytes from clients to the server, those held included.
    pub fn up(&self, flow: Flow) {
        self.control.send_modify(|control| control.up = flow);
    }

    /// What happens from now on to bytes from the server to clients, those held included.
    pub fn down(&self, flow: Flow) {
        self.control.send_modify(|control| control.down = flow);
    }

    /// Both directions hold everything: nothing gets through, and no connection breaks.
    pub fn stall(&self) {
        self.up(Flow::Stall);
        self.down(Flow::Stall);
    }

    /// Both directions pass everything.
    pub fn pass(&self) {
        self.up(Flow::Pass);
        self.down(Flow::Pass);
    }

    /// Takes in nothing more from clients, for good: what it holds is the last that the server gets.
    pub fn deafen(&self) {
        self.control.send_modify(|control| control.deaf = true);
    }

    /// How many bytes from clients it holds.
    #[must_use]
    pub fn held_up(&self) -> usize {
        self.held.up.load(Ordering::Relaxed)
    }

    /// How many bytes from the server it holds.
    #[must_use]
    pub fn held_down(&self) -> usize {
        self.held.down.load(Ordering::Relaxed)
    }

    async fn is_open(&self, wanted: bool) -> anyhow::Result<()> {
        let mut open = self.open.clone();
        let waited = tokio::time::timeout(OBEY_MAX, open.wait_for(|open| *open == wanted)).await;
        waited.context("the proxy does not obey")?.context("the proxy has ended")?;
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.control.send_modify(|control| control.end = true);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed by itself.
            let _ = thread.join();
        }
    }
}

struct Carrier {
    listen: SocketAddr,
    target: SocketAddr,
    controls: watch::Receiver<Control>,
    held: Arc<Held>,
}

impl Carrier {
    async fn run(mut self, opened: watch::Sender<bool>) {
        loop {
            if self.until(|control| !control.cut || control.end).await.end {
                return;
            }
            let listener = self.listener().await;
            opened.send_replace(true);
            let mut connections = JoinSet::new();
            let controls = self.controls.clone();
            loop {
                tokio::select! {
                    biased;
                    _ = self.controls.wait_for(|control| control.cut || control.end) => break,
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                    accepted = listener.accept() => {
                        if let Ok((client, _)) = accepted {
                            let carried = carry(
                                client, self.target, controls.clone(), self.held.clone(),
                            );
                            connections.spawn(carried);
                        }
                    }
                }
            }
            drop(listener);
            connections.shutdown().await;
            self.held.up.store(0, Ordering::Relaxed);
            self.held.down.store(0, Ordering::Relaxed);
            opened.send_replace(false);
        }
    }

    async fn until(&mut self, wanted: impl FnMut(&Control) -> bool) -> Control {
        // The sender lives in the `Proxy`, which waits for this thread before it goes.
        *self.controls.wait_for(wanted).await.expect("the proxy lives")
    }

    /// The port is reserved, so only a connection that lingers can be in the way for a moment.
    async fn listener(&self) -> TcpListener {
        loop {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("SO_REUSEADDR");
            if socket.bind(self.listen).is_ok() {
                return socket.listen(128).expect("listen");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// One connection, until both of its ends are closed and nothing is held.
async fn carry(
    client: TcpStream,
    target: SocketAddr,
    controls: watch::Receiver<Control>,
    held: Arc<Held>,
) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Without it small frames would wait for each other; it fails only on closed sockets.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let up = pump(Direction::Up, client_reads, server_writes, controls.clone(), &held);
    let down = pump(Direction::Down, server_reads, client_writes, controls, &held);
    tokio::join!(up, down);
}

async fn pump(
    direction: Direction,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    controls: watch::Receiver<Control>,
    held: &Held,
) {
    let count = match direction {
        Direction::Up => &held.up,
        Direction::Down => &held.down,
    };
    let (chunks, queue) = mpsc::unbounded_channel();
    let is_deaf = || matches!(direction, Direction::Up) && controls.borrow().deaf;
    let taken_in = take_in(from, chunks, is_deaf, count);
    tokio::join!(taken_in, pass_on(direction, to, queue, controls.clone(), count));
}

async fn take_in(
    mut from: OwnedReadHalf,
    chunks: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    is_deaf: impl Fn() -> bool,
    count: &AtomicUsize,
) {
    let mut buffer = vec![0; CHUNK];
    // An error ends the stream as its end does.
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if is_deaf() {
            continue;
        }
        count.fetch_add(length, Ordering::Relaxed);
        if chunks.send((Instant::now(), buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

async fn pass_on(
    direction: Direction,
    mut to: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
    mut controls: watch::Receiver<Control>,
    count: &AtomicUsize,
) {
    while let Some((arrived, chunk)) = queue.recv().await {
        wait_to_pass(direction, arrived, &mut controls).await;
        let written = to.write_all(&chunk).await;
        count.fetch_sub(chunk.len(), Ordering::Relaxed);
        if written.is_err() {
            break;
        }
    }
    // Whoever reads here learns that there is no more.
    let _ = to.shutdown().await;
    // What comes in now has nowhere to go.
    while let Ok((_, chunk)) = queue.try_recv() {
        count.fetch_sub(chunk.len(), Ordering::Relaxed);
    }
}

async fn wait_to_pass(
    direction: Direction,
    arrived: Instant,
    controls: &mut watch::Receiver<Control>,
) {
    loop {
        let control = *controls.borrow_and_update();
        let flow = match direction {
            Direction::Up => control.up,
            Direction::Down => control.down,
        };
        let due = match flow {
            Flow::Pass => return,
            Flow::Delay(by) => Some(arrived + by),
            Flow::Stall => None,
        };
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => return,
            // The proxy is gone, and this connection with it.
            changed = controls.changed() => if changed.is_err() { return },
        }
    }
}
