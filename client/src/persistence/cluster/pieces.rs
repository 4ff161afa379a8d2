//! What an upload sends, in which messages and how much of it at a time.

use std::collections::VecDeque;
use std::ops::Range;

use super::save::{BYTES_MAX, OBJECTS_MAX, request_bytes};
use crate::persistence::id::Id;
use crate::persistence::record::Record;

/// Longest chunk, in bytes (512 KiB); shorter bodies go along with their objects.
const CHUNK_BYTES: usize = 512 << 10;
/// How much may be on its way, in bytes (4 MiB): what a quick network and disk take in within a sync.
const WINDOW_BYTES: usize = 4 << 20;
/// How many pieces may be on their way.
pub(super) const WINDOW_PIECES: usize = 64;

/// What one message stages, by places among the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes of a record's body.
    Chunk { place: usize, bytes: Range<usize> },
    /// Whole objects, bodies and all.
    Objects(Vec<usize>),
    /// Objects whose bodies are chunks.
    Chunked(Vec<usize>),
}

/// Pieces, of which a beginning is answered.
pub(super) struct Queue<'a> {
    pieces: &'a [Piece],
    /// How many others came before them.
    before: usize,
    answered: usize,
    /// Sizes of those that were sent and not answered.
    in_flight: VecDeque<usize>,
}

impl<'a> Queue<'a> {
    /// Of pieces whose numbers follow so many others.
    pub(super) fn new(pieces: &'a [Piece], before: usize) -> Queue<'a> {
        Queue { pieces, before, answered: 0, in_flight: VecDeque::new() }
    }

    /// How many are answered.
    pub(super) fn answered(&self) -> usize {
        self.answered
    }

    /// What was sent and not answered is to be sent again.
    pub(super) fn begin_again(&mut self) {
        self.in_flight.clear();
    }

    pub(super) fn is_done(&self) -> bool {
        self.answered == self.pieces.len()
    }

    /// The next piece and its number, if it may be sent now.
    pub(super) fn next(&mut self) -> Option<(usize, &'a Piece)> {
        let place = self.answered + self.in_flight.len();
        let piece = self.pieces.get(place)?;
        let on_the_way: usize = self.in_flight.iter().sum();
        let bytes = piece.bytes();
        let has_room = self.in_flight.len() < WINDOW_PIECES && on_the_way + bytes <= WINDOW_BYTES;
        has_room.then(|| {
            self.in_flight.push_back(bytes);
            (self.before + place + 1, piece)
        })
    }

    /// The piece that this answers; none if it was not its turn.
    pub(super) fn answer(&mut self, number: u64) -> Option<&'a Piece> {
        let expected = u64::try_from(self.before + self.answered + 1).ok()?;
        if number != expected || self.in_flight.pop_front().is_none() {
            return None;
        }
        self.answered += 1;
        self.pieces.get(self.answered - 1)
    }
}

impl Piece {
    /// About how large its message is.
    fn bytes(&self) -> usize {
        match self {
            Piece::Chunk { bytes, .. } => bytes.len(),
            Piece::Objects(_) | Piece::Chunked(_) => BYTES_MAX,
        }
    }
}

/// How much of bodies a piece brings.
pub(super) fn body_bytes(piece: &Piece, records: &[(Id, Record)]) -> usize {
    match piece {
        Piece::Chunk { bytes, .. } => bytes.len(),
        Piece::Objects(places) => places.iter().map(|place| records[*place].1.body.len()).sum(),
        Piece::Chunked(_) => 0,
    }
}

/// What has to be sent: first bodies, some with their objects, and then the objects that name chunks.
pub(super) fn plan(records: &[(Id, Record)]) -> (Vec<Piece>, Vec<Piece>) {
    /// Bytes of a chunk's name.
    const HASH_BYTES: usize = 32;
    let (mut bodies, mut whole, mut chunked) = (Vec::new(), Batches::default(), Batches::default());
    for (place, (_, record)) in records.iter().enumerate() {
        let body = record.body.len();
        if body <= CHUNK_BYTES {
            whole.add(place, request_bytes(record));
            continue;
        }
        let starts = (0..body).step_by(CHUNK_BYTES);
        let chunk = |start| Piece::Chunk { place, bytes: start..body.min(start + CHUNK_BYTES) };
        bodies.extend(starts.map(chunk));
        let names = body.div_ceil(CHUNK_BYTES) * HASH_BYTES;
        chunked.add(place, request_bytes(record) - body + names);
    }
    bodies.extend(whole.batches.into_iter().map(Piece::Objects));
    (bodies, chunked.batches.into_iter().map(Piece::Chunked).collect())
}

