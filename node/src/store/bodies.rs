//! The bodies of stored objects: values under their BLAKE3 hashes, in a database of their own.
//!
//! ```text
//! 03 hash part:u16                  a small body, cut as `rows` says: part 0 is its head
//! 04 hash                           marks a body that no row names any more, and somebody may still read
//! large/<hash in hex>               a large body (see `files`)
//! ```
//!
//! Bodies are never read into memory as a whole: each is read when somebody asks for it. The marks are
//! local to this database, and what they mark goes at the next open at the latest.
//!
//! Invariants:
//! - Where there is a head or a file, there is all of the body: parts are written before their head and
//!   removed after it.
//! - What is read has the hash it is read under.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::db::{Db, Sizes};
use super::files::Files;
use super::generation::ReadError;
use super::rows::{self, Head, LARGE_BYTES};
use super::{Fault, StoreError, locked};

/// What a body is found by.
pub type Hash = [u8; 32];
/// A body that comes, or without bytes goes.
pub type BodyChange = (Hash, Option<Arc<[u8]>>);

/// Bodies are read once in a while, and from one end to the other.
const SIZES: Sizes = Sizes { segment: 2 << 20, cache: 2 << 20 };
const BODIES: u8 = 0x03;
const MARKS: u8 = 0x04;

/// What a checkpoint does with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action<'a> {
    /// It is to be there.
    Put(&'a [u8]),
    /// It is to be there, and has been in its file since before the checkpoint.
    Keep,
    /// It goes.
    Remove,
    /// It is to go once nobody reads it any more.
    Mark,
}

/// The open database and its files.
pub(super) struct Bodies {
    db: Db,
    files: Files,
}

impl Bodies {
    /// Makes an empty one in `path`, durably; removes what is there.
    pub(super) fn create(path: &Path, fault: Fault) -> Result<Self, StoreError> {
        let db = Db::create(path, SIZES, fault.clone())?;
        Ok(Self { db, files: Files::open(path, fault)? })
    }

    /// Opens the one in `path`.
    pub(super) fn open(path: &Path, fault: Fault) -> Result<Self, StoreError> {
        let db = Db::open(path, SIZES, fault.clone())?;
        Ok(Self { db, files: Files::open(path, fault)? })
    }

    /// Whether a body goes to a file, which is written before its checkpoint and not with it.
    pub(super) fn is_for_file(bytes: &[u8]) -> bool {
        bytes.len() > LARGE_BYTES
    }

    /// Carries an action out; doing so twice is as once.
    pub(super) fn carry_out(&self, hash: &Hash, action: Action<'_>) -> io::Result<()> {
        match action {
            Action::Put(bytes) => {
                self.put(hash, bytes)?;
                self.db.remove(&mark_key(hash))
            }
            Action::Keep => self.db.remove(&mark_key(hash)),
            Action::Remove => {
                self.remove_value(hash)?;
                self.db.remove(&mark_key(hash))
            }
            Action::Mark => self.db.insert(&mark_key(hash), &[]),
        }
    }

    /// Writes a body.  Blocks for the disk if it is for a file.
    pub(super) fn put(&self, hash: &Hash, bytes: &[u8]) -> io::Result<()> {
        if Self::is_for_file(bytes) {
            return self.files.write(&name(hash), bytes);
        }
        let cut = rows::cut(bytes);
        for (part, row) in (1..).zip(cut.parts) {
            self.db.insert(&body_key(hash, part), row)?;
        }
        self.db.insert(&body_key(hash, 0), &cut.head)
    }

    /// Makes what is in files durable before a checkpoint tells of it.
    pub(super) fn sync_files(&self) -> io::Result<()> {
        self.files.sync()
    }

