//! A directory of objects: what is in it, and how it changes, also under many processes.
//!
//! ```text
//! lock                    held by flock: shared by readers, exclusively by whoever changes something
//! next-id                 the first id that was not given out yet
//! 1000000000000000        an object
//! aside/<random>/<id>     objects on their way in; the directory is locked by the process that writes it
//! commit/<id>             objects that are in, and have not been moved to their places yet
//! ```
//!
//! # Invariants
//! - An object is written and synced aside. One alone is renamed to its place; several are renamed to
//!   `commit` together, as one directory, and that is when all of them are in.
//! - Whoever has the lock sees no `commit`: it has been moved to its places first, by whoever found it.
//! - What lies aside and is not locked belongs to nobody, and is swept away.
//! - All that was acknowledged survives a power cut: files are synced before they are renamed, and the
//!   directory is synced after.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::format::{self, Head, ReadError};
use crate::persistence::error::Error;
use crate::persistence::id::Id;
use crate::persistence::record::Record;

const LOCK: &str = "lock";
const ASIDE: &str = "aside";
const COMMIT: &str = "commit";
/// More files than these are synced all at once, with whatever else the file system has to write.
const SYNCED_ONE_BY_ONE: usize = 16;

/// A directory of objects, which need not be there yet.
#[derive(Debug, Clone)]
pub(super) struct Dir {
    pub(super) path: PathBuf,
}

/// The right to read what is in a directory, or to change it, until it is dropped. A blocked process that
/// has it makes the others wait.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    dir: &'a Dir,
    _lock: File,
}

/// Objects that lie aside, synced. Dropping it throws them away.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    /// The only object, if there is no other.
    only: Option<Id>,
    _lock: File,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already if they are in; else what stays behind is swept away later.
        let _left = fs::remove_dir_all(&self.path);
    }
}

impl Dir {
    /// The right to read; none if there is no such directory, and so nothing in it.
    pub(super) fn read(&self) -> Result<Option<Locked<'_>>, Error> {
        if !self.path.try_exists().map_err(|e| failed("look for", &self.path, e))? {
            return Ok(None);
        }
        let locked = self.lock(FlockOperation::LockShared)?;
        if !self.has_commit()? {
            return Ok(Some(locked));
        }
        // Whoever began it is gone. A lock that is turned into a stronger one may be lost in between,
        // so it is taken anew.
        drop(locked);
        self.write().map(Some)
    }

    /// The right to change; makes the directory if need be.
    pub(super) fn write(&self) -> Result<Locked<'_>, Error> {
        make_dirs(&self.path)?;
        let locked = self.lock(FlockOperation::LockExclusive)?;
        if self.has_commit()? {
            locked.settle()?;
        }
        Ok(locked)
    }

    /// Writes objects aside, and syncs them. Takes no lock.
    pub(super) fn stage(&self, records: &[(Id, Record)]) -> Result<Staged, Error> {
        let aside = self.path.join(ASIDE);
        make_dirs(&aside)?;
        let (path, lock) = reserve(&aside)?;
        let only = match records {
            [(id, _)] => Some(*id),
            _ => None,
        };
        let staged = Staged { path, only, _lock: lock };
        let one_by_one = records.len() <= SYNCED_ONE_BY_ONE;
        for (id, record) in records {
            let path = staged.path.join(id.to_string());
            write_file(&path, &[&format::encode_head(*id, record), &record.body], one_by_one)
                .map_err(|e| failed("write", &path, e))?;
        }
        let synced = if one_by_one { Ok(()) } else { sync_all_of(&staged.path) };
        synced
            .and_then(|()| sync_dir(&staged.path))
            .map_err(|e| failed("sync", &staged.path, e))?;
        Ok(staged)
    }

    fn lock(&self, how: FlockOperation) -> Result<Locked<'_>, Error> {
        let path = self.path.join(LOCK);
        let io = |e| failed("lock", &path, e);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o666)
                .open(&path)
                .map_err(io)?,
            opened => opened.map_err(io)?,
        };
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(Locked { dir: self, _lock: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io(errno.into())),
            }
        }
    }

    fn has_commit(&self) -> Result<bool, Error> {
        let path = self.path.join(COMMIT);
        path.try_exists().map_err(|e| failed("look for", &path, e))
    }
}