/// Objects by messages that hold no more than they may.
#[derive(Default)]
struct Batches {
    batches: Vec<Vec<usize>>,
    /// Of the last one.
    bytes: usize,
}

impl Batches {
    fn add(&mut self, place: usize, bytes: usize) {
        let has_room =
            |batch: &&mut Vec<usize>| batch.len() < OBJECTS_MAX && self.bytes + bytes <= BYTES_MAX;
        match self.batches.last_mut().filter(has_room) {
            Some(batch) => {
                batch.push(place);
                self.bytes += bytes;
            }
            None => {
                self.batches.push(vec![place]);
                self.bytes = bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is sent in which message, and how much of it at a time.

    use std::collections::BTreeMap;

    use super::*;

    fn record(nth: u64, body: usize) -> (Id, Record) {
        let (class_name, metadata) = ("Task".to_owned(), BTreeMap::new());
        let record = Record { class_name, metadata, body: vec![0; body] };
        (Id::new(Id::LOWEST.get() + nth).unwrap(), record)
    }

    #[test]
    fn messages_keep_their_limits() {
        let small: Vec<_> = (0..2500).map(|nth| record(nth, 10)).collect();
        let (bodies, names) = plan(&small);
        let lengths: Vec<usize> = bodies
            .iter()
            .map(|piece| match piece {
                Piece::Objects(places) => places.len(),
                Piece::Chunk { .. } | Piece::Chunked(_) => panic!("{piece:?}"),
            })
            .collect();
        assert_eq!((lengths, names), (vec![1024, 1024, 452], Vec::new()));

        // Class and body together: the second one fills the message to its last byte.
        let half = (BYTES_MAX / 2) - 4;
        let (bodies, _) = plan(&[record(0, half), record(1, half), record(2, 0)]);
        assert_eq!(bodies, [Piece::Objects(vec![0, 1]), Piece::Objects(vec![2])]);
    }

    // P3
    #[test]
    fn chunks_come_before_the_objects_that_name_them() {
        let records = [record(0, CHUNK_BYTES), record(1, 2 * CHUNK_BYTES + 1), record(2, 1)];
        let (bodies, names) = plan(&records);
        let chunk = |bytes| Piece::Chunk { place: 1, bytes };
        let expected = [
            chunk(0..CHUNK_BYTES),
            chunk(CHUNK_BYTES..2 * CHUNK_BYTES),
            chunk(2 * CHUNK_BYTES..2 * CHUNK_BYTES + 1),
            Piece::Objects(vec![0, 2]),
        ];
        assert_eq!((bodies.as_slice(), names), (&expected[..], vec![Piece::Chunked(vec![1])]));
        let total: usize = bodies.iter().map(|piece| body_bytes(piece, &records)).sum();
        assert_eq!(total, 3 * CHUNK_BYTES + 2);
    }

    #[test]
    fn window_closes_and_opens_with_the_answers() {
        let (pieces, _) = plan(&[record(0, 20 * CHUNK_BYTES)]);
        let mut queue = Queue::new(&pieces, 5);
        let mut sent = || std::iter::from_fn(|| queue.next()).map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(sent(), (6..=13).collect::<Vec<_>>(), "4 MiB");
        assert!(queue.answer(7).is_none() && queue.answer(6).is_some());
        assert!(queue.answer(6).is_none());
        assert_eq!(queue.next().map(|(number, _)| number), Some(14));
        assert!(queue.next().is_none());
        // Another stream begins with what was not answered.
        queue.begin_again();
        assert!(queue.answer(7).is_none(), "nothing was sent");
        assert_eq!(queue.next().map(|(number, _)| number), Some(7));
    }
}