    /// Makes everything durable that was done before this call.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.files.sync()?;
        self.db.sync()
    }

    /// Removes marked bodies, and then their marks.
    pub(super) fn remove(&self, hashes: &[Hash]) -> io::Result<()> {
        for hash in hashes {
            self.remove_value(hash)?;
        }
        // Without its mark, a file that came back would stay for ever.
        self.files.sync()?;
        hashes.iter().try_for_each(|hash| self.db.remove(&mark_key(hash)))
    }

    /// Removes all that is marked.
    pub(super) fn remove_marked(&self) -> io::Result<()> {
        let hash_of =
            |key: &[u8]| key[1..].try_into().map_err(|_| io::Error::other("a mark has no hash"));
        let marks = self.db.range(&[MARKS], &[MARKS + 1]);
        let marked = marks.map(|row| hash_of(&row?.0)).collect::<io::Result<Vec<Hash>>>()?;
        self.remove(&marked)
    }

    /// Reads a body and checks its hash; none if it is not there.
    pub(super) fn read(&self, hash: &Hash) -> io::Result<Option<Vec<u8>>> {
        let fault = self.db.fault();
        let found =
            self.get(hash).map_err(|error| fault.fail("read a body", &io::Error::from(error)))?;
        match found {
            Some(bytes) if blake3::hash(&bytes).as_bytes() != hash => {
                Err(fault.fail("read a body", &"its bytes are not those of its hash"))
            }
            found => Ok(found),
        }
    }

    fn get(&self, hash: &Hash) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(row) = self.db.get(&body_key(hash, 0))? else {
            return Ok(self.files.read(&name(hash))?);
        };
        let part = |part| -> Result<_, ReadError> { Ok(self.db.get(&body_key(hash, part))?) };
        Ok(Some(Head::parse(&row)?.join(part)?))
    }

    fn remove_value(&self, hash: &Hash) -> io::Result<()> {
        let mut end = body_key(hash, u16::MAX).to_vec();
        end.push(0);
        for row in self.db.range(&body_key(hash, 0), &end) {
            self.db.remove(&row?.0)?;
        }
        self.files.remove(&name(hash))
    }
}

fn body_key(hash: &Hash, part: u16) -> [u8; 35] {
    let mut key = [BODIES; 35];
    key[1..33].copy_from_slice(hash);
    key[33..].copy_from_slice(&part.to_be_bytes());
    key
}

fn mark_key(hash: &Hash) -> [u8; 33] {
    let mut key = [MARKS; 33];
    key[1..].copy_from_slice(hash);
    key
}