impl Locked<'_> {
    /// An object; none if it is not there.
    pub(super) fn object(&self, id: Id) -> Result<Option<Record>, Error> {
        self.open(id, |file| {
            let head = format::read_head(file, id)?;
            format::read_body(file, head)
        })
    }

    /// What is known of an object without its body; none if it is not there.
    pub(super) fn head(&self, id: Id) -> Result<Option<Head>, Error> {
        self.open(id, |file| format::read_head(file, id))
    }

    fn open<T>(
        &self,
        id: Id,
        read: impl FnOnce(&mut File) -> Result<T, ReadError>,
    ) -> Result<Option<T>, Error> {
        let path = self.dir.path.join(id.to_string());
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|e| failed("open", &path, e))?,
        };
        match read(&mut file) {
            Ok(found) => Ok(Some(found)),
            Err(ReadError::Io(error)) => Err(failed("read", &path, error)),
            Err(ReadError::Damaged(reason)) => {
                Err(Error::Damaged { what: path.display().to_string(), reason })
            }
        }
    }

    /// The ids of all objects, in order. What is not named like an object is passed over.
    pub(super) fn ids(&self) -> Result<Vec<Id>, Error> {
        ids_in(&self.dir.path)
    }

    /// Puts objects in their places: all of them, also if this process ends midway.
    pub(super) fn commit(&self, staged: Staged) -> Result<(), Error> {
        let root = &self.dir.path;
        if let Some(id) = staged.only {
            let name = id.to_string();
            let place = root.join(&name);
            fs::rename(staged.path.join(name), &place).map_err(|e| failed("write", &place, e))?;
            return self.sync();
        }
        let commit = root.join(COMMIT);
        fs::rename(&staged.path, &commit).map_err(|e| failed("write", &commit, e))?;
        // From here on they are in.
        self.sync()?;
        self.settle()
    }

    /// Removes an object; says whether there was one.
    pub(super) fn remove(&self, id: Id) -> Result<bool, Error> {
        let path = self.dir.path.join(id.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            removed => removed.map_err(|e| failed("remove", &path, e))?,
        }
        self.sync().map(|()| true)
    }

    /// Throws away what lies aside and belongs to nobody. What cannot be removed is left to the next one.
    pub(super) fn sweep(&self) -> Result<(), Error> {
        let aside = self.dir.path.join(ASIDE);
        let entries = match fs::read_dir(&aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|e| failed("list", &aside, e))?,
        };
        for entry in entries {
            let path = entry.map_err(|e| failed("list", &aside, e))?.path();
            let Ok(dir) = File::open(&path) else { continue };
            if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _left = fs::remove_dir_all(&path);
            }
        }
        Ok(())
    }

    /// Replaces a small file of the directory's own, and syncs it.
    pub(super) fn replace_file(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.dir.path.join(name);
        // The lock is ours, so that nobody else writes there.
        let aside = self.dir.path.join(format!("{name}.new"));
        let written = write_file(&aside, &[bytes], true).and_then(|()| fs::rename(&aside, &path));
        written.map_err(|e| failed("write", &path, e))?;
        self.sync()
    }

    /// A small file of the directory's own; none if it is not there.
    pub(super) fn file(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.dir.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, error)),
        }
    }

    /// Where a file of the directory's own is, for messages.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.dir.path.join(name)
    }

    /// Moves what is in to its places.
    fn settle(&self) -> Result<(), Error> {
        let root = &self.dir.path;
        let commit = root.join(COMMIT);
        for id in ids_in(&commit)? {
            let name = id.to_string();
            let place = root.join(&name);
            fs::rename(commit.join(name), &place).map_err(|e| failed("write", &place, e))?;
        }
        self.sync()?;
        fs::remove_dir(&commit).map_err(|e| failed("remove", &commit, e))
    }

    fn sync(&self) -> Result<(), Error> {
        sync_dir(&self.dir.path).map_err(|e| failed("sync", &self.dir.path, e))
    }
}

/// Makes a directory of a random name and locks it.
fn reserve(aside: &Path) -> Result<(PathBuf, File), Error> {
    loop {
        let path = aside.join(format!("{:016x}", rand::random::<u64>()));
        let io = |e| failed("make", &path, e);
        fs::create_dir(&path).map_err(io)?;
        // Whoever sweeps may have been faster, before we had the lock.
        let dir = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.map_err(io)?,
        };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let ours = dir.metadata().map_err(io)?.ino();
        if fs::metadata(&path).is_ok_and(|present| present.ino() == ours) {
            return Ok((path, dir));
        }
    }
}

fn ids_in(path: &Path) -> Result<Vec<Id>, Error> {
    let io = |e| failed("list", path, e);
    let mut ids = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse::<Id>().ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Makes a directory, and those above it that are missing, so that they survive a power cut.
fn make_dirs(path: &Path) -> Result<(), Error> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|dir| *dir != Path::new("") && !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        let made = DirBuilder::new().mode(0o777).create(dir);
        match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            made => made.map_err(|e| failed("make", dir, e))?,
        }
        let above = dir.parent().filter(|above| *above != Path::new("")).unwrap_or(Path::new("."));
        sync_dir(above).map_err(|e| failed("sync", above, e))?;
    }
    Ok(())
}

