//! The bodies of stored objects in a database of their own: values under their BLAKE3 hashes.
//!
//! ```text
//! 03 hash part:u16                  a body, cut as `rows` says: part 0 is its head
//! 04 hash                           marks a body that no row names any more, and somebody may still read
//! ```
//!
//! Bodies are never read into memory as a whole: each is read when somebody asks for it. The marks are
//! local to this database, and what they mark goes at the next open at the latest.
//!
//! Invariants:
//! - Where there is a head, there is all of the body: parts are written before it and removed after it.
//! - What is read has the hash it is read under.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::db::Db;
use super::generation::ReadError;
use super::locked;
use super::rows::{self, Head};

/// What a body is found by.
pub type Hash = [u8; 32];
/// A body that comes, or without bytes goes.
pub type BodyChange = (Hash, Option<Arc<[u8]>>);

const BODIES: u8 = 0x03;
const MARKS: u8 = 0x04;

/// What a checkpoint does with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action<'a> {
    /// It is to be there.
    Put(&'a [u8]),
    /// It goes.
    Remove,
    /// It is to go once nobody reads it any more.
    Mark,
}

/// Carries an action out; doing so twice is as once.
pub(super) fn carry_out(db: &Db, hash: &Hash, action: Action<'_>) -> io::Result<()> {
    match action {
        Action::Put(bytes) => {
            put(db, hash, bytes)?;
            db.remove(&mark_key(hash))
        }
        Action::Remove => remove(db, hash),
        Action::Mark => db.insert(&mark_key(hash), &[]),
    }
}

/// Writes a body.
pub(super) fn put(db: &Db, hash: &Hash, bytes: &[u8]) -> io::Result<()> {
    let cut = rows::cut(bytes);
    for (part, row) in (1..).zip(cut.parts) {
        db.insert(&body_key(hash, part), row)?;
    }
    db.insert(&body_key(hash, 0), &cut.head)
}

/// Removes a body, and its mark.
pub(super) fn remove(db: &Db, hash: &Hash) -> io::Result<()> {
    let mut end = body_key(hash, u16::MAX).to_vec();
    end.push(0);
    for row in db.range(&body_key(hash, 0), &end) {
        db.remove(&row?.0)?;
    }
    db.remove(&mark_key(hash))
}

/// Removes all that is marked.
pub(super) fn remove_marked(db: &Db) -> io::Result<()> {
    for row in db.range(&[MARKS], &[MARKS + 1]) {
        let (key, _) = row?;
        let hash = key[1..].try_into().map_err(|_| io::Error::other("a mark has no hash"))?;
        remove(db, hash)?;
    }
    Ok(())
}

