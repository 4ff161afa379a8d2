//! One run of a transaction: what its function reads and writes.
//!
//! There is no history of values in the cluster. So that all reads of a run are of one revision, each further
//! read looks whether the earlier ones still hold, and if they do, the whole run is of the later revision.
//!
//! Invariant: a run at a serializable level never sees two variables as they were not at one revision, also
//! one that is then given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::commit::{self, Plan};
use super::copies::Writes;
use super::key::Key;
use super::queue::{Footprint, Touch, Turn};
use super::value::{CodecError, Content, Variable};
use crate::client::Client;
use crate::error::Error;

/// How much of what others do a transaction may notice; as in etcd's software transactional memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All reads are of one revision, and neither what was read nor what is written has been changed by others
    /// between it and the commit.
    #[default]
    SerializableSnapshot,
    /// All reads are of one revision, and what was read has not been changed between it and the commit.
    Serializable,
    /// A variable reads the same however often it is read, and has not been changed between that and the
    /// commit; but two variables may never have had what was read of them at one time.
    RepeatableReads,
    /// Each read is of what was committed by then, and nothing is compared: the writes are applied
    /// all at once, on top of whatever is there.
    ReadCommitted,
}

/// Why a run of a transaction cannot go on. The function returns at once; what it returns is then not looked
/// at, unless this is [`Interrupt::Codec`], which is the function's own affair.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Interrupt {
    /// Something that was read has changed: the function runs again.
    #[error("a variable has changed meanwhile, the transaction runs again")]
    Moved,
    /// The function runs again when something that it read has changed.
    #[error("the transaction waits for a change")]
    Blocked,
    /// A read failed, and the transaction with it.
    #[error(transparent)]
    Read(Error),
    /// A value is not what it was read or written as.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// One run of a transaction, for its function. Clones are the same run.
#[derive(Debug, Clone)]
pub struct Transaction {
    client: Client,
    isolation: Isolation,
    // A std lock: held to look something up or to note it, never across an await.
    run: Arc<Mutex<Run>>,
}

/// What a run has done so far.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The revision that all reads are of, at the serializable levels; and what was read beforehand.
    snapshot: Option<u64>,
    /// No read is of an earlier one.
    pub(super) oldest: Option<u64>,
    pub(super) reads: BTreeMap<Key, Variable>,
    /// Read beforehand, because the last run read it; no read of this run before it is asked for.
    beforehand: BTreeMap<Key, Variable>,
    writes: BTreeMap<Key, Option<Content>>,
    /// Whether it is the first run of its transaction, which holds no places, and has not read anything.
    has_done_nothing: bool,
    /// The place of what it read first, if it stood in line for that.
    pub(super) turn: Option<Turn>,
    pub(super) interrupt: Option<Interrupt>,
}

