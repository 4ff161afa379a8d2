//! Carrying the bytes of one connection, each direction as its own rules say.
//!
//! Bytes that are held stay in order and are delivered when they are let go, also if their sender
//! has closed its connection meanwhile: that is how a message arrives long after its sender gave it
//! up. The end of a direction travels like a byte: a stalled one does not end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

/// What is read at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;
/// What one direction of one connection holds; then its sender has to wait, as it does before a full
/// socket. 50 ms at 80 MB/s.
pub const HELD_BYTES_MAX: usize = 4 << 20;

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

/// One direction of a connection, and what decides about it.
pub struct Lane<T> {
    /// What may change while the connection lives. When its sender is dropped, the connection ends.
    pub rules: watch::Receiver<T>,
    /// What the rules make of this direction.
    pub flow: Box<dyn Fn(&T) -> Flow + Send + Sync>,
    /// Whether the rules say that what comes in from now on is thrown away.
    pub deaf: fn(&T) -> bool,
    /// Counts the bytes that are held; several lanes may share it.
    pub held: Arc<AtomicUsize>,
    /// For how long something may be stalled before the connection is closed; none: for ever.
    pub patience: Option<Duration>,
}

impl<T> std::fmt::Debug for Lane<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("held", &self.held).finish_non_exhaustive()
    }
}

/// The patience of a lane is over, or its rules are gone.
#[derive(Debug)]
pub struct Over;

/// Carries a connection until both directions have ended and nothing is held, or one of them is
/// over. `up` carries from `near` to `far`.
pub async fn carry<T>(near: TcpStream, far: TcpStream, up: Lane<T>, down: Lane<T>) {
    // Without it small frames would wait for each other; it fails only on closed sockets.
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let (near_reads, near_writes) = near.into_split();
    let (far_reads, far_writes) = far.into_split();
    // Whichever is over ends both: the sockets are closed when this returns.
    let _ =
        tokio::try_join!(relay(near_reads, far_writes, up), relay(far_reads, near_writes, down));
}

async fn relay<T>(from: OwnedReadHalf, to: OwnedWriteHalf, lane: Lane<T>) -> Result<(), Over> {
    let (chunks, queue) = mpsc::unbounded_channel();
    let intake = Intake { rules: lane.rules.clone(), deaf: lane.deaf, held: lane.held.clone() };
    let ((), passed) = tokio::join!(take_in(from, chunks, intake), pass_on(to, queue, lane));
    passed
}

/// Bytes on their way; none mark the end.
struct Chunk {
    arrived: Instant,
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

struct Intake<T> {
    rules: watch::Receiver<T>,
    deaf: fn(&T) -> bool,
    held: Arc<AtomicUsize>,
}

/// Reads until the end, or until nobody passes on any more.
async fn take_in<T>(
    mut from: OwnedReadHalf,
    chunks: mpsc::UnboundedSender<Chunk>,
    intake: Intake<T>,
) {
    let room = Arc::new(Semaphore::new(HELD_BYTES_MAX));
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = chunks.closed() => return,
        };
        let arrived = Instant::now();
        // An error ends the stream as its end does.
        let length = read.unwrap_or(0);
        if length > 0 && (intake.deaf)(&intake.rules.borrow()) {
            continue;
        }
        let permits = u32::try_from(length).expect("a chunk is small");
        let room = tokio::select! {
            room = Arc::clone(&room).acquire_many_owned(permits) => room,
            () = chunks.closed() => return,
        };
        let held = Arc::clone(&intake.held);
        held.fetch_add(length, Ordering::Relaxed);
        let room = room.expect("nobody closes it");
        let chunk = Chunk { arrived, bytes: buffer[..length].to_vec(), held, _room: room };
        if chunks.send(chunk).is_err() || length == 0 {
            return;
        }
    }
}

/// Writes what was taken in, when it may, until the end or until nobody reads any more.
async fn pass_on<T>(
    mut to: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Chunk>,
    mut lane: Lane<T>,
) -> Result<(), Over> {
    while let Some(chunk) = queue.recv().await {
        if write(&mut to, &chunk, &mut lane).await?.is_err() {
            break;
        }
    }
    // Whoever reads here learns that there is no more; an error says that nobody does.
    let _ = to.shutdown().await;
    Ok(())
}

async fn write<T>(
    to: &mut OwnedWriteHalf,
    chunk: &Chunk,
    lane: &mut Lane<T>,
) -> Result<io::Result<()>, Over> {
    let mut rest = chunk.bytes.as_slice();
    loop {
        lane.wait_to_pass(chunk.arrived).await?;
        if rest.is_empty() {
            return Ok(Ok(()));
        }
        tokio::select! {
            written = to.write(rest) => match written {
                Ok(length) => rest = &rest[length..],
                Err(error) => return Ok(Err(error)),
            },
            // The reader is slow, and meanwhile the rules may stop this.
            changed = lane.rules.changed() => changed.map_err(|_| Over)?,
        }
        if rest.is_empty() {
            return Ok(Ok(()));
        }
    }
}

impl<T> Lane<T> {
    /// Waits until what arrived then may be passed on.
    async fn wait_to_pass(&mut self, arrived: Instant) -> Result<(), Over> {
        loop {
            let flow = (self.flow)(&self.rules.borrow_and_update());
            let (until, then) = match flow {
                Flow::Pass => return Ok(()),
                Flow::Delay(by) => (Some(arrived + by), Ok(())),
                Flow::Stall => (self.patience.map(|patience| arrived + patience), Err(Over)),
            };
            let passed = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passed => return then,
                changed = self.rules.changed() => changed.map_err(|_| Over)?,
            }
        }
    }

    /// Waits until a connection that was asked for now could be made.
    pub(crate) async fn wait_to_open(&mut self) -> Result<(), Over> {
        self.wait_to_pass(Instant::now()).await
    }
}
