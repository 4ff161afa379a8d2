//! The way out: level by level, one request each.

use std::collections::BTreeMap;

use holdfast_proto::v1 as proto;
use tokio::time::Instant;

use super::{ClusterStore, Progress, Session};
use crate::deadline::Deadline;
use crate::error::Error as CallError;
use crate::persistence::error::Error;
use crate::persistence::id::Id;
use crate::persistence::record::{BODY_BYTES_MAX, Record};
use crate::persistence::tree::{Growing, Stored, Tree};
use crate::stream::Parts;

/// Most objects that one request asks for.
const IDS_MAX: usize = 65_536;
/// How often a load is begun whose objects are changed under it.
const TRIES_MAX: u32 = 16;
/// How often one is begun that finds a reference to nothing: the object may have been removed only after
/// what refers to it was read.
const ABSENT_MAX: u32 = 3;

/// Objects at one revision.
struct Level {
    revision: u64,
    /// By their ids, with the revision that made each; those that are not there are missing.
    found: BTreeMap<Id, (u64, Record)>,
}

impl ClusterStore {
    /// An object and all that it refers to, as they were when the root was read.
    pub(super) async fn load_tree(&self, root: Id) -> Result<Tree, Error> {
        let session = self.session();
        let mut absent = 0;
        for _ in 0..TRIES_MAX {
            match self.try_tree(&session, root).await? {
                Tried::Whole(tree) => return Ok(tree),
                Tried::Changed => {}
                Tried::Absent { id, parent } => {
                    absent += 1;
                    // Nothing else was read before the root.
                    if parent.is_none() || absent == ABSENT_MAX {
                        return Err(Error::Load { id, parent, store: self.inner.name.clone() });
                    }
                }
            }
        }
        Err(Error::Unsteady { id: root, tries: TRIES_MAX })
    }

    /// An object without what it refers to.
    ///
    /// # Errors
    /// As [`Store::load`](crate::persistence::Store::load).
    pub async fn load_alone(&self, id: Id) -> Result<Stored, Error> {
        let Level { mut found, .. } = self.fetch(&self.session(), &[id]).await?;
        let absent = || Error::Load { id, parent: None, store: self.inner.name.clone() };
        let (_, record) = found.remove(&id).ok_or_else(absent)?;
        Stored::of(id, record)
    }

    async fn try_tree(&self, session: &Session, root: Id) -> Result<Tried, Error> {
        let mut tree = Growing::from_root(root);
        let mut at = None;
        loop {
            let wanted = tree.wanted();
            if wanted.is_empty() {
                return Ok(Tried::Whole(tree.finish()));
            }
            let mut fetched = Vec::with_capacity(wanted.len());
            for ids in wanted.chunks(IDS_MAX) {
                let Level { revision, mut found } = self.fetch(session, ids).await?;
                let at = *at.get_or_insert(revision);
                for id in ids {
                    let Some((made, record)) = found.remove(id) else {
                        return Ok(Tried::Absent { id: *id, parent: tree.parent(*id) });
                    };
                    // What has not changed since is as it was then.
                    if made > at {
                        return Ok(Tried::Changed);
                    }
                    fetched.push(Stored::of(*id, record)?);
                }
            }
            tree.grow(fetched);
        }
    }

    /// Objects at one revision. A stream that breaks is begun anew, at another node if need be.
    async fn fetch(&self, session: &Session, ids: &[Id]) -> Result<Level, Error> {
        let began = Instant::now();
        let deadline = Deadline::after(session.client.call_timeout());
        loop {
            let error = match self.receive(session, ids).await? {
                Ok(level) => return Ok(level),
                Err(error) => error,
            };
            // Whoever was not reached has been tried for long enough; a stream that broke has not.
            if deadline.has_passed() || !is_worth_another(&error) {
                return Err(self.explain(began, error));
            }
        }
    }