impl Transaction {
    /// A run that has done nothing yet. What the last one read is read beforehand, all at once.
    pub(super) async fn begin(
        client: Client,
        isolation: Isolation,
        beforehand: &Footprint,
    ) -> Result<Transaction, Error> {
        let mut run = Run { has_done_nothing: beforehand.is_empty(), ..Run::default() };
        let keys: Vec<Key> = beforehand.keys().cloned().collect();
        if !keys.is_empty() && isolation != Isolation::ReadCommitted {
            match commit::read(&client, &keys, false).await {
                Ok((revision, found)) => {
                    (run.snapshot, run.oldest) = (Some(revision), Some(revision));
                    let found = found.into_iter().map(|found| (found.key.clone(), found));
                    run.beforehand = found.collect();
                }
                // They hold more than fits into one answer.
                Err(error) if error.reason() == Some("TRANSACTION_TOO_LARGE") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Transaction { client, isolation, run: Arc::new(Mutex::new(run)) })
    }

    /// What a variable holds; none if it is not there. A variable that this run has written holds that.
    ///
    /// # Errors
    /// [`Interrupt`], with which the function is to return.
    pub async fn get_content(&self, key: &Key) -> Result<Option<Content>, Interrupt> {
        {
            let mut run = self.run();
            if let Some(content) = run.writes.get(key) {
                return Ok(content.clone());
            }
            run.ask_for(key);
            if let (Some(read), true) = (run.reads.get(key), self.keeps_reads()) {
                return Ok(read.content.clone());
            }
        }
        self.stand_in_line(key).await;
        self.fetch(std::slice::from_ref(key)).await?;
        Ok(self.run().reads.get(key).and_then(|read| read.content.clone()))
    }

    /// What a variable holds, read as JSON; none if it is not there.
    ///
    /// # Errors
    /// As [`Transaction::get_content`]; [`Interrupt::Codec`] if it is no such value.
    pub async fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, Interrupt> {
        let content = self.get_content(key).await?;
        Ok(content.as_ref().map(Content::parse).transpose()?)
    }

    /// Has a variable hold a value, as JSON, once the transaction is applied.
    ///
    /// # Errors
    /// [`Interrupt::Codec`] if JSON has no form for it.
    pub fn put<T: Serialize + ?Sized>(&self, key: &Key, value: &T) -> Result<(), Interrupt> {
        self.put_content(key, Content::json(value)?);
        Ok(())
    }

    /// Has a variable hold this once the transaction is applied.
    pub fn put_content(&self, key: &Key, content: Content) {
        self.run().writes.insert(key.clone(), Some(content));
    }

    /// Deletes a variable once the transaction is applied.
    pub fn delete(&self, key: &Key) {
        self.run().writes.insert(key.clone(), None);
    }

    /// Has the function run again once something that it has read is changed by others. It returns with this:
    /// `return Err(transaction.retry().into())`.
    #[must_use = "the function is to return with it"]
    pub fn retry(&self) -> Interrupt {
        self.run().interrupt = Some(Interrupt::Blocked);
        Interrupt::Blocked
    }

    /// Before the first run reads anything: later, waiting would only make older what was read.
    async fn stand_in_line(&self, key: &Key) {
        let is_first = std::mem::take(&mut self.run().has_done_nothing);
        if is_first && self.keeps_reads() {
            let turn = self.client.queue().join(self.client.shared_namespace(), key).await;
            self.run().turn = turn;
        }
    }

    /// Whether a variable that was read once is not read again.
    pub(super) fn keeps_reads(&self) -> bool {
        self.isolation != Isolation::ReadCommitted
    }

    /// Whether all reads are of one revision.
    pub(super) fn is_snapshot(&self) -> bool {
        matches!(self.isolation, Isolation::SerializableSnapshot | Isolation::Serializable)
    }

    /// Reads variables, in such a way that the run sees what it may see; if it cannot go on, that is noted.
    pub(super) async fn fetch(&self, keys: &[Key]) -> Result<(), Interrupt> {
        let fetched = self.fetch_consistently(keys).await;
        if let Err(interrupt) = &fetched {
            self.run().interrupt = Some(interrupt.clone());
        }
        fetched
    }

    async fn fetch_consistently(&self, keys: &[Key]) -> Result<(), Interrupt> {
        let (revision, found) = self.read(keys).await?;
        {
            let mut run = self.run();
            // An absent variable does not tell since when.
            let was_so = |found: &Variable, at| found.mod_revision > 0 && found.mod_revision <= at;
            let is_consistent = run.snapshot.is_none_or(|at| {
                revision == at || revision > at && found.iter().all(|found| was_so(found, at))
            });
            if is_consistent || !self.is_snapshot() {
                run.snapshot.get_or_insert(revision);
                run.note(revision, found, self.keeps_reads());
                return Ok(());
            }
        }
        self.extend_snapshot(revision, found).await
    }

    /// Takes in variables that were read at a later revision than the others, if there is a revision at which
    /// all of them are so.
    async fn extend_snapshot(&self, read_at: u64, found: Vec<Variable>) -> Result<(), Interrupt> {
        loop {
            let mut all: BTreeSet<Key> = self.run().reads.keys().cloned().collect();
            all.extend(found.iter().map(|found| found.key.clone()));
            let asked: Vec<Key> = all.iter().cloned().collect();
            let read = commit::read_versions(&self.client, &asked).await;
            let (revision, now) = read.map_err(Interrupt::Read)?;
            let mut run = self.run();
            // The function may read several at a time.
            if !run.reads.keys().all(|key| all.contains(key)) {
                continue;
            }
            let now: BTreeMap<&Key, u64> =
                now.iter().map(|now| (&now.key, now.mod_revision)).collect();
            let is_same = |seen: &Variable| now.get(&seen.key) == Some(&seen.mod_revision);
            if !run.reads.values().chain(&found).all(is_same) {
                return Err(Interrupt::Moved);
            }
            run.snapshot = Some(revision);
            // Nobody has asked whether it still holds.
            run.beforehand.clear();
            run.note(read_at, found, true);
            return Ok(());
        }
    }

    async fn read(&self, keys: &[Key]) -> Result<(u64, Vec<Variable>), Interrupt> {
        commit::read(&self.client, keys, false).await.map_err(Interrupt::Read)
    }

    pub(super) fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// Has what was read beforehand be read by this run.
    fn ask_for(&mut self, key: &Key) {
        if let Some((key, found)) = self.beforehand.remove_entry(key) {
            self.reads.insert(key, found);
        }
    }

    fn note(&mut self, revision: u64, found: Vec<Variable>, keeps_reads: bool) {
        self.oldest = Some(self.oldest.map_or(revision, |oldest| oldest.min(revision)));
        for found in found {
            // The function may read one variable twice at the same time.
            if !(keeps_reads && self.reads.contains_key(&found.key)) {
                self.reads.insert(found.key.clone(), found);
            }
        }
    }

    /// What it writes and has not read, once what was read beforehand is taken for read.
    pub(super) fn unread_writes(&mut self) -> Vec<Key> {
        let written: Vec<Key> = self.writes.keys().cloned().collect();
        written.iter().for_each(|key| self.ask_for(key));
        written.into_iter().filter(|key| !self.reads.contains_key(key)).collect()
    }

    pub(super) fn footprint(&self) -> Footprint {
        let mut footprint: Footprint =
            self.reads.keys().map(|key| (key.clone(), Touch::Reads)).collect();
        footprint.extend(self.writes.keys().map(|key| (key.clone(), Touch::Writes)));
        footprint
    }

    pub(super) fn plan(&self, isolation: Isolation, writes: Writes) -> Plan {
        let mut plan = Plan::new();
        // What is not compared may be otherwise by now.
        let compared = match isolation {
            Isolation::ReadCommitted => &BTreeMap::new(),
            Isolation::SerializableSnapshot
            | Isolation::Serializable
            | Isolation::RepeatableReads => &self.reads,
        };
        plan = compared.values().fold(plan, Plan::expect);
        for (key, content) in &self.writes {
            let is_there_already = compared.get(key).is_some_and(|read| read.content == *content);
            // To delete what is not there is no write either way.
            if is_there_already && (writes == Writes::Changed || content.is_none()) {
                continue;
            }
            plan = match content {
                Some(content) => plan.put(key.clone(), content.clone()),
                None => plan.delete(key.clone()),
            };
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    //! What a run comes to, at each level.

    use super::*;

    fn key(name: &str) -> Key {
        Key::new(name).expect("a short key")
    }

    fn content(number: u32) -> Content {
        Content::json(&number).expect("a number is JSON")
    }

    fn variable(name: &str, mod_revision: u64) -> Variable {
        let content = (mod_revision > 0).then(|| content(1));
        Variable { key: key(name), version: mod_revision.min(1), mod_revision, content }
    }

    /// Reads x and an absent y, writes x and z and deletes y.
    fn run(x: u32) -> Run {
        let mut run = Run::default();
        run.note(9, vec![variable("x", 7), variable("y", 0)], true);
        run.writes.insert(key("x"), Some(content(x)));
        run.writes.insert(key("y"), None);
        run.writes.insert(key("z"), Some(content(3)));
        run
    }

    // T4
    #[test]
    fn what_was_read_is_compared_but_for_read_committed() {
        let compared = Plan::new().expect(&variable("x", 7)).expect(&variable("y", 0));
        let writes = |plan: Plan| plan.put(key("x"), content(2)).put(key("z"), content(3));
        for isolation in
            [Isolation::SerializableSnapshot, Isolation::Serializable, Isolation::RepeatableReads]
        {
            assert_eq!(run(2).plan(isolation, Writes::All), writes(compared.clone()));
        }
        let all = writes(Plan::new()).delete(key("y"));
        assert_eq!(run(2).plan(Isolation::ReadCommitted, Writes::Changed), all);
    }

    // T4
    #[test]
    fn what_has_not_changed_is_written_only_if_all_is() {
        let compared = Plan::new().expect(&variable("x", 7)).expect(&variable("y", 0));
        let changed = compared.put(key("z"), content(3));
        assert_eq!(run(1).plan(Isolation::Serializable, Writes::Changed), changed);
        let all = changed.put(key("x"), content(1));
        assert_eq!(run(1).plan(Isolation::Serializable, Writes::All), all);
    }

    #[test]
    fn first_read_of_a_variable_stands_unless_each_is_of_its_time() {
        for (keeps_reads, stands) in [(true, 7), (false, 8)] {
            let mut run = Run::default();
            run.note(9, vec![variable("x", 7)], keeps_reads);
            run.note(10, vec![variable("x", 8)], keeps_reads);
            assert_eq!(run.reads[&key("x")].mod_revision, stands);
            assert_eq!(run.oldest, Some(9));
        }
    }

    #[test]
    fn only_what_is_asked_for_again_is_read_again() {
        let mut run = Run { snapshot: Some(9), ..Run::default() };
        for found in [variable("x", 7), variable("y", 8)] {
            run.beforehand.insert(found.key.clone(), found);
        }
        run.ask_for(&key("x"));
        run.writes.insert(key("y"), None);
        run.writes.insert(key("z"), None);
        let compared = Plan::new().expect(&variable("x", 7));
        let written = compared.delete(key("y")).delete(key("z"));
        assert_eq!(run.plan(Isolation::Serializable, Writes::All), written);
        assert_eq!(run.unread_writes(), [key("z")]);
        assert!(run.reads.contains_key(&key("y")));
    }
}