fn name(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

/// Where bodies can be read: those that wait for a checkpoint, and the databases.
pub(super) struct Readable(Mutex<Inner>);

struct Inner {
    /// Each with the applied index that brought it last.
    waiting: HashMap<Hash, (Arc<[u8]>, u64)>,
    /// The one in use first, then those before it that somebody may still read.
    stores: Vec<Arc<Bodies>>,
}

impl Readable {
    pub(super) fn new(bodies: Arc<Bodies>) -> Readable {
        Readable(Mutex::new(Inner { waiting: HashMap::new(), stores: vec![bodies] }))
    }

    /// Makes bodies readable that wait for a checkpoint.
    pub(super) fn add(&self, bodies: &[BodyChange], applied_index: u64) {
        let mut inner = self.lock();
        for (hash, bytes) in bodies {
            if let Some(bytes) = bytes {
                inner.waiting.insert(*hash, (bytes.clone(), applied_index));
            }
        }
    }

    /// Forgets what a checkpoint has brought into the database.
    pub(super) fn written(&self, applied_index: u64) {
        self.lock().waiting.retain(|_, (_, index)| *index > applied_index);
    }

    /// Forgets a body that is in its file, unless it has come once more since.
    pub(super) fn is_in_file(&self, hash: &Hash, applied_index: u64) {
        let mut inner = self.lock();
        if inner.waiting.get(hash).is_some_and(|(_, index)| *index <= applied_index) {
            inner.waiting.remove(hash);
        }
    }

    /// Reads from another generation's first.
    pub(super) fn prefer(&self, bodies: Arc<Bodies>) {
        self.lock().stores.insert(0, bodies);
    }

    /// Reads no more from those that nobody needs.
    pub(super) fn forget(&self, bodies: &Arc<Bodies>) {
        self.lock().stores.retain(|readable| !Arc::ptr_eq(readable, bodies));
    }

    /// Reads a body and checks its hash; none if it is nowhere.
    pub(super) fn read(&self, hash: &Hash) -> io::Result<Option<Arc<[u8]>>> {
        let stores = {
            let inner = self.lock();
            if let Some((bytes, _)) = inner.waiting.get(hash) {
                return Ok(Some(bytes.clone()));
            }
            inner.stores.clone()
        };
        for bodies in stores {
            if let Some(bytes) = bodies.read(hash)? {
                return Ok(Some(bytes.into()));
            }
        }
        Ok(None)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        locked(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROW_BYTES_MAX;
    use super::*;

    fn made(temp: &tempfile::TempDir) -> Bodies {
        let fault = Fault::new(Arc::new(|_| {}));
        Bodies::create(&temp.path().join("bodies"), fault).expect("create")
    }

    fn body(bytes: usize) -> (Hash, Vec<u8>) {
        let body: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 251).expect("small")).collect();
        (*blake3::hash(&body).as_bytes(), body)
    }

    /// How many rows and files there are.
    fn count(bodies: &Bodies) -> (usize, usize) {
        let rows = bodies.db.range(&[BODIES], &[MARKS + 1]).count();
        (rows, bodies.files.names().expect("names").len())
    }

    #[test]
    fn bodies_of_every_critical_size_come_back_and_go_without_a_rest() {
        let temp = tempfile::tempdir().expect("a directory");
        let bodies = made(&temp);
        let in_rows = [0, 1, ROW_BYTES_MAX - 12, ROW_BYTES_MAX + 1, LARGE_BYTES];
        for bytes in in_rows.into_iter().chain([LARGE_BYTES + 1, 512 << 10]) {
            let (hash, body) = body(bytes);
            for _ in 0..2 {
                bodies.carry_out(&hash, Action::Mark).expect("mark");
                bodies.carry_out(&hash, Action::Put(&body)).expect("put");
            }
            let rows = 1 + rows::cut(&body).parts.count();
            let expected = if bytes > LARGE_BYTES { (0, 1) } else { (rows, 0) };
            assert_eq!(count(&bodies), expected, "{bytes} bytes");
            assert!(bodies.read(&hash).expect("read") == Some(body));
            bodies.carry_out(&hash, Action::Mark).expect("mark");
            bodies.remove_marked().expect("remove");
            assert_eq!((bodies.read(&hash).expect("read"), count(&bodies)), (None, (0, 0)));
        }
    }

    #[test]
    fn a_body_that_is_in_use_again_is_no_longer_marked() {
        let temp = tempfile::tempdir().expect("a directory");
        let bodies = made(&temp);
        let (hash, body) = body(LARGE_BYTES + 1);
        bodies.put(&hash, &body).expect("put");
        bodies.carry_out(&hash, Action::Mark).expect("mark");
        bodies.carry_out(&hash, Action::Keep).expect("keep");
        bodies.remove_marked().expect("remove");
        assert!(bodies.read(&hash).expect("read") == Some(body));
    }

    #[test]
    fn bytes_of_another_hash_are_a_fault() {
        for bytes in [100, LARGE_BYTES + 1] {
            let temp = tempfile::tempdir().expect("a directory");
            let bodies_of = made(&temp);
            let (hash, mut body) = body(bytes);
            body[7] ^= 1;
            bodies_of.put(&hash, &body).expect("put");
            let error = bodies_of.read(&hash).expect_err("a fault");
            assert!(error.to_string().contains("not those of its hash"), "{error}");
            assert!(bodies_of.db.fault().text().is_some());
        }
    }

    #[test]
    fn what_waits_is_read_until_it_is_written() {
        let temp = tempfile::tempdir().expect("a directory");
        let bodies = Arc::new(made(&temp));
        let readable = Readable::new(bodies.clone());
        let (hash, bytes) = body(10);
        readable.add(&[(hash, Some(Arc::from(&*bytes)))], 5);
        readable.add(&[(hash, None)], 6);
        readable.written(4);
        readable.is_in_file(&hash, 4);
        assert_eq!(readable.read(&hash).expect("read").as_deref(), Some(&*bytes));
        readable.written(5);
        assert_eq!(readable.read(&hash).expect("read"), None);
        readable.add(&[(hash, Some(Arc::from(&*bytes)))], 7);
        readable.is_in_file(&hash, 7);
        assert_eq!(readable.read(&hash).expect("read"), None);
        bodies.put(&hash, &bytes).expect("put");
        assert_eq!(readable.read(&hash).expect("read").as_deref(), Some(&*bytes));
    }
}
