//! The data directory: whose it is, who uses it, and which databases in it are valid.
//!
//! Invariants:
//! - One process at a time: LOCK is held by flock(2) as long as a clone of [`DataDir`] lives, so a
//!   killed process leaves no lock behind.
//! - A database directory counts only once CURRENT names it; what CURRENT does not name is the
//!   rest of something unfinished and is removed at the next open.
//! - A directory that Holdfast did not make is never cleaned up.
//! - A copy of a directory is noticed: IDENTITY records the [`Place`] of the directory itself, and
//!   two nodes with one identity could vote twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use rustix::fs::FlockOperation;

use super::record::{self, Record, RecordError};
use super::{Fault, OnFault, locked};

/// The newest format of IDENTITY and CURRENT, dated 2026-11.
const FORMAT: u32 = 1;
const IDENTITY: &str = "IDENTITY";
const CURRENT: &str = "CURRENT";
const LOCK: &str = "LOCK";
const LOG: &str = "log";
const STATE_PREFIX: &str = "state-";

/// Which node of which cluster a data directory belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The format it was read in; written as the newest one.
    pub format: u32,
    /// The cluster; `None` while the node has asked to join and has no answer yet.
    pub cluster_id: Option<[u8; 16]>,
    /// The node's id in that cluster.
    pub node_id: u64,
    /// Tells this directory from an earlier one of the same node id.
    pub incarnation: u64,
    /// The directory itself; filled in by [`DataDir::write_identity`].
    pub place: Place,
}

/// What tells one directory from every other, wherever it is moved on its file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The device that holds it.
    pub device: u64,
    /// Its inode. Once it is removed, the next directory may get the same.
    pub inode: u64,
    /// When it was made, in nanoseconds since 1970 by the wall clock of that time (statx(2), btime);
    /// 0 where the file system does not say.
    pub born_ns: u64,
}

impl Place {
    fn of(path: &Path) -> io::Result<Place> {
        let metadata = fs::metadata(path)?;
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or(0);
        Ok(Place { device: metadata.dev(), inode: metadata.ino(), born_ns })
    }

    fn is_same(&self, other: &Place) -> bool {
        let is_known = self.born_ns != 0 && other.born_ns != 0;
        (self.device, self.inode) == (other.device, other.inode)
            && (!is_known || self.born_ns == other.born_ns)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Place { device, inode, born_ns } = self;
        write!(f, "device {device}, inode {inode}, made at {born_ns} ns")
    }
}

/// Why a data directory cannot be used; each variant is a section of the runbook.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Another process holds the lock.
    #[error("data directory {} is in use by {}", path.display(), holder(*pid))]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// Who holds it, as far as it wrote that down.
        pid: Option<u32>,
    },
    /// The directory cannot be made, read or written.
    #[error("cannot use data directory {}: {action}: {source}", path.display())]
    Unwritable {
        /// The data directory.
        path: PathBuf,
        /// Verb and object.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The directory is not where its identity was written.
    #[error(
        "data directory {} is a copy: node {node_id} was set up on {written}, this is {found}",
        path.display()
    )]
    Copied {
        /// The data directory.
        path: PathBuf,
        /// The node whose directory it is a copy of.
        node_id: u64,
        /// The place in IDENTITY.
        written: Place,
        /// The directory.
        found: Place,
    },
    /// IDENTITY or CURRENT is damaged or missing.
    #[error("{} cannot be trusted: {cause}", file.display())]
    BadIdentity {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The directory was written by a newer release.
    #[error("{} has format {found}, this release reads up to {supported}", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this release knows.
        supported: u32,
    },
    /// The directory holds something of that name that Holdfast did not put there.
    #[error("{} is not a data directory, but holds `{name}`", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What a data directory would call its own.
        name: String,
    },
}

/// A locked data directory; clones share the lock, which ends with the last of them.
#[derive(Clone)]
pub struct DataDir(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// Open as long as the directory is ours.
    _lock: File,
    fault: Fault,
    identity: Mutex<Option<Identity>>,
    layout: Mutex<Layout>,
}

/// What CURRENT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether the log was made; if so, it must be there.
    pub(super) has_log: bool,
    /// The generation of the state in use; zero if none was made yet.
    pub(super) generation: u64,
}

