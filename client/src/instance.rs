//! The secret of one running installation, by which the cluster tells a restart from a rival.
//!
//! A master that restarts gets its name's lease at once, because it shows the secret of the lease
//! that still runs; another installation with the same name has to wait. So two living programs
//! must never hold the same secret, also not after somebody copied a directory or started a second
//! program in it.
//!
//! The secret file records where it was made: machine id, device and inode. Its user holds an
//! exclusive lock (`flock(2)`) on it for life. A file that is locked by another, or that finds
//! itself somewhere else than it was made, gives a new secret.
//!
//! The file is text, for people who wonder what it is: magic and version, five fields, and a
//! checksum over what comes before it. It is never changed in place: a new one is written aside,
//! locked, synced and renamed over the old one.
//!
//! It does not notice two machines that share machine id, device number and inode number, as a
//! virtual machine and its running clone do: give a clone its own `/etc/machine-id`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

/// Length of a secret, in bytes.
const SECRET_BYTES: usize = 32;
/// Longest file that is read, in bytes; a sound one has about 250.
const FILE_BYTES_MAX: u64 = 4096;
/// How often a file that is replaced under our hands is looked at again.
const TRIES_MAX: u32 = 16;
const MAGIC: &str = "holdfast-instance 1";

/// The secret of one running installation. Clones share it, and the lock on its file, which is held
/// until the last of them is gone.
#[derive(Clone)]
pub struct Instance {
    secret: [u8; SECRET_BYTES],
    origin: Origin,
    /// Keeps the lock.
    _file: Option<Arc<File>>,
}

/// Where an instance's secret comes from: whether a lease of an earlier run can be taken over at
/// once, or has to run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Random, and kept nowhere.
    Random,
    /// Given by the program.
    Given,
    /// From the file: the same as in the run before.
    Kept,
    /// New, because there was no file.
    Created,
    /// New, because the file was made elsewhere: it was copied, restored or moved to other storage.
    Copied,
    /// New, because the file was damaged.
    Damaged,
    /// Random, and kept nowhere, because another living program holds the file, or because the file
    /// system cannot lock files.
    Unlocked,
}

/// Why a secret file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The file system refused something.
    #[error("{act} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// Others kept replacing the file.
    #[error("{} is being replaced over and over by other programs", path.display())]
    Unsteady {
        /// The file.
        path: PathBuf,
    },
}

impl Instance {
    /// A secret of this moment, kept nowhere: after a restart the old lease has to run out.
    #[must_use]
    pub fn random() -> Instance {
        Instance { secret: rand::random(), origin: Origin::Random, _file: None }
    }

    /// A secret that the program keeps by itself. It must make sure that no two living programs use
    /// the same one.
    #[must_use]
    pub fn from_bytes(secret: [u8; SECRET_BYTES]) -> Instance {
        Instance { secret, origin: Origin::Given, _file: None }
    }

    /// The secret in this file, which is made if need be (its directory is not). See
    /// [`Instance::origin`] for what was found. Blocks on the file system for a moment, and never
    /// waits for another program's lock.
    ///
    /// # Errors
    /// If the file cannot be read or replaced.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Instance, InstanceError> {
        Instance::from_file_on(path.as_ref(), &machine_id())
    }

    /// Where the secret comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }

    fn from_file_on(path: &Path, machine: &str) -> Result<Instance, InstanceError> {
        for _ in 0..TRIES_MAX {
            let file = open(path)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Ok(Instance { origin: Origin::Unlocked, ..Instance::random() });
            }
            let place = Place::of(&file, machine).map_err(|e| failed("look at", path, e))?;
            // Whoever had the lock before may have put another file in this one's place.
            if !place.is_at(path) {
                continue;
            }
            let origin = match read(&file).map_err(|e| failed("read", path, e))? {
                Found::Nothing => Origin::Created,
                Found::Damaged => Origin::Damaged,
                Found::Secret(found, _) if found != place => Origin::Copied,
                Found::Secret(_, secret) => {
                    let file = Some(Arc::new(file));
                    return Ok(Instance { secret, origin: Origin::Kept, _file: file });
                }
            };
            // The old file stays locked until the new one has replaced it.
            let secret = rand::random();
            let replacement = replace(path, machine, &secret)?;
            drop(file);
            return Ok(Instance { secret, origin, _file: Some(Arc::new(replacement)) });
        }
        Err(InstanceError::Unsteady { path: path.to_owned() })
    }
}

impl fmt::Debug for Instance {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Where a file is; differs from any copy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    machine: String,
    device: u64,
    inode: u64,
}

impl Place {
    fn of(file: &File, machine: &str) -> io::Result<Place> {
        let metadata = file.metadata()?;
        Ok(Place { machine: machine.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path)
            .is_ok_and(|present| present.dev() == self.device && present.ino() == self.inode)
    }
}

enum Found {
    Nothing,
    Damaged,
    Secret(Place, [u8; SECRET_BYTES]),
}

fn read(file: &File) -> io::Result<Found> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(Found::Nothing);
    }
    Ok(std::str::from_utf8(&bytes).ok().and_then(parse).unwrap_or(Found::Damaged))
}

fn format(place: &Place, secret: &[u8; SECRET_BYTES]) -> String {
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let Place { machine, device, inode } = place;
    let body =
        format!("{MAGIC}\nmachine {machine}\ndevice {device}\ninode {inode}\nsecret {secret}\n");
    let checksum = crc32fast::hash(body.as_bytes());
    format!("{body}crc32 {checksum:08x}\n")
}

