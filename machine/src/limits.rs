//! Every bound of the state machine, with its unit and the reason for its size.
//!
//! Apply checks them, so they are part of the replicated function: all voters must hold the same numbers,
//! and changing one takes a new feature [`level`](crate::level).

/// Longest name, class name or namespace, in bytes. Names are part of row keys, and keys stay small.
pub const NAME_BYTES_MAX: usize = 1024;
/// Longest state value, in bytes: what one log entry can carry without delaying the others behind it.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest value that a reply carries itself, in bytes; a longer one is read again by whoever answers.
/// With the longest name beside it, a reply stays below [`OUTCOME_BYTES_MAX`].
pub const REPLY_VALUE_BYTES_MAX: usize = 2048;

/// Shortest lease, in milliseconds: below it, one lost packet ends it.
pub const LEASE_TTL_MS_MIN: u64 = 500;
/// Longest lease, in milliseconds (24 h): a holder that died must not hold longer than a working day.
pub const LEASE_TTL_MS_MAX: u64 = 86_400_000;
/// Shortest connection grace, in milliseconds: a holder whose connection broke needs time for another one. The
/// longest is the lease's own time.
pub const LEASE_GRACE_MS_MIN: u64 = 500;
/// Most change sources that one master can own: they all go in one step when its lease ends.
pub const CLAIMS_PER_MASTER_MAX: u32 = 10_000;

/// Most leases that wait for one change source: joining a queue looks at all of it.
pub const WAITERS_PER_SOURCE_MAX: u64 = 1000;
/// Most change sources that one lease waits for: they all go in one step when it ends.
pub const PLACES_PER_LEASE_MAX: u64 = 4096;
/// Most change sources in one group: all of them change hands in one step.
pub const GROUP_MEMBERS_MAX: u64 = 256;
/// Freed change sources after which an entry grants no more to those who wait; the last one's group is granted
/// whole.
pub const GRANTS_PER_ENTRY_MAX: usize = 256;

/// How long the right to create a value lasts without a renewal, if its caller does not say, in
/// milliseconds: what the others wait for a creator that has died.
pub const CREATE_TTL_MS_DEFAULT: u64 = 2000;
/// Shortest such time, in milliseconds: below it, one lost packet ends the right.
pub const CREATE_TTL_MS_MIN: u64 = 500;
/// Longest such time, in milliseconds: a creator that takes longer renews its right.
pub const CREATE_TTL_MS_MAX: u64 = 60_000;
/// How long a caller waits for the right to create if it does not say, in milliseconds.
pub const CREATE_WAIT_MS_DEFAULT: u64 = 60_000;
/// Shortest such time, in milliseconds: below it, a caller is gone before it can be told.
pub const CREATE_WAIT_MS_MIN: u64 = 10;
/// Longest such time, in milliseconds (1 h): a caller that is gone must not stand in line for ever.
pub const CREATE_WAIT_MS_MAX: u64 = 3_600_000;
/// Most callers that stand in line to create one value: they all go in one step when it is written.
pub const CREATORS_PER_ITEM_MAX: u64 = 1000;
/// How many places in such lines one entry clears away because their time is over; one line more, if those
/// at its head are over together.
pub const CREATORS_EXPIRED_PER_ENTRY_MAX: u64 = 256;