impl DirError {
    /// The runbook section about this error; stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "data-dir-in-use",
            Self::Unwritable { .. } => "data-dir-unwritable",
            Self::Copied { .. } => "copied-directory",
            Self::BadIdentity { .. } => "bad-identity",
            Self::NewerFormat { .. } => "newer-format",
            Self::Foreign { .. } => "foreign-directory",
        }
    }

    /// Why that is an error, in a sentence for the operator.
    pub fn cause(&self) -> String {
        match self {
            Self::InUse { .. } => "one process at a time may use a data directory".to_owned(),
            Self::Unwritable { source, .. } => source.to_string(),
            Self::Copied { .. } => {
                "two nodes with one identity could both vote, and lose acknowledged writes"
                    .to_owned()
            }
            Self::BadIdentity { cause, .. } => cause.clone(),
            Self::NewerFormat { .. } => "a newer release has written it".to_owned(),
            Self::Foreign { .. } => "it would be overwritten".to_owned(),
        }
    }

    /// What the operator can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "stop that process, or give this node another --data-dir",
            Self::Unwritable { .. } => {
                "check the path, its owner, and free space; or give another --data-dir"
            }
            Self::Copied { .. } => {
                "if you moved it and the original will never run again, start once with --moved; \
                 otherwise use an empty --data-dir and --join"
            }
            Self::BadIdentity { .. } => {
                "restore the file from a backup of this very node, or remove the node from the \
                 cluster and join a new one with an empty --data-dir"
            }
            Self::NewerFormat { .. } => "start the release that wrote it, or a newer one",
            Self::Foreign { .. } => "give an empty directory, or one that a node has used",
        }
    }
}

impl DataDir {
    /// Makes the directory if there is none, locks it and reads what it says about itself.
    ///
    /// `on_fault` is called once if a store in it fails later.  Blocks for some syncs.
    pub fn open(path: impl AsRef<Path>, on_fault: OnFault) -> Result<Self, DirError> {
        let path = path.as_ref();
        create(path)?;
        let path = path.canonicalize().map_err(unwritable(path, "find the directory"))?;
        let lock = lock(&path)?;
        let identity = read_identity(&path.join(IDENTITY))?;
        let layout = match read_layout(&path.join(CURRENT))? {
            Some(layout) => layout,
            None => first_layout(&path, identity.is_some())?,
        };
        remove_leftovers(&path, layout).map_err(unwritable(&path, "remove leftovers"))?;
        Ok(Self(Arc::new(Inner {
            path,
            _lock: lock,
            fault: Fault::new(on_fault),
            identity: Mutex::new(identity),
            layout: Mutex::new(layout),
        })))
    }

    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The first failure of any store in this directory.
    pub fn fault(&self) -> &Fault {
        &self.0.fault
    }

    /// Whose directory it is; `None` if it is new.
    pub fn identity(&self) -> Option<Identity> {
        *locked(&self.0.identity)
    }

    /// Makes the directory that of `identity`, durably; format and place are filled in.
    pub fn write_identity(&self, identity: Identity) -> Result<(), DirError> {
        let place = self.place()?;
        let identity = Identity { format: FORMAT, place, ..identity };
        let cluster = identity.cluster_id.map_or_else(|| "pending".to_owned(), |id| hex(&id));
        let record = Record::new(
            FORMAT,
            &[
                ("cluster", cluster),
                ("node", identity.node_id.to_string()),
                ("incarnation", identity.incarnation.to_string()),
                ("device", place.device.to_string()),
                ("inode", place.inode.to_string()),
                ("born", place.born_ns.to_string()),
            ],
        );
        record
            .write(&self.0.path.join(IDENTITY), "identity")
            .map_err(unwritable(&self.0.path, "write IDENTITY"))?;
        *locked(&self.0.identity) = Some(identity);
        Ok(())
    }

    /// Checks that the directory is the one its identity was written in.
    ///
    /// With `moved`, the operator vouches for that, and the place is written anew.
    pub fn check_place(&self, moved: bool) -> Result<(), DirError> {
        let Some(identity) = self.identity() else { return Ok(()) };
        let (written, found) = (identity.place, self.place()?);
        if written.is_same(&found) {
            return Ok(());
        }
        if moved {
            return self.write_identity(identity);
        }
        let path = self.0.path.clone();
        Err(DirError::Copied { path, node_id: identity.node_id, written, found })
    }

    /// How many bytes the file system of this directory has left for an ordinary user.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.0.path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.0.path.join(LOG)
    }

    pub(super) fn state_path(&self, generation: u64) -> PathBuf {
        self.0.path.join(format!("{STATE_PREFIX}{generation}"))
    }

    pub(super) fn layout(&self) -> Layout {
        *locked(&self.0.layout)
    }

    /// Changes CURRENT durably; this is the moment at which a database begins to count.
    pub(super) fn set_layout(&self, change: impl FnOnce(&mut Layout)) -> io::Result<()> {
        let mut layout = locked(&self.0.layout);
        let mut next = *layout;
        change(&mut next);
        write_layout(&self.0.path, next)?;
        *layout = next;
        Ok(())
    }

    fn place(&self) -> Result<Place, DirError> {
        let path = &self.0.path;
        Place::of(path).map_err(unwritable(path, "look at the directory"))
    }
}

impl std::fmt::Debug for DataDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DataDir").field(&self.0.path).finish()
    }
}

