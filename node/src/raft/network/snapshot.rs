//! A state on its way to another node: a header frame, rows as one byte stream cut into frames of
//! at most 1 MiB, a frame for each chunk of a body that the rows name, and an end frame with their
//! numbers and a checksum.
//!
//! The sender reads an O(1) clone of the applied state, so writes go on; a frame is made when the
//! receiver has room for it. The receiver builds a state of its own, into which bodies go as they
//! arrive, so that there are never more than a few in memory. It computes their hashes itself, and
//! verifies the state's digest, and that exactly those bodies are there which it names, before openraft
//! hears of it.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::Stream;
use holdfast_machine::State;
use holdfast_proto::peer;
use holdfast_proto::peer::snapshot_frame::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::raft::image::Image;
use crate::raft::types::{Snapshot, SnapshotMeta, Vote};
use crate::raft::{codec, convert};
use crate::runtime;
use crate::store::{Building, StateStore};

/// The longest run of row bytes in one frame.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Frames that wait for the connection at most.
const FRAMES_AHEAD: usize = 4;
/// Longest key or value that a frame stream may announce: a corrupt length must not allocate more.
const PART_BYTES_MAX: usize = 16 << 20;

/// The frames of a snapshot, made as they are taken.
pub(super) fn frames(
    vote: Vote,
    snapshot: &Snapshot,
) -> impl Stream<Item = peer::SnapshotFrame> + Send + 'static {
    let (frames, taken) = mpsc::channel(FRAMES_AHEAD);
    let header = peer::SnapshotHeader {
        vote: Some(convert::vote_to_wire(vote)),
        meta: codec::encode(&snapshot.meta),
    };
    let image = snapshot.snapshot.clone();
    runtime::spawn(async move {
        let sending = runtime::background(move || send_frames(header, &image, &frames));
        if let Err(error) = sending.await {
            // Mostly that the receiver is gone; the transfer then fails on its own.
            tracing::debug!(%error, "a snapshot was not sent to its end");
        }
    });
    ReceiverStream::new(taken)
}

fn send_frames(
    header: peer::SnapshotHeader,
    image: &Image,
    frames: &mpsc::Sender<peer::SnapshotFrame>,
) -> io::Result<()> {
    let send = |frame| {
        let frame = peer::SnapshotFrame { frame: Some(frame) };
        frames.blocking_send(frame).map_err(io::Error::other)
    };
    send(Frame::Header(header))?;
    let (rows, crc32) = send_rows(image.state(), send)?;
    let mut bodies = 0;
    image.for_each_body(|bytes| {
        bodies += 1;
        send(Frame::Body(Bytes::copy_from_slice(&bytes)))
    })?;
    send(Frame::End(peer::SnapshotEnd { rows, crc32, bodies }))
}

/// Sends all rows, the header's last; gives their number and checksum.
fn send_rows(state: &State, send: impl Fn(Frame) -> io::Result<()>) -> io::Result<(u64, u32)> {
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = BytesMut::with_capacity(FRAME_BYTES_MAX);
    let mut rows = 0;
    let mut put = |mut part: &[u8], buffer: &mut BytesMut| -> io::Result<()> {
        while !part.is_empty() {
            let room = FRAME_BYTES_MAX - buffer.len();
            let (now, later) = part.split_at(room.min(part.len()));
            buffer.put_slice(now);
            part = later;
            if buffer.len() == FRAME_BYTES_MAX {
                crc.update(buffer);
                send(Frame::Rows(buffer.split().freeze()))?;
                buffer.reserve(FRAME_BYTES_MAX);
            }
        }
        Ok(())
    };
    let header_row = state.header_row();
    let all = state.rows().chain(std::iter::once((&header_row.0, &header_row.1)));
    for (key, value) in all {
        rows += 1;
        for part in [key, value] {
            let length = u32::try_from(part.len()).expect("rows are far below 4 GiB");
            put(&length.to_be_bytes(), &mut buffer)?;
            put(part, &mut buffer)?;
        }
    }
    crc.update(&buffer);
    if !buffer.is_empty() {
        send(Frame::Rows(buffer.freeze()))?;
    }
    Ok((rows, crc.finalize()))
}

type Row = (Arc<[u8]>, Arc<[u8]>);

/// A snapshot as it arrives.
pub(crate) struct Received {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    buffer: BytesMut,
    key: Option<Arc<[u8]>>,
    rows: Vec<Row>,
    crc: crc32fast::Hasher,
    store: StateStore,
    /// None before the first body.
    building: Option<Building>,
    bodies: u64,
}

fn damaged(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("receive snapshot: {what}"))
}

impl Received {
    pub(crate) fn begin(header: peer::SnapshotHeader, store: StateStore) -> io::Result<Received> {
        Ok(Received {
            vote: convert::vote_from_wire(header.vote).map_err(damaged)?,
            meta: codec::decode("snapshot metadata", &header.meta)?,
            buffer: BytesMut::new(),
            key: None,
            rows: Vec::new(),
            crc: crc32fast::Hasher::new(),
            store,
            building: None,
            bodies: 0,
        })
    }

    /// Takes a body in. Blocks for the disk: call it off the runtime's threads.
    pub(crate) fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        let building = match &mut self.building {
            Some(building) => building,
            empty => empty.insert(self.store.build()?),
        };
        building.put_body(bytes)?;
        self.bodies += 1;
        Ok(())
    }

    pub(crate) fn rows(&mut self, frame: &Bytes) -> io::Result<()> {
        self.crc.update(frame);
        self.buffer.put_slice(frame);
        while let Some(part) = self.part()? {
            match self.key.take() {
                None => self.key = Some(part),
                Some(key) => self.rows.push((key, part)),
            }
        }
        Ok(())
    }

    /// The next whole key or value, if it has arrived.
    fn part(&mut self) -> io::Result<Option<Arc<[u8]>>> {
        let Some(length) = self.buffer.get(..4) else { return Ok(None) };
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let length = usize::try_from(length).map_err(damaged)?;
        if length > PART_BYTES_MAX {
            return Err(damaged(format_args!(
                "a part of {length} bytes, at most {PART_BYTES_MAX}"
            )));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let part = self.buffer.split_to(length);
        Ok(Some(Arc::from(&part[..])))
    }

    /// Checks numbers, checksum, digest and bodies, and builds the state. Takes time: call it off the
    /// runtime's threads.
    pub(crate) fn finish(self, end: &peer::SnapshotEnd) -> io::Result<(Vote, Snapshot)> {
        let rows = self.rows.len() as u64;
        if rows != end.rows || self.key.is_some() || !self.buffer.is_empty() {
            return Err(damaged(format_args!("{rows} rows arrived of {}", end.rows)));
        }
        let crc32 = self.crc.finalize();
        if crc32 != end.crc32 {
            return Err(damaged(format_args!("checksum {crc32:08x}, sent {:08x}", end.crc32)));
        }
        if self.bodies != end.bodies {
            return Err(damaged(format_args!("{} bodies arrived of {}", self.bodies, end.bodies)));
        }
        let state = State::from_rows(self.rows).map_err(damaged)?;
        let building = self.building.map_or_else(|| self.store.build(), Ok)?;
        let snapshot = Image::arrived(state, building)?;
        Ok((self.vote, Snapshot { meta: self.meta, snapshot }))
    }
}