/// Reads a body; none if it is not there.
fn get(db: &Db, hash: &Hash) -> Result<Option<Vec<u8>>, ReadError> {
    let Some(row) = db.get(&body_key(hash, 0))? else { return Ok(None) };
    let bytes = Head::parse(&row)?
        .join(|part| -> Result<_, ReadError> { Ok(db.get(&body_key(hash, part))?) })?;
    Ok(Some(bytes))
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

/// Where bodies can be read: those that wait for a checkpoint, and the databases.
pub(super) struct Readable(Mutex<Inner>);

struct Inner {
    /// Each with the applied index that brought it last.
    waiting: HashMap<Hash, (Arc<[u8]>, u64)>,
    /// The one in use first, then those before it that somebody may still read.
    dbs: Vec<Arc<Db>>,
}

impl Readable {
    pub(super) fn new(db: Arc<Db>) -> Readable {
        Readable(Mutex::new(Inner { waiting: HashMap::new(), dbs: vec![db] }))
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

    /// Reads from another database first.
    pub(super) fn prefer(&self, db: Arc<Db>) {
        self.lock().dbs.insert(0, db);
    }

    /// Reads no more from a database that nobody needs.
    pub(super) fn forget(&self, db: &Arc<Db>) {
        self.lock().dbs.retain(|readable| !Arc::ptr_eq(readable, db));
    }

    /// Reads a body and checks its hash; none if it is nowhere.
    pub(super) fn read(&self, hash: &Hash) -> io::Result<Option<Arc<[u8]>>> {
        let dbs = {
            let inner = self.lock();
            if let Some((bytes, _)) = inner.waiting.get(hash) {
                return Ok(Some(bytes.clone()));
            }
            inner.dbs.clone()
        };
        for db in dbs {
            if let Some(bytes) = read(&db, hash)? {
                return Ok(Some(bytes.into()));
            }
        }
        Ok(None)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        locked(&self.0)
    }
}

/// Reads a body from a database and checks its hash; none if it is not there.
pub(super) fn read(db: &Db, hash: &Hash) -> io::Result<Option<Vec<u8>>> {
    let bytes =
        get(db, hash).map_err(|error| db.fault().fail("read a body", &io::Error::from(error)))?;
    match bytes {
        Some(bytes) if blake3::hash(&bytes).as_bytes() != hash => {
            Err(db.fault().fail("read a body", &"its bytes are not those of its hash"))
        }
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Fault;
    use super::super::db::Sizes;
    use super::super::rows::ROW_BYTES_MAX;
    use super::*;

    fn made(temp: &tempfile::TempDir) -> Db {
        let fault = Fault::new(Arc::new(|_| {}));
        let sizes = Sizes { segment: 2 << 20, cache: 1 << 20 };
        Db::create(&temp.path().join("bodies"), sizes, fault).expect("create")
    }

    fn body(bytes: usize) -> (Hash, Vec<u8>) {
        let body: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 251).expect("small")).collect();
        (*blake3::hash(&body).as_bytes(), body)
    }

    fn count(db: &Db) -> usize {
        db.range(&[BODIES], &[MARKS + 1]).count()
    }

    #[test]
    fn bodies_of_every_critical_size_come_back_and_go_without_a_rest() {
        let temp = tempfile::tempdir().expect("a directory");
        let db = made(&temp);
        for bytes in [0, 1, ROW_BYTES_MAX - 12, ROW_BYTES_MAX + 1, 512 << 10] {
            let (hash, body) = body(bytes);
            for _ in 0..2 {
                carry_out(&db, &hash, Action::Mark).expect("mark");
                carry_out(&db, &hash, Action::Put(&body)).expect("put");
            }
            assert_eq!(count(&db), 1 + rows::cut(&body).parts.count());
            assert!(read(&db, &hash).expect("read") == Some(body));
            carry_out(&db, &hash, Action::Mark).expect("mark");
            remove_marked(&db).expect("remove");
            assert_eq!((read(&db, &hash).expect("read"), count(&db)), (None, 0));
        }
    }

    #[test]
    fn bytes_of_another_hash_are_a_fault() {
        let temp = tempfile::tempdir().expect("a directory");
        let db = made(&temp);
        let (hash, _) = body(100);
        put(&db, &hash, b"something else").expect("put");
        let error = read(&db, &hash).expect_err("a fault");
        assert!(error.to_string().contains("not those of its hash"), "{error}");
        assert!(db.fault().text().is_some());
    }

    #[test]
    fn what_waits_is_read_until_it_is_written() {
        let temp = tempfile::tempdir().expect("a directory");
        let db = Arc::new(made(&temp));
        let readable = Readable::new(db.clone());
        let (hash, bytes) = body(10);
        readable.add(&[(hash, Some(Arc::from(&*bytes)))], 5);
        readable.add(&[(hash, None)], 6);
        readable.written(4);
        assert_eq!(readable.read(&hash).expect("read").as_deref(), Some(&*bytes));
        readable.written(5);
        assert_eq!(readable.read(&hash).expect("read"), None);
        put(&db, &hash, &bytes).expect("put");
        assert_eq!(readable.read(&hash).expect("read").as_deref(), Some(&*bytes));
    }
}