/// Makes `path` and what is missing above it, and syncs each directory that got a new name.
fn create(path: &Path) -> Result<(), DirError> {
    if path.is_dir() {
        return Ok(());
    }
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(unwritable(path, "create the directory")(error));
            }
            Ok(()) | Err(_) => {}
        }
        record::sync_parent(path).map_err(unwritable(path, "sync the directory above"))?;
    }
    Ok(())
}

/// Takes the lock and writes our pid into it; also the check that the directory can be written.
fn lock(path: &Path) -> Result<File, DirError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    let mut file = options.open(path.join(LOCK)).map_err(unwritable(path, "open LOCK"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(DirError::InUse { path: path.to_owned(), pid });
        }
        Err(error) => return Err(unwritable(path, "lock LOCK")(error.into())),
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .and_then(|()| file.sync_all());
    written.map_err(unwritable(path, "write LOCK"))?;
    Ok(file)
}

fn read_identity(file: &Path) -> Result<Option<Identity>, DirError> {
    let Some(record) = read(file, "identity")? else { return Ok(None) };
    let parse = || -> Result<Identity, RecordError> {
        let cluster_id = match record.text("cluster")? {
            "pending" => None,
            id => Some(unhex(id).ok_or(RecordError::Field("cluster"))?),
        };
        Ok(Identity {
            format: record.version,
            cluster_id,
            node_id: record.number("node")?,
            incarnation: record.number("incarnation")?,
            place: Place {
                device: record.number("device")?,
                inode: record.number("inode")?,
                born_ns: record.number("born")?,
            },
        })
    };
    parse().map(Some).map_err(bad(file))
}

fn read_layout(file: &Path) -> Result<Option<Layout>, DirError> {
    let Some(record) = read(file, "current")? else { return Ok(None) };
    let parse = || -> Result<Layout, RecordError> {
        let has_log = match record.text("log")? {
            "yes" => true,
            "no" => false,
            _ => return Err(RecordError::Field("log")),
        };
        Ok(Layout { has_log, generation: record.number("state")? })
    };
    parse().map(Some).map_err(bad(file))
}

fn read(file: &Path, name: &'static str) -> Result<Option<Record>, DirError> {
    let record = Record::read(file, name).map_err(bad(file))?;
    match record {
        Some(record) if record.version > FORMAT => Err(DirError::NewerFormat {
            file: file.to_owned(),
            found: record.version,
            supported: FORMAT,
        }),
        record => Ok(record),
    }
}

fn write_layout(path: &Path, layout: Layout) -> io::Result<()> {
    let has_log = if layout.has_log { "yes" } else { "no" };
    let fields = [("log", has_log.to_owned()), ("state", layout.generation.to_string())];
    Record::new(FORMAT, &fields).write(&path.join(CURRENT), "current")
}

/// Turns an empty directory into a data directory.
fn first_layout(path: &Path, has_identity: bool) -> Result<Layout, DirError> {
    if has_identity {
        let file = path.join(CURRENT);
        return Err(DirError::BadIdentity { file, cause: "it is missing".to_owned() });
    }
    for name in names(path).map_err(unwritable(path, "list the directory"))? {
        if name == LOG || generation(&name).is_some() {
            return Err(DirError::Foreign { path: path.to_owned(), name });
        }
    }
    let layout = Layout { has_log: false, generation: 0 };
    write_layout(path, layout).map_err(unwritable(path, "write CURRENT"))?;
    Ok(layout)
}

/// Removes what a crash left behind: databases that CURRENT does not name, files not yet renamed.
fn remove_leftovers(path: &Path, layout: Layout) -> io::Result<()> {
    for name in names(path)? {
        let is_log = name == LOG && !layout.has_log;
        let is_state = generation(&name).is_some_and(|found| found != layout.generation);
        if is_log || is_state || name.starts_with(".sync-proof-") {
            tracing::info!(name, "removing what an interrupted step left behind");
            fs::remove_dir_all(path.join(name))?;
        } else if name == "IDENTITY.new" || name == "CURRENT.new" {
            fs::remove_file(path.join(name))?;
        }
    }
    record::sync_dir(path)
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The number in `state-<number>`, if `name` is exactly that.
fn generation(name: &str) -> Option<u64> {
    let generation = name.strip_prefix(STATE_PREFIX)?.parse().ok()?;
    (name == format!("{STATE_PREFIX}{generation}")).then_some(generation)
}

fn unwritable(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> DirError {
    let path = path.to_owned();
    move |source| DirError::Unwritable { path, action, source }
}

fn bad(file: &Path) -> impl FnOnce(RecordError) -> DirError {
    let file = file.to_owned();
    move |error| DirError::BadIdentity { file, cause: error.to_string() }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok()?;
    (text.len() == 32).then(|| number.to_be_bytes())
}
