//! A TCP proxy that misbehaves when told to.
//!
//! It runs on a thread of its own, so that a busy test does not delay what it carries. Both
//! directions are controlled apart. What it carries it carries as a practice cluster's network does
//! ([`holdfast_network::relay`]), but for ever: what is held stays until it is let go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
pub use holdfast_network::Flow;
use holdfast_network::relay::{self, Lane};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ports::{self, Port};

/// How long the proxy may take to do what it is told.
const OBEY_MAX: Duration = Duration::from_secs(5);

/// A proxy before one address. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    control: watch::Sender<Control>,
    /// Whether it listens.
    open: watch::Receiver<bool>,
    held: Held,
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
#[derive(Debug, Default, Clone)]
struct Held {
    up: Arc<AtomicUsize>,
    down: Arc<AtomicUsize>,
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
        let held = Held::default();
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
    held: Held,
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
                            connections.spawn(carry(
                                client, self.target, controls.clone(), self.held.clone(),
                            ));
                        }
                    }
                }
            }
            drop(listener);
            connections.shutdown().await;
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
async fn carry(client: TcpStream, target: SocketAddr, rules: watch::Receiver<Control>, held: Held) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let up = Lane {
        rules: rules.clone(),
        flow: Box::new(|control: &Control| control.up),
        deaf: |control| control.deaf,
        held: held.up,
        patience: None,
    };
    let down = Lane {
        rules,
        flow: Box::new(|control: &Control| control.down),
        deaf: |_| false,
        held: held.down,
        patience: None,
    };
    relay::carry(client, server, up, down).await;
}
