//! The bytes of a file that holds an object.
//!
//! ```text
//! 0   8  magic "hfobject"
//! 8   4  version, 1
//! 12  4  length of the head
//! 16  8  the object's id
//! 24  8  length of the body
//! 32  4  CRC-32 of the body
//! 36  4  CRC-32 of all before this and of the head
//! 40     head: class, number of metadata entries, then name and value of each;
//!        a text is its length (4) and its bytes
//!        body
//! ```
//!
//! All numbers are big-endian. A head can be read and checked without its body, for listings.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::persistence::id::Id;
use crate::persistence::record::{BODY_BYTES_MAX, Record};

const MAGIC: &[u8; 8] = b"hfobject";
const VERSION: u32 = 1;
/// Bytes in front of the head.
const FRAME: usize = 40;
/// Longest head, in bytes: a class, and 64 metadata entries of 8 KiB in all, with their lengths.
const HEAD_BYTES_MAX: usize = 10 << 10;

/// What is known of an object without its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) class_name: String,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) body_bytes: u64,
    body_crc: u32,
}

/// Why a file could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    Damaged(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        let is_short = error.kind() == io::ErrorKind::UnexpectedEof;
        if is_short {
            ReadError::Damaged("it is cut short".to_owned())
        } else {
            ReadError::Io(error)
        }
    }
}

/// All but the body of a file.
pub(super) fn encode_head(id: Id, record: &Record) -> Vec<u8> {
    let Record { class_name, metadata, body } = record;
    let mut head = Vec::new();
    put_text(&mut head, class_name);
    head.extend(narrow(metadata.len()).to_be_bytes());
    for (name, value) in metadata {
        put_text(&mut head, name);
        put_text(&mut head, value);
    }
    let mut frame = Vec::with_capacity(FRAME + head.len());
    frame.extend(MAGIC);
    frame.extend(VERSION.to_be_bytes());
    frame.extend(narrow(head.len()).to_be_bytes());
    frame.extend(id.get().to_be_bytes());
    frame.extend(u64::from(narrow(body.len())).to_be_bytes());
    frame.extend(crc32fast::hash(body).to_be_bytes());
    frame.extend(checksum(&frame, &head).to_be_bytes());
    frame.append(&mut head);
    frame
}

/// Reads all but the body of the file that holds this object.
pub(super) fn read_head(file: &mut impl Read, id: Id) -> Result<Head, ReadError> {
    let mut frame = [0; FRAME];
    file.read_exact(&mut frame)?;
    let damaged = |reason: String| Err(ReadError::Damaged(reason));
    let (magic, rest) = frame.split_at(MAGIC.len());
    if magic != MAGIC {
        return damaged("it is no object of this kind of store".to_owned());
    }
    let word = |at: usize| rest[at..at + 4].iter().fold(0, |high, b| high << 8 | u64::from(*b));
    let [version, head_bytes, body_crc, crc] = [0, 4, 24, 28].map(word);
    if version != u64::from(VERSION) {
        return damaged(format!("it has format version {version}, and this program reads 1"));
    }
    let whose = word(8) << 32 | word(12);
    let body_bytes = word(16) << 32 | word(20);
    let head_bytes = usize::try_from(head_bytes).unwrap_or(usize::MAX);
    if head_bytes > HEAD_BYTES_MAX {
        return damaged(format!("its head has {head_bytes} bytes"));
    }
    let mut head = vec![0; head_bytes];
    file.read_exact(&mut head)?;
    if u64::from(checksum(&frame[..FRAME - 4], &head)) != crc {
        return damaged("the checksum of its head is wrong".to_owned());
    }
    if whose != id.get() {
        return damaged(format!("it holds the object {whose}"));
    }
    let Some((class_name, metadata)) = parse_head(&head) else {
        return damaged("its head makes no sense".to_owned());
    };
    let body_crc = u32::try_from(body_crc).expect("it has four bytes");
    Ok(Head { class_name, metadata, body_bytes, body_crc })
}

