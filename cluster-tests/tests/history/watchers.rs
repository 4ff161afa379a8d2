//! Clients that watch all that is written and who owns what.

use anyhow::{Context as _, bail, ensure};
use holdfast_client::{Change, Client, Error, Event as Seen, Watch, WatchFilter, WatchOptions};
use holdfast_cluster_tests::boot_us;
use holdfast_history::{Event, Sighting, Stream};

use super::{END, Lie, Run, WAIT_MAX};

/// One of so many changes is left out by [`Lie::MissedChanges`].
const MISSED_IN: usize = 20;

pub(super) struct Watcher {
    number: usize,
    client: Client,
    run: Run,
    /// Behind this revision.
    after: u64,
    events: Vec<Event>,
    seen: usize,
}

impl Watcher {
    /// One that is told of everything behind a revision.
    pub(super) fn new(run: &Run, number: usize, after: u64) -> Watcher {
        let client = run.client(number).with_timeout(WAIT_MAX);
        Watcher { number, client, run: run.clone(), after, events: Vec::new(), seen: 0 }
    }

    /// Takes everything in until the last write has been seen.
    pub(super) async fn go_on(mut self) -> anyhow::Result<()> {
        loop {
            let mut watch = match self.open().await {
                Ok(watch) => watch,
                Err(error) => {
                    self.skip(error, self.after)?;
                    continue;
                }
            };
            loop {
                match watch.next().await {
                    Ok(change) => {
                        if let Some(end) = self.take_in(change)? {
                            self.note(end);
                            return Ok(());
                        }
                    }
                    Err(Error::Unavailable { .. }) => {}
                    Err(error) => {
                        self.skip(error, watch.revision())?;
                        break;
                    }
                }
            }
        }
    }

    async fn open(&self) -> Result<Watch, Error> {
        let filters = vec![
            WatchFilter::State { object: Some(self.run.object), name_prefix: String::new() },
            WatchFilter::ChangeSource(None),
        ];
        let options = WatchOptions { from_revision: Some(self.after + 1), filters };
        self.client.watch(options).await
    }

    /// Goes on behind what no node that answers remembers; another watcher has to have seen that.
    fn skip(&mut self, error: Error, through: u64) -> anyhow::Result<()> {
        let Error::Refused { reason, fields, .. } = &error else { return Err(error.into()) };
        ensure!(reason == "COMPACTED", "{error}");
        let oldest: u64 = fields.get("oldest").context("the oldest revision")?.parse()?;
        self.note(through);
        self.after = oldest.saturating_sub(1).max(through);
        Ok(())
    }

    /// The revision of the last write, if this is it.
    fn take_in(&mut self, change: Change) -> anyhow::Result<Option<u64>> {
        let Change { revision, event } = change;
        let (name, value) = match event {
            Seen::StatePut { name, value, .. } => (name, Some(value.into())),
            Seen::StateDeleted { name, .. } => (name, None),
            Seen::ChangeSource { id, owner, .. } => {
                self.run.recorder.sighting(Sighting {
                    source: id,
                    token: owner.map(|(_, token)| token),
                    revision: Some(revision),
                    since_us: 0,
                    by_us: boot_us(),
                });
                return Ok(None);
            }
            Seen::ObjectCreated { .. }
            | Seen::CreatorChanged { .. }
            | Seen::Master { .. }
            | Seen::StoredObject { .. }
            | Seen::Variable { .. } => bail!("nobody asked for {event:?}"),
        };
        let is_end = name == END;
        self.seen += 1;
        let is_missed =
            self.run.lie == Some(Lie::MissedChanges) && self.seen.is_multiple_of(MISSED_IN);
        if is_end || !is_missed {
            self.events.push(Event { revision, key: name.into(), value });
        }
        Ok(is_end.then_some(revision))
    }

    fn note(&mut self, through: u64) {
        let events = std::mem::take(&mut self.events);
        let stream = Stream { watcher: self.number, after: self.after, through, events };
        self.run.recorder.stream(stream);
    }
}
