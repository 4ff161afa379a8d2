//! The ids that a directory gives out.
//!
//! The file `next-id` holds the first id that was not given out; blocks of them are taken under the
//! directory's lock, and the file is synced before any of a block is used. Where an older copy of the
//! directory was restored, or the file was lost, the clock is the second line of defence: ids never begin
//! below a line that rises with wall-clock time, much faster than they are given out, so that those which
//! were given out since the copy was made lie below it.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use super::dir::Locked;
use crate::persistence::error::Error;
use crate::persistence::id::Id;

const FILE: &str = "next-id";
const MAGIC: &str = "holdfast-ids 1";
/// How fast the line rises under which no block begins: faster than a directory can give ids out, and slow
/// enough that the ids last until the year 2112.
const IDS_PER_SECOND: u64 = 2_000_000;

/// Takes so many ids, never given out before and never again.
pub(super) fn lease(dir: &Locked<'_>, count: u64) -> Result<Range<u64>, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    lease_at(dir, count, now)
}

fn lease_at(dir: &Locked<'_>, count: u64, unix_seconds: u64) -> Result<Range<u64>, Error> {
    let line = unix_seconds.saturating_mul(IDS_PER_SECOND).saturating_add(Id::LOWEST.get());
    let first = next(dir)?.max(line);
    let end = first.saturating_add(count);
    if end > Id::HIGHEST.get() + 1 {
        let reason = format!("{count} ids from {first} on would end above {}", Id::HIGHEST);
        return Err(damaged(dir, reason));
    }
    let body = format!("{MAGIC}\nnext {end}\n");
    let checksum = crc32fast::hash(body.as_bytes());
    dir.replace_file(FILE, format!("{body}crc32 {checksum:08x}\n").as_bytes())?;
    Ok(first..end)
}

/// The first id that was certainly not given out.
pub(super) fn next(dir: &Locked<'_>) -> Result<u64, Error> {
    match dir.file(FILE)? {
        Some(bytes) => parse(&bytes).ok_or_else(|| {
            let reason = "it does not say which id is next; without it ids go on above those of all \
                          objects that are there, and above all that the clock allows for";
            damaged(dir, reason.to_owned())
        }),
        None => Ok(dir.ids()?.last().map_or(Id::LOWEST.get(), |last| last.get() + 1)),
    }
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (body, checksum) = text.strip_suffix('\n')?.split_once("crc32 ")?;
    let is_sound = format!("{:08x}", crc32fast::hash(body.as_bytes())) == checksum;
    let next = body.strip_prefix(MAGIC)?.strip_prefix("\nnext ")?.strip_suffix('\n')?;
    next.parse().ok().filter(|_| is_sound)
}

fn damaged(dir: &Locked<'_>, reason: String) -> Error {
    Error::Damaged { what: dir.path_of(FILE).display().to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::super::dir::Dir;
    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn dir(temp: &tempfile::TempDir) -> Dir {
        Dir { path: temp.path().to_owned() }
    }

    // P1
    #[test]
    fn blocks_follow_each_other_and_the_clock() -> TestResult {
        let temp = tempfile::tempdir()?;
        let dir = dir(&temp);
        let locked = dir.write()?;
        let lowest = Id::LOWEST.get();
        assert_eq!(lease_at(&locked, 64, 0)?, lowest..lowest + 64);
        assert_eq!(lease_at(&locked, 1, 0)?, lowest + 64..lowest + 65);
        let later = lowest + 10 * IDS_PER_SECOND;
        assert_eq!(lease_at(&locked, 5, 10)?, later..later + 5);
        // A clock that is put back gives nothing out twice.
        assert_eq!(lease_at(&locked, 5, 3)?, later + 5..later + 10);
        assert_eq!(next(&locked)?, later + 10);
        Ok(())
    }

    // P1: an older copy of the directory was put in its place.
    #[test]
    fn restored_directory_gives_no_id_out_again() -> TestResult {
        let temp = tempfile::tempdir()?;
        let dir = dir(&temp);
        let locked = dir.write()?;
        lease_at(&locked, 64, 1_000)?;
        let copy = std::fs::read(temp.path().join(FILE))?;
        let since = lease_at(&locked, 1_000_000, 1_001)?;
        std::fs::write(temp.path().join(FILE), copy)?;
        assert!(lease_at(&locked, 1, 1_002)?.start >= since.end);
        Ok(())
    }

    // P1
    #[test]
    fn damage_is_told_and_loss_is_made_good() -> TestResult {
        let temp = tempfile::tempdir()?;
        let dir = dir(&temp);
        let locked = dir.write()?;
        let lowest = Id::LOWEST.get();
        lease_at(&locked, 64, 0)?;
        let path = temp.path().join(FILE);
        let sound = std::fs::read(&path)?;
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes)?;
            let refused = lease_at(&locked, 1, 0);
            assert!(matches!(refused, Err(Error::Damaged { .. })), "byte {at}: {refused:?}");
        }
        std::fs::remove_file(&path)?;
        std::fs::write(temp.path().join((lowest + 99).to_string()), "an object")?;
        assert_eq!(lease_at(&locked, 1, 0)?.start, lowest + 100);
        Ok(())
    }

    #[test]
    fn ids_end() -> TestResult {
        let temp = tempfile::tempdir()?;
        let dir = dir(&temp);
        let locked = dir.write()?;
        assert!(matches!(lease_at(&locked, 1, u64::MAX), Err(Error::Damaged { .. })));
        Ok(())
    }
}
