//! A file system of our own that the power can be cut from: ext4 in a file, loop-mounted.
//!
//! A cut is the file system's shutdown ioctl without a log flush: from that moment nothing that was
//! not synced reaches the file behind the mount, and every later write or sync fails. What a mount
//! finds afterwards is what a machine would find on its disk after a power cut (the kernel's own
//! tests of crash durability, xfstests, cut the power in the same way).
//!
//! Invariants:
//! - never on tmpfs, whose files are not written anywhere;
//! - mounts and loop devices go with the value, also when a test fails; what a killed test process
//!   left behind goes when the next file system is made.
//!
//! It needs root and a kernel that lets it mount; [`unavailable`] says what is missing. It leaves
//! out torn sectors and disks that lie about their caches.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// How long a mount point may stay busy after the processes on it were killed.
const UNMOUNT_WITHIN: Duration = Duration::from_secs(10);
/// Enough for a trial run: ext4 with a journal of 16 MiB.
const TRIAL_BYTES: u64 = 64 << 20;
/// `f_type` of tmpfs, statfs(2).
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Directories made by this module: `loopfs-<pid>-<count>`.
const PREFIX: &str = "loopfs-";

/// Shuts the file systems at the given mount points down: `_IOR('X', 125, u32)` with
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`, linux/fs/ext4/ext4.h. All in one process, so that they go within
/// microseconds of each other. The tree has no `unsafe` code for an ioctl.
const SHUTDOWN_PYTHON: &str = "\
import fcntl, os, struct, sys
fds = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
for fd in fds: fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))";
/// The same for machines with perl alone.
const SHUTDOWN_PERL: &str = "\
my @fs = map { open(my $f, '<', $_) or die \"open $_: $!\"; $f } @ARGV;
foreach my $f (@fs) { my $flag = pack('I', 2); ioctl($f, 0x8004587D, $flag) or die \"ioctl: $!\" }";

/// An ext4 file system in a file, mounted as long as this value lives.
#[derive(Debug)]
pub struct LoopFs {
    dir: PathBuf,
    is_mounted: bool,
}

/// Why file systems cannot be made, mounted and cut below `base`; none if they can. Tries it.
pub fn unavailable(base: &Path) -> Option<String> {
    trial(base).err().map(|error| format!("{error:#}"))
}

/// Cuts the power of all these file systems at once.
///
/// # Errors
/// If the ioctl cannot be called, or the kernel refuses it.
pub fn cut(file_systems: &[LoopFs]) -> Result<()> {
    let mounts = file_systems.iter().map(LoopFs::path);
    if run("python3", ["-c", ""]).is_ok() {
        let args = ["-c", SHUTDOWN_PYTHON].map(PathBuf::from).into_iter().chain(mounts);
        run("python3", args).context("shut the file systems down")?;
    } else {
        let args = ["-e", SHUTDOWN_PERL].map(PathBuf::from).into_iter().chain(mounts);
        run("perl", args).context("shut the file systems down (python3 would do, too)")?;
    }
    Ok(())
}

impl LoopFs {
    /// Makes and mounts a file system of that size in a new directory below `base`.
    ///
    /// # Errors
    /// If a tool is missing or the system refuses.
    pub fn create(base: &Path, bytes: u64) -> Result<LoopFs> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep(base);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("{PREFIX}{}-{count}", std::process::id()));
        let mut made = LoopFs { dir, is_mounted: false };
        fs::create_dir_all(made.path())
            .with_context(|| format!("create {}", made.dir.display()))?;
        let kind = u64::try_from(rustix::fs::statfs(&made.dir)?.f_type)?;
        ensure!(kind != TMPFS_MAGIC, "{} is on tmpfs, which has no disk", base.display());
        fs::File::create(made.image())?.set_len(bytes)?;
        // Nothing is left to a kernel thread that would write to the image later; with a small journal
        // and no more inodes than large values take, that takes no time.
        let args = ["-q", "-F", "-N", "32768", "-J", "size=16", "-m", "0"];
        let args = args.into_iter().chain(["-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        run("mkfs.ext4", args.map(PathBuf::from).chain([made.image()]))?;
        made.mount()?;
        Ok(made)
    }

    /// The mount point.
    pub fn path(&self) -> PathBuf {
        self.dir.join("mount")
    }

    /// Takes the file system away and brings it back: what the next boot finds. No process may
    /// have a file open on it.
    ///
    /// # Errors
    /// If the mount point stays busy, or the image cannot be mounted again.
    pub fn reboot(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// From now on nothing on it can be changed.
    ///
    /// # Errors
    /// If a file on it is open for writing.
    pub fn read_only(&mut self) -> Result<()> {
        let args = ["-o", "remount,ro"].map(PathBuf::from);
        run("mount", args.into_iter().chain([self.path()])).map(drop)
    }

    fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    fn mount(&mut self) -> Result<()> {
        let args = ["-t", "ext4", "-o", "loop"].map(PathBuf::from);
        run("mount", args.into_iter().chain([self.image(), self.path()]))?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        let deadline = Instant::now() + UNMOUNT_WITHIN;
        while self.is_mounted {
            match run("umount", [self.path()]) {
                Ok(_) => self.is_mounted = false,
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(20)),
            }
        }
        Ok(())
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("{error:#}; detaching it instead");
            remove(&self.dir);
        } else {
            // An empty directory that stays does no harm.
            let _stays = fs::remove_dir_all(&self.dir);
        }
    }
}

fn trial(base: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "mounting a file system needs root");
    let mut file_systems = [LoopFs::create(base, TRIAL_BYTES)?];
    let mount = file_systems[0].path();
    ensure!(
        fs::metadata(&mount)?.dev() != fs::metadata(base)?.dev(),
        "nothing is mounted at {} after mount(8)",
        mount.display()
    );
    let (synced, unsynced) = (mount.join("synced"), mount.join("unsynced"));
    fs::write(&synced, "kept")?;
    fs::File::open(&synced)?.sync_all()?;
    fs::File::open(&mount)?.sync_all()?;
    fs::write(&unsynced, "lost")?;
    cut(&file_systems)?;
    file_systems[0].reboot()?;
    ensure!(fs::read(&synced)? == b"kept", "a synced file did not survive a cut");
    ensure!(!unsynced.exists(), "an unsynced file survived a cut: the power was not cut");
    Ok(())
}

/// Removes what processes that are gone have left below `base`.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        if owner.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
}

/// Detaches whatever is mounted there, even if it is in use, and deletes the rest.
fn remove(dir: &Path) {
    let _was_not_mounted = run("umount", [Path::new("-l"), &dir.join("mount")]);
    let _stays = fs::remove_dir_all(dir);
}

fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<Output> {
    // mkfs and losetup are not on every user's path.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program)
        .args(args)
        .env("PATH", path)
        .output()
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}
