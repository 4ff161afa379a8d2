//! Small checked text files: IDENTITY and CURRENT.
//!
//! ```text
//! holdfast identity 1
//! node 3
//! ...
//! crc 8d0a91c4
//! ```
//!
//! The first line is magic, name and version, then `key value` lines, then the CRC-32 of all
//! before it.  Text, so that an operator can read it.
//!
//! Invariant: a file is replaced as a whole (written aside, synced, renamed, directory synced), so
//! that a crash leaves the old or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const MAGIC: &str = "holdfast";

/// What such a file says: its version and its lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) fields: BTreeMap<String, String>,
}

/// Why a file is not a record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its checksum is {found}, its content has {computed:08x}")]
    Checksum { found: String, computed: u32 },
    #[error("it does not begin with `{MAGIC} {0}`")]
    Magic(&'static str),
    #[error("line `{0}` is not a field and a value")]
    Line(String),
    #[error("field `{0}` is missing or not what it should be")]
    Field(&'static str),
}

impl Record {
    pub(super) fn new(version: u32, fields: &[(&str, String)]) -> Self {
        let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        Self { version, fields }
    }

    /// Reads the record `name` from `path`; `None` if there is no file.
    pub(super) fn read(path: &Path, name: &'static str) -> Result<Option<Self>, RecordError> {
        match fs::read(path) {
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes), name).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces `path` durably.
    pub(super) fn write(&self, path: &Path, name: &'static str) -> io::Result<()> {
        let aside = path.with_extension("new");
        let mut file = File::create(&aside)?;
        file.write_all(self.format(name).as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        sync_parent(path)
    }

    pub(super) fn text(&self, field: &'static str) -> Result<&str, RecordError> {
        self.fields.get(field).map(String::as_str).ok_or(RecordError::Field(field))
    }

    pub(super) fn number(&self, field: &'static str) -> Result<u64, RecordError> {
        self.text(field)?.parse().map_err(|_| RecordError::Field(field))
    }

    fn format(&self, name: &str) -> String {
        let mut text = format!("{MAGIC} {name} {}\n", self.version);
        for (key, value) in &self.fields {
            text.push_str(&format!("{key} {value}\n"));
        }
        let crc = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("crc {crc:08x}\n"));
        text
    }

    fn parse(text: &str, name: &'static str) -> Result<Self, RecordError> {
        let magic = || RecordError::Magic(name);
        let rest = text.strip_prefix(MAGIC).ok_or_else(magic)?.trim_start();
        let rest = rest.strip_prefix(name).ok_or_else(magic)?;
        let version = rest.lines().next().and_then(|v| v.trim().parse().ok()).ok_or_else(magic)?;
        let (body, crc) = text.rsplit_once("crc ").ok_or(RecordError::Field("crc"))?;
        let computed = crc32fast::hash(body.as_bytes());
        if u32::from_str_radix(crc.trim_end(), 16) != Ok(computed) {
            return Err(RecordError::Checksum { found: crc.trim_end().to_owned(), computed });
        }
        let mut fields = BTreeMap::new();
        for line in body.lines().skip(1) {
            let (key, value) =
                line.split_once(' ').ok_or_else(|| RecordError::Line(line.to_owned()))?;
            fields.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self { version, fields })
    }
}

/// Syncs a directory, so that the names in it survive a power cut.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Syncs the directory that holds `path`.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new(1, &[("node", "3".to_owned()), ("cluster", "pending".to_owned())])
    }

    #[test]
    fn a_record_reads_back_and_its_text_is_stable() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("IDENTITY");
        assert_eq!(Record::read(&path, "identity").expect("read"), None);
        record().write(&path, "identity").expect("write");
        assert_eq!(Record::read(&path, "identity").expect("read"), Some(record()));
        let text = fs::read_to_string(&path).expect("text");
        assert_eq!(text, "holdfast identity 1\ncluster pending\nnode 3\ncrc 2c246cb2\n");
        assert!(!path.with_extension("new").exists());
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let text = record().format("identity");
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).expect("ascii");
            let same_value = changed.trim_end() == text.trim_end();
            assert!(Record::parse(&changed, "identity").is_err() || same_value, "{changed:?}");
        }
        assert!(Record::parse(&text[..text.len() / 2], "identity").is_err());
        assert!(Record::parse("", "identity").is_err());
        assert!(Record::parse(&text, "current").is_err());
    }
}