fn write_file(path: &Path, parts: &[&[u8]], sync: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    if sync { file.sync_all() } else { Ok(()) }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Syncs all files of a directory. On Linux one call for the whole file system is much cheaper than one for
/// each of thousands of files, and since Linux 5.8 it reports what could not be written (`syncfs(2)`).
fn sync_all_of(path: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::fs::syncfs(File::open(path)?)?);
    #[cfg(not(target_os = "linux"))]
    fs::read_dir(path)?.try_for_each(|entry| File::open(entry?.path())?.sync_all())
}

pub(super) fn failed(act: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { act, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    //! Saves that ended midway, at each of their steps.

    use std::collections::BTreeMap;

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn id(nth: u64) -> Id {
        Id::new(Id::LOWEST.get() + nth).unwrap()
    }

    fn record(body: &str) -> Record {
        Record { class_name: "Task".to_owned(), metadata: BTreeMap::new(), body: body.into() }
    }

    fn records(body: &str, count: u64) -> Vec<(Id, Record)> {
        (0..count).map(|nth| (id(nth), record(body))).collect()
    }

    fn bodies(dir: &Dir) -> Result<Vec<String>, Error> {
        let Some(locked) = dir.read()? else { return Ok(Vec::new()) };
        let ids = locked.ids()?;
        let body = |id: &Id| {
            let found = locked.object(*id)?.expect("it is listed");
            Ok(String::from_utf8_lossy(&found.body).into_owned())
        };
        ids.iter().map(body).collect()
    }

    fn dir(temp: &tempfile::TempDir) -> Dir {
        Dir { path: temp.path().join("a/b") }
    }

    #[test]
    fn all_or_none_of_several_objects_are_in() -> TestResult {
        let temp = tempfile::tempdir()?;
        let dir = dir(&temp);
        assert_eq!(bodies(&dir)?, [""; 0], "it is not made by looking");
        assert!(!dir.path.exists());
        for (count, body) in [(3, "one"), (20, "many"), (1, "alone")] {
            let staged = dir.stage(&records(body, count))?;
            dir.write()?.commit(staged)?;
            let found = bodies(&dir)?;
            let new = found.iter().filter(|found| *found == body).count();
            assert_eq!(new, usize::try_from(count)?, "{found:?}");
        }
        // Ended before they were in.
        let staged = dir.stage(&records("lost", 3))?;
        std::mem::forget(staged);
        assert!(!bodies(&dir)?.contains(&"lost".to_owned()));
        Ok(())
    }

    #[test]
    fn whoever_comes_next_finishes_what_is_in() -> TestResult {
        let temp = tempfile::tempdir()?;
        let dir = dir(&temp);
        let old = dir.stage(&records("old", 3))?;
        dir.write()?.commit(old)?;
        for moved in 0..=3 {
            let body = format!("new {moved}");
            let staged = dir.stage(&records(&body, 3))?;
            let commit = dir.path.join(COMMIT);
            fs::rename(&staged.path, &commit)?;
            for nth in 0..moved {
                let name = id(nth).to_string();
                fs::rename(commit.join(&name), dir.path.join(&name))?;
            }
            // Its process ends here.
            assert_eq!(bodies(&dir)?, [body.as_str(); 3]);
            assert!(!commit.exists());
        }
        Ok(())
    }

    #[test]
    fn only_what_belongs_to_nobody_is_swept_away() -> TestResult {
        let temp = tempfile::tempdir()?;
        let dir = dir(&temp);
        let alive = dir.stage(&records("alive", 2))?;
        let dead = dir.path.join(ASIDE).join("dead");
        fs::create_dir(&dead)?;
        fs::write(dead.join(id(7).to_string()), "half")?;
        dir.write()?.sweep()?;
        assert!(!dead.exists());
        dir.write()?.commit(alive)?;
        assert_eq!(bodies(&dir)?, ["alive"; 2]);
        assert_eq!(fs::read_dir(dir.path.join(ASIDE))?.count(), 0, "nothing is left aside");
        Ok(())
    }

    #[test]
    fn damaged_file_is_named() -> TestResult {
        let temp = tempfile::tempdir()?;
        let dir = dir(&temp);
        let staged = dir.stage(&records("sound", 1))?;
        dir.write()?.commit(staged)?;
        let path = dir.path.join(id(0).to_string());
        let mut bytes = fs::read(&path)?;
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes)?;
        let error = bodies(&dir).expect_err("it is damaged");
        let expected = format!("{} is damaged: the checksum of its body is wrong", path.display());
        assert_eq!(error.to_string(), expected);
        Ok(())
    }
}