/// Reads the body, behind the head.
pub(super) fn read_body(file: &mut impl Read, head: Head) -> Result<Record, ReadError> {
    let damaged = |reason: String| Err(ReadError::Damaged(reason));
    let Head { class_name, metadata, body_bytes, body_crc } = head;
    let bytes = usize::try_from(body_bytes).unwrap_or(usize::MAX);
    if bytes > BODY_BYTES_MAX {
        return damaged(format!("its body has {body_bytes} bytes"));
    }
    let mut body = Vec::with_capacity(bytes);
    // One more, to see whether there is more.
    file.take(body_bytes + 1).read_to_end(&mut body)?;
    if body.len() != bytes {
        let more = if body.len() > bytes { "more" } else { "less" };
        return damaged(format!("there is {more} of it than the {bytes} bytes of its body"));
    }
    if crc32fast::hash(&body) != body_crc {
        return damaged("the checksum of its body is wrong".to_owned());
    }
    Ok(Record { class_name, metadata, body })
}

fn parse_head(mut head: &[u8]) -> Option<(String, BTreeMap<String, String>)> {
    let class_name = take_text(&mut head)?;
    let entries = take_number(&mut head)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let name = take_text(&mut head)?;
        metadata.insert(name, take_text(&mut head)?);
    }
    head.is_empty().then_some((class_name, metadata))
}

fn take_text(head: &mut &[u8]) -> Option<String> {
    let bytes = usize::try_from(take_number(head)?).ok()?;
    let (text, rest) = head.split_at_checked(bytes)?;
    *head = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn take_number(head: &mut &[u8]) -> Option<u32> {
    let (number, rest) = head.split_first_chunk()?;
    *head = rest;
    Some(u32::from_be_bytes(*number))
}

fn put_text(head: &mut Vec<u8>, text: &str) {
    head.extend(narrow(text.len()).to_be_bytes());
    head.extend(text.as_bytes());
}

fn checksum(frame: &[u8], head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(frame);
    hasher.update(head);
    hasher.finalize()
}

fn narrow(size: usize) -> u32 {
    u32::try_from(size).expect("an object keeps the limits of a record")
}

#[cfg(test)]
mod tests {
    //! What is written comes back, and no damage goes unnoticed.

    use super::*;

    fn record() -> Record {
        let metadata = BTreeMap::from([
            ("state".to_owned(), "NEW".to_owned()),
            ("ö".to_owned(), String::new()),
        ]);
        Record { class_name: "Task".to_owned(), metadata, body: b"body\0\xff".to_vec() }
    }

    fn read(bytes: &[u8], id: Id) -> Result<Record, ReadError> {
        let mut rest = bytes;
        let head = read_head(&mut rest, id)?;
        read_body(&mut rest, head)
    }

    fn file() -> Vec<u8> {
        let mut file = encode_head(Id::LOWEST, &record());
        file.extend(&record().body);
        file
    }

    #[test]
    fn object_comes_back() {
        assert_eq!(read(&file(), Id::LOWEST).unwrap(), record());
        let head = read_head(&mut file().as_slice(), Id::LOWEST).unwrap();
        assert_eq!((head.metadata, head.body_bytes), (record().metadata, 6));
    }

    #[test]
    fn damage_anywhere_is_seen() {
        let sound = file();
        for at in 0..sound.len() {
            for bit in 0..8 {
                let mut damaged = sound.clone();
                damaged[at] ^= 1 << bit;
                let found = read(&damaged, Id::LOWEST);
                assert!(matches!(found, Err(ReadError::Damaged(_))), "byte {at}: {found:?}");
            }
            let found = read(&sound[..at], Id::LOWEST);
            assert!(matches!(found, Err(ReadError::Damaged(_))), "cut at {at}: {found:?}");
        }
        let longer = [sound.as_slice(), b"x"].concat();
        assert!(matches!(read(&longer, Id::LOWEST), Err(ReadError::Damaged(_))));
        let other = read(&sound, Id::HIGHEST);
        let reason = "it holds the object 1000000000000000";
        assert!(matches!(&other, Err(ReadError::Damaged(said)) if said == reason), "{other:?}");
    }
}
