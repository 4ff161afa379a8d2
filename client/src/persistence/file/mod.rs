//! Objects as files of a directory, without a server.
//!
//! `format` the bytes of a file · `dir` what is in the directory, and how it changes · `ids` what it gives
//! out. Many processes may use one directory, on one machine or over a file system that has locks (NFS from
//! version 4 on).

mod dir;
mod format;
mod ids;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use super::error::Error;
use super::family::Family;
use super::id::Id;
use super::id_blocks::IdBlocks;
use super::per_process::PerProcess;
use super::persistable::Persistable;
use super::record::{Record, own_metadata};
use super::store::{Filter, Listed, Store};
use super::tree::{Growing, Stored, Tree};
use super::uri::Uri;
use dir::{Dir, Locked};

/// How many ids are taken from the directory at a time, which costs two syncs.
const BLOCK: u64 = 64;

/// Objects as files of a directory, which is made by the first save.
///
/// Each object is a file of its own, named by its id, written aside, synced and renamed. A save is atomic,
/// however many objects it writes: it is done when it has returned, or when the next caller finds it, and
/// nobody ever sees a part of it. Loads and lists show what is there at one moment; while one goes on,
/// saves wait, and the other way round.
///
/// Where an older copy of the directory is restored, ids are still not given out twice as long as the wall
/// clock was not put back meanwhile.
#[derive(Debug, Clone)]
pub struct FilesystemStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: Dir,
    ids: PerProcess<Mutex<IdBlocks>>,
    has_swept: AtomicBool,
}

impl FilesystemStore {
    /// The store in this directory. Does no IO.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> FilesystemStore {
        let dir = Dir { path: path.into() };
        let inner = Inner { dir, ids: PerProcess::new(), has_swept: AtomicBool::new(false) };
        FilesystemStore { inner: Arc::new(inner) }
    }

    /// The store that a URI such as `file:///var/lib/jobs`, or a bare path, stands for. Does no IO.
    ///
    /// # Errors
    /// [`Error::BadUri`].
    pub fn from_uri(uri: &Uri) -> Result<FilesystemStore, Error> {
        if !matches!(uri.authority.as_str(), "" | "localhost") {
            let host = &uri.authority;
            return Err(uri.bad(format!(
                "{host:?} stands where a host would, and files are here: file:///PATH"
            )));
        }
        if let Some((name, _)) = uri.query.first() {
            return Err(uri.bad(format!("there is no parameter {name:?}")));
        }
        if uri.path.is_empty() {
            return Err(uri.bad("it names no directory: file:///PATH"));
        }
        Ok(FilesystemStore::new(&uri.path))
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.dir.path
    }

    /// Does something that blocks on the file system.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|stopped| {
            // Only with its runtime, whose end nobody outlives.
            let source = std::io::Error::other(stopped.to_string());
            Err(Error::Io { act: "work on", path: self.path().to_owned(), source })
        })
    }

    async fn put(&self, root: Option<Id>, object: &dyn Persistable) -> Result<Id, Error> {
        let family = Family::of(object)?;
        let unnamed = family.unnamed(root);
        let fresh = self.blocking(move |inner| inner.fresh(unnamed)).await?;
        let records = family.name(root, fresh)?;
        let id = records.last().expect("the root is last").0;
        self.blocking(move |inner| inner.write(&records)).await.map(|()| id)
    }

    fn listed<T: Send + 'static>(
        &self,
        list: impl FnOnce(&Inner) -> Result<Vec<T>, Error> + Send + 'static,
    ) -> BoxStream<'_, Result<T, Error>> {
        let all = async move { self.blocking(list).await.map(|all| stream::iter(all).map(Ok)) };
        stream::once(all).try_flatten().boxed()
    }
}

impl Store for FilesystemStore {
    fn name(&self) -> String {
        format!("file://{}", self.path().display())
    }

    fn save<'a>(&'a self, object: &'a dyn Persistable) -> BoxFuture<'a, Result<Id, Error>> {
        Box::pin(self.put(None, object))
    }