    async fn receive(
        &self,
        session: &Session,
        ids: &[Id],
    ) -> Result<Result<Level, CallError>, Error> {
        let request = proto::LoadObjectsRequest {
            read: None,
            namespace: self.namespace(),
            ids: ids.iter().map(|id| id.get()).collect(),
            only_records: false,
        };
        let opened = match session.client.read(request).await {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let mut parts = Parts::new("the load", opened);
        let mut level = Assembly::new(parts.header().revision);
        loop {
            match parts.next().await {
                Ok(Some(part)) => {
                    for piece in part.pieces {
                        level.take_in(piece, &self.inner.progress)?;
                    }
                }
                Ok(None) => return level.finish().map(Ok),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}

/// What came of one attempt to load a tree.
enum Tried {
    Whole(Tree),
    Changed,
    Absent { id: Id, parent: Option<Id> },
}

/// A stream that broke, or was not read in time, rather than a refusal.
pub(super) fn is_worth_another(error: &CallError) -> bool {
    matches!(error, CallError::Unavailable { .. }) || error.reason() == Some("SLOW_READER")
}

/// A level as its pieces come in.
struct Assembly {
    level: Level,
    /// The object whose body is coming in, and how long that is to be.
    open: Option<(Id, u64, Record, usize)>,
}

impl Assembly {
    fn new(revision: u64) -> Assembly {
        Assembly { level: Level { revision, found: BTreeMap::new() }, open: None }
    }

    fn take_in(&mut self, piece: proto::LoadPiece, progress: &Progress) -> Result<(), Error> {
        use proto::load_piece::Piece;
        match piece.piece {
            Some(Piece::Record(record)) => {
                self.close()?;
                let id = Id::new(record.id).map_err(|bad| damaged(bad.to_string()))?;
                let bytes = usize::try_from(record.body_bytes).unwrap_or(usize::MAX);
                if bytes > BODY_BYTES_MAX {
                    return Err(damaged(format!("object {id} has a body of {bytes} bytes")));
                }
                let class_name = record.class_name;
                let metadata = record.metadata.into_iter().collect();
                let body = Vec::with_capacity(bytes);
                let kept = Record { class_name, metadata, body };
                self.open = Some((id, record.mod_revision, kept, bytes));
                progress.expect(bytes);
                Ok(())
            }
            Some(Piece::Body(bytes)) => {
                let Some((id, _, record, expected)) = &mut self.open else {
                    return Err(damaged("a body comes before its object".to_owned()));
                };
                if record.body.len() + bytes.len() > *expected {
                    let reason = format!("object {id} has more than the {expected} bytes it has");
                    return Err(damaged(reason));
                }
                record.body.extend_from_slice(&bytes);
                progress.arrived(bytes.len());
                Ok(())
            }
            Some(Piece::MissingId(_)) => self.close(),
            // Of a later release.
            None => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        let Some((id, made, record, expected)) = self.open.take() else { return Ok(()) };
        if record.body.len() != expected {
            let actual = record.body.len();
            let reason = format!("object {id} came with {actual} of its {expected} bytes");
            return Err(damaged(reason));
        }
        self.level.found.insert(id, (made, record));
        Ok(())
    }

    fn finish(mut self) -> Result<Level, Error> {
        self.close()?;
        Ok(self.level)
    }
}

fn damaged(reason: String) -> Error {
    Error::Damaged { what: "what a node sent".to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use proto::load_piece::Piece;

    use super::*;

    fn record(nth: u64, body_bytes: u64) -> Piece {
        let (id, class_name) = (Id::LOWEST.get() + nth, "Task".to_owned());
        let record = proto::ObjectRecord {
            id,
            class_name,
            body_bytes,
            mod_revision: nth,
            ..Default::default()
        };
        Piece::Record(record)
    }

    fn assemble(pieces: Vec<Piece>) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let mut level = Assembly::new(7);
        for piece in pieces {
            level.take_in(proto::LoadPiece { piece: Some(piece) }, &Progress::default())?;
        }
        let found = level.finish()?.found.into_values();
        Ok(found.map(|(made, record)| (made, record.body)).collect())
    }

    #[test]
    fn bodies_come_in_pieces() {
        let body = |bytes: &[u8]| Piece::Body(bytes.to_vec());
        let found = assemble(vec![
            record(1, 3),
            body(b"ab"),
            body(b"c"),
            Piece::MissingId(Id::HIGHEST.get()),
            record(2, 0),
            record(3, 1),
            body(b"d"),
        ]);
        let expected = [(1, b"abc".to_vec()), (2, Vec::new()), (3, b"d".to_vec())];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let body = |bytes: &[u8]| Piece::Body(bytes.to_vec());
        for pieces in [
            vec![record(1, 3), body(b"ab")],
            vec![record(1, 3), body(b"ab"), record(2, 0)],
            vec![record(1, 1), body(b"ab")],
            vec![body(b"ab")],
            vec![record(1, u64::MAX)],
            vec![Piece::Record(proto::ObjectRecord::default())],
        ] {
            let refused = assemble(pieces.clone());
            assert!(matches!(refused, Err(Error::Damaged { .. })), "{pieces:?}: {refused:?}");
        }
    }
}