/// None if the text is not exactly what [`format`] makes.
fn parse(text: &str) -> Option<Found> {
    let mut lines = text.lines();
    if lines.next()? != MAGIC {
        return None;
    }
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let place = Place {
        machine: field("machine")?.to_owned(),
        device: field("device")?.parse().ok()?,
        inode: field("inode")?.parse().ok()?,
    };
    let digits = field("secret")?;
    if digits.len() != 2 * SECRET_BYTES || !digits.is_ascii() {
        return None;
    }
    let mut secret = [0; SECRET_BYTES];
    for (i, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()?;
    }
    (format(&place, &secret) == text).then_some(Found::Secret(place, secret))
}

fn open(path: &Path) -> Result<File, InstanceError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| failed("open", path, e))
}

/// Puts a new file at `path` and returns it, locked.
fn replace(path: &Path, machine: &str, secret: &[u8; 32]) -> Result<File, InstanceError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".new-{:016x}", rand::random::<u64>()));
    let aside = PathBuf::from(aside);
    let written = write_aside(&aside, machine, secret).and_then(|file| {
        std::fs::rename(&aside, path)?;
        sync_directory(path)?;
        Ok(file)
    });
    written.map_err(|e| {
        // What is left behind does no harm, and the first error is the one to tell.
        let _ = std::fs::remove_file(&aside);
        failed("write", path, e)
    })
}

fn write_aside(aside: &Path, machine: &str, secret: &[u8; 32]) -> io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(aside)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let place = Place::of(&file, machine)?;
    file.write_all(format(&place, secret).as_bytes())?;
    file.sync_all()?;
    Ok(file)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Identifies this machine. Without a machine id (see `machine-id(5)`) this boot has to do, and
/// without that this very moment: a secret that cannot be placed is never used again.
fn machine_id() -> String {
    ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|id| id.trim().to_owned())
        .find(|id| !id.is_empty())
        .unwrap_or_else(|| format!("unknown-{:016x}", rand::random::<u64>()))
}

fn failed(act: &'static str, path: &Path, source: io::Error) -> InstanceError {
    InstanceError::Io { act, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    //! Two living programs never hold the same secret.

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn secret(instance: &Instance) -> [u8; SECRET_BYTES] {
        instance.secret
    }

    // M3
    #[test]
    fn restart_keeps_the_secret() -> TestResult {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("instance");
        let first = Instance::from_file(&path)?;
        assert_eq!(first.origin(), Origin::Created);
        let first_secret = secret(&first);
        drop(first);
        let second = Instance::from_file(&path)?;
        assert_eq!(second.origin(), Origin::Kept);
        assert_eq!(secret(&second), first_secret);
        assert_eq!(std::fs::metadata(&path)?.mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 1, "nothing is left aside");
        Ok(())
    }

    // M3
    #[test]
    fn second_holder_gets_another_secret() -> TestResult {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("instance");
        let first = Instance::from_file(&path)?;
        let clone = first.clone();
        let second = Instance::from_file(&path)?;
        assert_eq!(second.origin(), Origin::Unlocked);
        assert_ne!(secret(&first), secret(&second));
        // A clone holds the lock as well.
        drop(first);
        assert_eq!(Instance::from_file(&path)?.origin(), Origin::Unlocked);
        let kept = secret(&clone);
        drop(clone);
        assert_eq!(secret(&Instance::from_file(&path)?), kept);
        Ok(())
    }

    // M3
    #[test]
    fn copied_file_gets_another_secret() -> TestResult {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("instance");
        let copy = dir.path().join("copy");
        let first = Instance::from_file(&path)?;
        std::fs::copy(&path, &copy)?;
        let second = Instance::from_file(&copy)?;
        assert_eq!(second.origin(), Origin::Copied);
        assert_ne!(secret(&first), secret(&second));
        // From then on the copy is an installation of its own.
        let own = secret(&second);
        drop(second);
        let third = Instance::from_file(&copy)?;
        assert_eq!((third.origin(), secret(&third)), (Origin::Kept, own));
        Ok(())
    }

    // M3
    #[test]
    fn renamed_file_keeps_its_secret_and_a_copy_in_its_place_does_not() -> TestResult {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("instance");
        let moved = dir.path().join("moved");
        let first = secret(&Instance::from_file(&path)?);
        std::fs::rename(&path, &moved)?;
        assert_eq!(secret(&Instance::from_file(&moved)?), first);
        std::fs::copy(&moved, &path)?;
        let restored = Instance::from_file(&path)?;
        assert_eq!(restored.origin(), Origin::Copied);
        assert_ne!(secret(&restored), first);
        Ok(())
    }

    // M3
    #[test]
    fn other_machine_gets_another_secret() -> TestResult {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("instance");
        let here = secret(&Instance::from_file_on(&path, "here")?);
        let there = Instance::from_file_on(&path, "there")?;
        assert_eq!(there.origin(), Origin::Copied);
        assert_ne!(secret(&there), here);
        Ok(())
    }

    #[test]
    fn any_damaged_byte_gives_a_new_secret() -> TestResult {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("instance");
        drop(Instance::from_file(&path)?);
        let sound = std::fs::read(&path)?;
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            let text = String::from_utf8(damaged);
            let found = text.ok().as_deref().and_then(parse);
            assert!(found.is_none(), "damage at byte {at} went unnoticed");
        }
        std::fs::write(&path, &sound[..sound.len() - 1])?;
        assert_eq!(Instance::from_file(&path)?.origin(), Origin::Damaged);
        Ok(())
    }

    #[test]
    fn debug_text_hides_the_secret() -> TestResult {
        let text = format!("{:?}", Instance::from_bytes([0xab; 32]));
        assert!(!text.contains("171") && !text.contains("ab, ab"), "{text}");
        Ok(())
    }

    #[test]
    fn missing_directory_is_named() {
        let error = Instance::from_file("/nonexistent/instance").expect_err("no such directory");
        assert!(error.to_string().starts_with("open /nonexistent/instance: "), "{error}");
    }
}