    fn replace<'a>(
        &'a self,
        id: Id,
        object: &'a dyn Persistable,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.put(Some(id), object).await.map(drop) })
    }

    fn load(&self, id: Id) -> BoxFuture<'_, Result<Tree, Error>> {
        Box::pin(self.blocking(move |inner| inner.load(id)))
    }

    fn remove(&self, id: Id) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.blocking(move |inner| {
            // A directory that is not there is not made for this.
            let is_there = inner.dir.read()?.is_some();
            if is_there { inner.dir.write()?.remove(id).map(drop) } else { Ok(()) }
        }))
    }

    fn ids(&self, filter: Filter) -> BoxStream<'_, Result<Id, Error>> {
        if filter == Filter::default() {
            return self.listed(|inner| inner.dir.read()?.map_or(Ok(Vec::new()), |dir| dir.ids()));
        }
        self.records(filter).map_ok(|listed| listed.id).boxed()
    }

    fn records(&self, filter: Filter) -> BoxStream<'_, Result<Listed, Error>> {
        self.listed(move |inner| inner.records(&filter))
    }
}

impl Inner {
    fn name(&self) -> String {
        format!("file://{}", self.dir.path.display())
    }

    /// So many ids that nobody has had.
    fn fresh(&self, count: usize) -> Result<Vec<Id>, Error> {
        let blocks = self.ids.get(Mutex::default);
        // A std lock: held to take what is there.
        let take = || blocks.lock().unwrap_or_else(PoisonError::into_inner).take(count);
        if let Some(ids) = take() {
            return Ok(ids);
        }
        let wanted = u64::try_from(count).unwrap_or(u64::MAX).max(BLOCK);
        let leased: Range<u64> = ids::lease(&self.dir.write()?, wanted)?;
        let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(blocks.take_of(leased, count))
    }

    fn write(&self, records: &[(Id, Record)]) -> Result<(), Error> {
        let staged = self.dir.stage(records)?;
        let dir = self.dir.write()?;
        let next = ids::next(&dir)?;
        if let Some((id, _)) = records.iter().find(|(id, _)| id.get() >= next) {
            return Err(Error::UnissuedId { id: *id, store: self.name() });
        }
        dir.commit(staged)?;
        if !self.has_swept.swap(true, Ordering::Relaxed) {
            dir.sweep()?;
        }
        Ok(())
    }

    fn load(&self, id: Id) -> Result<Tree, Error> {
        let dir = self.dir.read()?;
        let mut tree = Growing::from_root(id);
        loop {
            let wanted = tree.wanted();
            if wanted.is_empty() {
                return Ok(tree.finish());
            }
            let fetched = wanted.into_iter().map(|id| {
                let absent = || {
                    let parent = tree.parent(id);
                    Error::Load { id, parent, store: self.name() }
                };
                let record = dir.as_ref().map_or(Ok(None), |dir| dir.object(id))?;
                Stored::of(id, record.ok_or_else(absent)?)
            });
            let fetched: Vec<Stored> = fetched.collect::<Result<_, _>>()?;
            tree.grow(fetched);
        }
    }

    fn records(&self, filter: &Filter) -> Result<Vec<Listed>, Error> {
        let Some(dir) = self.dir.read()? else { return Ok(Vec::new()) };
        let mut listed = Vec::new();
        for id in dir.ids()? {
            listed.extend(
                self.record(&dir, id)?
                    .filter(|listed| filter.passes(&listed.class_name, &listed.metadata)),
            );
        }
        Ok(listed)
    }

    fn record(&self, dir: &Locked<'_>, id: Id) -> Result<Option<Listed>, Error> {
        let Some(head) = dir.head(id)? else { return Ok(None) };
        let metadata = own_metadata(head.metadata);
        let (class_name, body_bytes) = (head.class_name, head.body_bytes);
        Ok(Some(Listed { id, class_name, metadata, body_bytes }))
    }
}
