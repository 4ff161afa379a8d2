//! Large values, each in a file of its own, beside the database that knows of them.
//!
//! The engine keeps in memory what is written to it: the last page of each of 256 parts of its cache and
//! some segments that wait for the disk. 64 MiB of large values made two databases take 40 MiB more. Of a
//! file nothing stays behind, and it is written once.
//!
//! Invariants:
//! - Where there is a file under its name, all of it is on disk: it is written aside and synced first.
//! - After [`Files::sync`] a power cut brings back no name that was removed, and loses none that was given.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Fault, StoreError, record, sync};

/// Where they are, in the directory of the database.
const NAME: &str = "large";
/// What is being written has a name that ends so.
const UNFINISHED: &str = ".new";

/// The files beside one database.
pub(super) struct Files {
    path: PathBuf,
    /// The directory, to sync the names in it.
    dir: File,
    fault: Fault,
    /// Whether a name has come or gone since the last sync.
    is_changed: AtomicBool,
}

impl Files {
    /// Opens the files beside the database in `path`, and removes what a crash left unfinished.
    pub(super) fn open(path: &Path, fault: Fault) -> Result<Self, StoreError> {
        let path = path.join(NAME);
        if !path.is_dir() {
            fs::create_dir(&path).map_err(StoreError::io("create directory", &path))?;
            record::sync_parent(&path)
                .map_err(StoreError::io("sync the directory above", &path))?;
        }
        let dir = File::open(&path).map_err(StoreError::io("open", &path))?;
        let files = Self { path, dir, fault, is_changed: AtomicBool::new(true) };
        let names = files.names().map_err(StoreError::io("read", &files.path))?;
        for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
            let path = files.path.join(name);
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
        // What `kill -9` has left may be in the page cache only.
        files.sync().map_err(StoreError::io("sync", &files.path))?;
        Ok(files)
    }

    /// Writes a file, unless it is there; its name is durable after [`Files::sync`]. Blocks for the disk.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path.join(name);
        if path.exists() {
            return Ok(());
        }
        let write = || {
            let aside = self.path.join(format!("{name}{UNFINISHED}"));
            let mut file = File::create(&aside)?;
            file.write_all(bytes)?;
            sync::data(&file)?;
            fs::rename(&aside, &path)
        };
        self.fault.check()?;
        write().map_err(|error| self.fail("write", name, &error))?;
        self.is_changed.store(true, Ordering::Release);
        Ok(())
    }

    /// Reads a file; none if it is not there.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.fail("read", name, &error)),
        }
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Ok(()) => {
                self.is_changed.store(true, Ordering::Release);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.fail("remove", name, &error)),
        }
    }

    /// Makes the names durable that have come and gone before this call. Blocks for the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        if self.is_changed.swap(false, Ordering::AcqRel) {
            sync::all(&self.dir).map_err(|error| self.fail("sync", "", &error))?;
        }
        Ok(())
    }

    /// The names of all files.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn fail(&self, action: &str, name: &str, error: &io::Error) -> io::Error {
        self.fault.fail(&format!("{action} {}", self.path.join(name).display()), error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn open(temp: &tempfile::TempDir) -> Files {
        let fault = Fault::new(Arc::new(|_| {}));
        Files::open(temp.path(), fault).expect("open")
    }

    #[test]
    fn a_file_comes_back_until_it_is_removed() {
        let temp = tempfile::tempdir().expect("a directory");
        let files = open(&temp);
        for _ in 0..2 {
            files.write("one", b"bytes").expect("write");
            files.sync().expect("sync");
        }
        assert_eq!(open(&temp).read("one").expect("read").as_deref(), Some(&b"bytes"[..]));
        for _ in 0..2 {
            files.remove("one").expect("remove");
            assert_eq!(files.read("one").expect("read"), None);
        }
    }

    #[test]
    fn what_a_crash_left_unfinished_is_no_file() {
        let temp = tempfile::tempdir().expect("a directory");
        let files = open(&temp);
        fs::write(files.path.join("one.new"), b"torn").expect("write");
        let files = open(&temp);
        assert_eq!(files.names().expect("names"), Vec::<String>::new());
        files.write("one", b"whole").expect("write");
        assert_eq!(files.read("one").expect("read").as_deref(), Some(&b"whole"[..]));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_a_fault() {
        let temp = tempfile::tempdir().expect("a directory");
        let files = open(&temp);
        fs::remove_dir(&files.path).expect("remove");
        let error = files.write("one", b"bytes").expect_err("no directory");
        assert!(error.to_string().starts_with("write "), "{error}");
        assert!(files.fault.text().is_some());
    }

    #[test]
    fn nothing_is_written_after_a_fault() {
        let temp = tempfile::tempdir().expect("a directory");
        let files = open(&temp);
        files.fault.raise("the disk is gone");
        files.write("one", b"bytes").expect_err("after a fault");
        assert_eq!(files.read("one").expect("read"), None);
    }
}
