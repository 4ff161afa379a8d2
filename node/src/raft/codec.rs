//! How raft's own values are written to disk and to the wire.
//!
//! A log record is `version, kind, term` and then the payload as it came; the index is the key it
//! is stored under. Everything else is bincode behind a version byte. Records are written by the
//! newest version and every older one stays readable.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::types::{Batch, Entry, LogId, Membership};

/// The version byte of everything written here.
const VERSION: u8 = 1;
/// What precedes the payload of a log record: version, kind, term.
const RECORD_HEADER_BYTES: usize = 10;
/// No value here comes near it; a corrupt length must not allocate the memory of the machine.
const VALUE_BYTES_MAX: usize = 16 << 20;

const BLANK: u8 = 0;
const BATCH: u8 = 1;
const MEMBERSHIP: u8 = 2;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<VALUE_BYTES_MAX>()
}

fn corrupt(what: &str, cause: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("decode {what}: {cause}"))
}

/// Encodes a small value: a vote, a log id, a membership.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, config())
        .expect("votes, log ids and memberships are far below the limit");
    Bytes::from(bytes)
}

/// The inverse of [`encode`]; `what` names the value in the error.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> io::Result<T> {
    let (version, body) = bytes.split_first().ok_or_else(|| corrupt(what, "it is empty"))?;
    if *version != VERSION {
        return Err(corrupt(what, format!("version {version} is not known here")));
    }
    let (value, read) =
        bincode::serde::decode_from_slice(body, config()).map_err(|e| corrupt(what, e))?;
    if read != body.len() {
        return Err(corrupt(what, format!("{} bytes too many", body.len() - read)));
    }
    Ok(value)
}

/// Encodes a log entry as it is stored.
pub(crate) fn encode_record(entry: &Entry) -> Bytes {
    let membership;
    let (kind, payload): (u8, &[u8]) = match &entry.payload {
        EntryPayload::Blank => (BLANK, &[]),
        EntryPayload::Normal(batch) => (BATCH, &batch.0),
        EntryPayload::Membership(value) => {
            membership = encode(value);
            (MEMBERSHIP, &membership)
        }
    };
    let mut record = BytesMut::with_capacity(RECORD_HEADER_BYTES + payload.len());
    record.put_u8(VERSION);
    record.put_u8(kind);
    record.put_u64(entry.log_id.leader_id.term);
    record.put_slice(payload);
    record.freeze()
}

/// The inverse of [`encode_record`]; the payload shares the record's memory.
pub(crate) fn decode_record(index: u64, record: &Bytes) -> io::Result<Entry> {
    let log_id = record_log_id(index, record)?;
    let payload = record.slice(RECORD_HEADER_BYTES..);
    let payload = match record[1] {
        BLANK => EntryPayload::Blank,
        BATCH => EntryPayload::Normal(Batch(payload)),
        MEMBERSHIP => EntryPayload::Membership(decode::<Membership>("membership entry", &payload)?),
        kind => return Err(corrupt("log record", format!("kind {kind} at index {index}"))),
    };
    Ok(Entry { log_id, payload })
}

/// The log id of a record, without its payload.
pub(crate) fn record_log_id(index: u64, record: &[u8]) -> io::Result<LogId> {
    if record.len() < RECORD_HEADER_BYTES {
        return Err(corrupt("log record", format!("{} bytes at index {index}", record.len())));
    }
    if record[0] != VERSION {
        return Err(corrupt("log record", format!("version {} at index {index}", record[0])));
    }
    let term = u64::from_be_bytes(record[2..10].try_into().expect("eight bytes"));
    Ok(LogId::new_term_index(term, index))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::raft::types::Member;

    fn entry(payload: EntryPayload<Batch, u64, Member>) -> Entry {
        Entry { log_id: LogId::new_term_index(3, 7), payload }
    }

    #[test]
    fn records_round_trip_and_keep_their_bytes() {
        let batch = entry(EntryPayload::Normal(Batch(Bytes::from_static(b"abc"))));
        let record = encode_record(&batch);
        assert_eq!(&record[..], b"\x01\x01\x00\x00\x00\x00\x00\x00\x00\x03abc");
        assert_eq!(decode_record(7, &record).unwrap(), batch);

        let blank = entry(EntryPayload::Blank);
        assert_eq!(decode_record(7, &encode_record(&blank)).unwrap(), blank);

        let members = BTreeMap::from([(1, Member::default()), (2, Member::default())]);
        let membership = Membership::new(vec![BTreeSet::from([1, 2])], members).unwrap();
        let membership = entry(EntryPayload::Membership(membership));
        assert_eq!(decode_record(7, &encode_record(&membership)).unwrap(), membership);
    }

    #[test]
    fn damage_is_an_error_that_names_the_index() {
        for damaged in [&b""[..], b"\x01\x01\x00", b"\x02\x01\x00\x00\x00\x00\x00\x00\x00\x03abc"] {
            let error = decode_record(7, &Bytes::copy_from_slice(damaged)).unwrap_err();
            assert!(error.to_string().contains("index 7"), "{error}");
        }
        let error =
            decode_record(7, &Bytes::from_static(b"\x01\x09\0\0\0\0\0\0\0\x03")).unwrap_err();
        assert!(error.to_string().contains("kind 9"), "{error}");
    }
}