/// First id of stored objects (10^15): all have 16 digits, so that the order of their texts is that of the numbers.
pub const OBJECT_ID_FIRST: u64 = 1_000_000_000_000_000;
/// Last id of stored objects: the last with 16 digits.
pub const OBJECT_ID_LAST: u64 = 9_999_999_999_999_999;
/// Most ids in one block: what a client that saves a thousand objects a second uses in a minute.
pub const OBJECT_IDS_PER_LEASE_MAX: u64 = 65_536;
/// Most objects in one save, one message of an upload or one removal: bounds what one apply can take.
pub const OBJECTS_PER_REQUEST_MAX: u64 = 1024;
/// Most bytes of bodies, classes and metadata in one save or one message of an upload (1 MiB), as in a batch.
pub const OBJECTS_BYTES_MAX: u64 = 1 << 20;
/// Most metadata of one object: each listing looks at all of it.
pub const METADATA_ENTRIES_MAX: u64 = 64;
/// Most bytes of names and values of one object's metadata (8 KiB), which is kept in memory.
pub const METADATA_BYTES_MAX: u64 = 8 << 10;
/// Longest chunk of a body, in bytes (512 KiB): a few of them on their way are little beside a node's memory,
/// and one entry with one does not delay the others behind it.
pub const CHUNK_BYTES_MAX: usize = 512 << 10;
/// Most chunks of one object: twice as many as the largest has, if they are full.
pub const CHUNKS_PER_OBJECT_MAX: u64 = 256;
/// Longest body of an object, in bytes (64 MiB).
pub const OBJECT_BYTES_MAX: u64 = 64 << 20;
/// Most uploads at a time, those included that are over and have left something behind: reading one object may
/// look at a row of each.
pub const UPLOADS_MAX: u64 = 1024;
/// How long an upload lives after something was staged if its client does not say, in milliseconds (10 min).
pub const UPLOAD_IDLE_MS_DEFAULT: u64 = 600_000;
/// Shortest such time, in milliseconds: a client that looks for another node must not lose its upload.
pub const UPLOAD_IDLE_MS_MIN: u64 = 10_000;
/// Longest such time, in milliseconds (24 h): what a client that is gone has staged must not stay for ever.
pub const UPLOAD_IDLE_MS_MAX: u64 = 86_400_000;
/// How many rows that uploads have left behind one entry settles or clears away, about: it ends with the object
/// that reaches it.
pub const LEFT_ROWS_PER_ENTRY_MAX: u64 = 2048;

/// How long a session lives without use if its client does not say, in milliseconds (10 min).
pub const SESSION_IDLE_MS_DEFAULT: u64 = 600_000;
/// Shortest idle time of a session, in milliseconds: a call's deadline is at most half of it.
pub const SESSION_IDLE_MS_MIN: u64 = 10_000;
/// Longest idle time of a session, in milliseconds (24 h): a client that is gone must not stay for ever.
pub const SESSION_IDLE_MS_MAX: u64 = 86_400_000;
/// Most sessions at a time, so that a client which opens one for each call cannot fill the memory.
pub const SESSIONS_MAX: u64 = 100_000;
/// Most outcomes kept for one session: how many writes a client can have undecided.
pub const UNDECIDED_MAX: u32 = 256;
/// Longest stored outcome, in bytes of its encoded [`Response`](crate::Response).
pub const OUTCOME_BYTES_MAX: usize = 4096;

/// Most rows in one import: bounds what one apply can take.
pub const IMPORT_ROWS_MAX: u64 = 1000;
/// Most bytes of names and values in one import (2 MiB): the largest value fits, with some beside it.
pub const IMPORT_BYTES_MAX: u64 = 2 << 20;
/// Highest id that an import may bring (2^53): those that are given out later are above it, and readers of
/// JSON still tell it from the next.
pub const IMPORT_ID_MAX: u64 = 1 << 53;

/// Most keys in one transaction: bounds what one apply can take. One that is compared and written counts once.
pub const TRANSACTION_KEYS_MAX: usize = 4096;
/// Most bytes of keys and values in one transaction (8 MiB), each key as often as it is named: with the
/// numbers beside them they fit into an entry.
pub const TRANSACTION_BYTES_MAX: usize = 8 << 20;
/// Most failed comparisons that a reply names: their numbers fit into an outcome.
pub const CONFLICTS_NAMED_MAX: usize = 256;

/// Most requests in one entry: bounds what one apply can take.
pub const REQUESTS_PER_ENTRY_MAX: usize = 256;
/// Size at which a batch of requests is closed, in bytes; only a single request may be larger.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Largest entry that is ever proposed, in bytes (9 MiB), below what peers decode.
pub const ENTRY_BYTES_MAX: usize = 9 << 20;
/// Largest entry or request that is decoded, in bytes (16 MiB).
pub const DECODE_BYTES_MAX: usize = 16 << 20;
/// Largest stored value of a row, in bytes: a state value and what is kept beside it.
pub const ROW_BYTES_MAX: usize = VALUE_BYTES_MAX + 4096;

/// Most leases that one entry ends, so that a mass expiry cannot hold up the requests behind it.
pub const LEASES_ENDED_PER_ENTRY_MAX: usize = 64;
/// Most session deadlines that one entry looks at.
pub const SESSIONS_CHECKED_PER_ENTRY_MAX: usize = 64;
/// Most outcomes of expired sessions that one entry removes.
pub const OUTCOMES_DROPPED_PER_ENTRY_MAX: u32 = 1024;

/// Most rows in one page of a listing.
pub const PAGE_MAX: usize = 1000;
/// Size at which a page of values is closed, in bytes of values.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// Most names in one read of several values.
pub const NAMES_PER_GET_MAX: usize = 256;
