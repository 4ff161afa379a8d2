//! Creating a value by a callback that runs in one place of the cluster at a time.
//!
//! The model: a caller asks for the right to create. It is told the value, or has the right, or stands in
//! line; then it watches the key, and is told the value when there is one, or that it is its turn. Whoever
//! has the right runs the callback, renews the right meanwhile, and writes what the callback made under the
//! right's token. If it dies, the cluster gives the right to the next in line.
//!
//! Invariants:
//! - The callback runs only with the right, which is counted as a lease is (`lease`): from before the first
//!   transmission of the call that gave it, less a margin. The callback is told when it is lost.
//! - What the callback made is written only if the right is still this caller's when the write is applied:
//!   that is for the cluster to decide, not for a clock.
//! - A caller that goes away gives up its place, unless it dies: then its time runs out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::v1 as proto;

use crate::boottime::BootTime;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::lease::{RENEWAL_MIN, pause};
use crate::life::{Life, Loss, counted};
use crate::state::Created;
use crate::watch::{Change, Event, Watch, WatchFilter, WatchOptions};

/// Shortest wait that the cluster takes.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// How to go about an exclusive create. Start from [`ExclusiveOptions::default`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExclusiveOptions {
    /// How long the right lasts without a renewal: what the others wait for a creator that has died. It is
    /// renewed every third of that. 500 ms to 60 s; 2 s by default.
    pub ttl: Duration,
    /// How long to wait for the value or the right, at most 1 h; 60 s by default. The callback may then
    /// take as long as it likes.
    pub wait: Duration,
}

impl Default for ExclusiveOptions {
    fn default() -> ExclusiveOptions {
        ExclusiveOptions { ttl: Duration::from_secs(2), wait: Duration::from_secs(60) }
    }
}

/// Why there is no value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExclusiveError<E> {
    /// A call failed. [`Error::applied`] says whether the value may have been written.
    #[error(transparent)]
    Call(#[from] Error),
    /// Others had the right for as long as this caller was to wait; nothing was written by it.
    #[error("others were still creating the value after {0:?}")]
    Waited(Duration),
    /// The callback failed; nothing was written, and the next in line has the right.
    #[error("{0}")]
    Callback(E),
}

/// The right to create a value, as the callback has it.
#[derive(Debug, Clone)]
pub struct Creator {
    held: Arc<Held>,
}

impl Creator {
    /// What the right is held under. It rises from one creator of a value to the next, so that whatever
    /// the callback does can tell an earlier one's late effects.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.held.token
    }

    /// Whether the right still holds at this moment. Looks at the clock, and waits for nothing.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.held.life.loss().is_none()
    }

    /// Waits until the right is lost, and says how: [`Loss::Expired`] if it was not renewed in time, so that
    /// somebody else may have it; [`Loss::Ended`] if the cluster said so, also because there is a value;
    /// [`Loss::Closed`] once the callback is over. Comes before the cluster could give the right away, as
    /// [`LeaseHolder::lost`](crate::LeaseHolder::lost) does.
    pub async fn lost(&self) -> Loss {
        self.held.life.lost().await
    }
}

/// A creator, for its callback and its renewals.
#[derive(Debug)]
struct Held {
    key: Key,
    token: u64,
    ttl: Duration,
    life: Life,
}

/// A key, and the client to make calls about it with.
#[derive(Debug, Clone)]
struct Key {
    client: Client,
    object: i64,
    name: String,
}

/// The value of a key, or if there is none the one that `create` makes.
pub(crate) async fn create<B, E, F>(
    client: &Client,
    (object, name): (i64, &str),
    options: ExclusiveOptions,
    create: impl FnOnce(Creator) -> F,
) -> Result<Created, ExclusiveError<E>>
where
    B: Into<Vec<u8>>,
    F: Future<Output = Result<B, E>>,
{
    let key = Key { client: client.clone(), object, name: name.to_owned() };
    let caller = Caller { key, options, deadline: Deadline::after(options.wait) };
    let mut tenure = match caller.wait().await? {
        None => return Err(ExclusiveError::Waited(options.wait)),
        Some(Outcome::Value(created)) => return Ok(created),
        Some(Outcome::Right(tenure)) => tenure,
    };
    let creator = Creator { held: tenure.held.clone() };
    let token = tenure.held.token;
    let made = match create(creator).await {
        Ok(made) => made,
        Err(error) => {
            // Here and not in the background: a program may end with this error.
            tenure.give_up().await;
            return Err(ExclusiveError::Callback(error));
        }
    };
    let created = client.state().create_with(object, name, made.into(), None, Some(token)).await?;
    tenure.place.leave();
    Ok(created)
}

/// How a wait for a value ends.
enum Outcome {
    Value(Created),
    Right(Tenure),
}

/// The time of a creator; over when it is dropped.
struct Tenure {
    held: Arc<Held>,
    renewals: tokio::task::JoinHandle<()>,
    place: Place,
}

impl Tenure {
    /// Lets the next in line have the right; left alone, it runs out.
    async fn give_up(&mut self) {
        self.held.life.end(Loss::Closed);
        let Held { key, token, ttl, .. } = &*self.held;
        let key = Key { client: key.client.with_timeout(*ttl), ..key.clone() };
        if let Err(error) = key.abandon(*token).await {
            tracing::debug!(token, %error, "the right to create is left to run out");
        }
        self.place.leave();
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.held.life.end(Loss::Closed);
        self.renewals.abort();
    }
}

/// A place in line, or the right; given up when it is dropped, unless there is nothing to give up.
struct Place {
    key: Key,
    token: u64,
    is_left: bool,
}

impl Place {
    fn leave(&mut self) {
        self.is_left = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (key, token) = (self.key.clone(), self.token);
            runtime.spawn(async move {
                if let Err(error) = key.abandon(token).await {
                    tracing::debug!(token, %error, "the right to create is left to run out");
                }
            });
        }
    }
}

/// How a caller stands.
enum Told {
    Value(Created),
    Creating {
        token: u64,
        ttl: Duration,
    },
    Waiting {
        token: u64,
    },
    /// It neither waits nor has the right, and there is no value (any more).
    Nothing,
}

/// What a watch shows to a caller that waits.
enum News {
    Value(Created),
    /// It may stand otherwise than before.
    Turn,
    /// The watch can show nothing any more.
    Compacted,
}

/// A caller that waits for a value, or for the right to create it.
struct Caller {
    key: Key,
    options: ExclusiveOptions,
    deadline: Deadline,
}

impl Caller {
    /// The value or the right; None if there was neither for too long.
    async fn wait(&self) -> Result<Option<Outcome>, Error> {
        // Nobody has run a callback.
        self.stand_in_line().await.map_err(|error| match error {
            Error::OutcomeUnknown { cause, header } | Error::Unavailable { cause, header } => {
                Error::NotApplied { cause, header }
            }
            error @ (Error::Refused { .. }
            | Error::NotApplied { .. }
            | Error::SessionExpired { .. }
            | Error::LeaseLost { .. }) => error,
        })
    }

    async fn stand_in_line(&self) -> Result<Option<Outcome>, Error> {
        let mut place: Option<Place> = None;
        let mut watch: Option<Watch> = None;
        while !self.deadline.has_passed() {
            let began = BootTime::now();
            let told = match &place {
                None => self.ask().await?,
                Some(place) => self.client().keep(place.token).await?,
            };
            match told {
                Told::Value(created) => {
                    place.iter_mut().for_each(Place::leave);
                    return Ok(Some(Outcome::Value(created)));
                }
                Told::Nothing => {
                    place.iter_mut().for_each(Place::leave);
                    place = None;
                }
                Told::Creating { token, ttl } => {
                    let own = place.take().unwrap_or_else(|| self.place(token));
                    let ttl = ttl.min(self.options.ttl);
                    let life = Life::new(began + counted(ttl));
                    // An answer that came too late for that is asked for again.
                    if life.loss().is_none() {
                        return Ok(Some(Outcome::Right(self.tenure(own, ttl, life, began))));
                    }
                    place = Some(own);
                }
                Told::Waiting { token } => {
                    place.get_or_insert_with(|| self.place(token));
                    // From here on nothing is missed, once it has been asked again how it stands.
                    let Some(watching) = &mut watch else {
                        watch = Some(self.watch().await?);
                        continue;
                    };
                    let news = tokio::select! {
                        news = self.news(watching, token) => news?,
                        () = self.deadline.reached() => return Ok(None),
                    };
                    match news {
                        News::Value(created) => {
                            place.iter_mut().for_each(Place::leave);
                            return Ok(Some(Outcome::Value(created)));
                        }
                        News::Turn => {}
                        News::Compacted => watch = None,
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Caller {
    /// A client for one call: it takes no longer than the wait.
    fn client(&self) -> Key {
        let timeout = self.key.client.call_timeout().min(self.deadline.remaining());
        Key { client: self.key.client.with_timeout(timeout), ..self.key.clone() }
    }

    fn place(&self, token: u64) -> Place {
        Place { key: self.key.clone(), token, is_left: false }
    }

    fn tenure(&self, place: Place, ttl: Duration, life: Life, began: BootTime) -> Tenure {
        let held = Arc::new(Held { key: self.key.clone(), token: place.token, ttl, life });
        let renewals = tokio::spawn(renew(held.clone(), began));
        Tenure { held, renewals, place }
    }

    async fn ask(&self) -> Result<Told, Error> {
        use proto::ask_to_create_response::Outcome;
        let Key { client, object, name } = self.client();
        let wait = self.deadline.remaining().max(WAIT_MIN);
        let request = proto::AskToCreateRequest {
            context: None,
            namespace: client.namespace().to_owned(),
            object_id: object,
            name,
            ttl_ms: millis(self.options.ttl),
            wait_ms: millis(wait),
        };
        let response = client.write(request).await?;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        match response.outcome {
            Some(Outcome::Exists(value)) => Ok(Told::exists(value, revision)),
            Some(Outcome::Creating(creating)) => Ok(Told::creating(creating)),
            Some(Outcome::Waiting(waiting)) => Ok(Told::Waiting { token: waiting.token }),
            None => Err(Error::malformed("AskToCreate", response.header.as_ref())),
        }
    }

    async fn watch(&self) -> Result<Watch, Error> {
        let Key { client, object, name } = self.client();
        let filters = vec![WatchFilter::State { object: Some(object), name_prefix: name }];
        client.watch(WatchOptions { filters, ..WatchOptions::default() }).await
    }

    async fn news(&self, watch: &mut Watch, token: u64) -> Result<News, Error> {
        loop {
            let Change { revision, event } = match watch.next().await {
                Ok(change) => change,
                // The watch goes on as soon as there is a node; the deadline says for how long.
                Err(Error::Unavailable { .. }) => continue,
                Err(error) if error.reason() == Some("COMPACTED") => return Ok(News::Compacted),
                Err(error) => return Err(error),
            };
            // The filter passes every name that begins with ours.
            match event {
                Event::StatePut { name, value, .. } if name == self.key.name => {
                    let mod_revision = revision;
                    return Ok(News::Value(Created {
                        created: false,
                        value,
                        mod_revision,
                        revision,
                    }));
                }
                Event::CreatorChanged { name, token: creator, .. }
                    if name == self.key.name && creator.is_none_or(|creator| creator >= token) =>
                {
                    return Ok(News::Turn);
                }
                Event::StatePut { .. }
                | Event::CreatorChanged { .. }
                | Event::StateDeleted { .. }
                | Event::ObjectCreated { .. }
                | Event::Master { .. }
                | Event::ChangeSource { .. }
                | Event::StoredObject { .. }
                | Event::Variable { .. } => {}
            }
        }
    }
}

impl Key {
    /// Renews the right, or asks how a caller stands that waits.
    async fn keep(&self, token: u64) -> Result<Told, Error> {
        use proto::keep_creating_response::Outcome;
        let request = proto::KeepCreatingRequest {
            context: None,
            namespace: self.client.namespace().to_owned(),
            object_id: self.object,
            name: self.name.clone(),
            token,
        };
        let response = match self.client.write(request).await {
            Err(error) if error.reason() == Some("CREATION_LOST") => return Ok(Told::Nothing),
            answer => answer?,
        };
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        match response.outcome {
            Some(Outcome::Exists(value)) => Ok(Told::exists(value, revision)),
            Some(Outcome::Creating(creating)) => Ok(Told::creating(creating)),
            Some(Outcome::Waiting(waiting)) => Ok(Told::Waiting { token: waiting.token }),
            None => Err(Error::malformed("KeepCreating", response.header.as_ref())),
        }
    }

    async fn abandon(&self, token: u64) -> Result<bool, Error> {
        let request = proto::AbandonCreatingRequest {
            context: None,
            namespace: self.client.namespace().to_owned(),
            object_id: self.object,
            name: self.name.clone(),
            token,
        };
        Ok(self.client.write(request).await?.abandoned)
    }
}

impl Told {
    fn exists(value: proto::StateValue, revision: u64) -> Told {
        let proto::StateValue { value, mod_revision, is_gone } = value;
        match is_gone {
            true => Told::Nothing,
            false => Told::Value(Created { created: false, value, mod_revision, revision }),
        }
    }

    fn creating(creating: proto::Creating) -> Told {
        let proto::Creating { token, ttl_ms } = creating;
        Told::Creating { token, ttl: Duration::from_millis(ttl_ms) }
    }
}

/// Renews the right until it is lost.
async fn renew(held: Arc<Held>, mut began: BootTime) {
    let mut wait = held.ttl / 3;
    loop {
        if held.life.sleep_until(began + wait).await.is_some() {
            return;
        }
        began = BootTime::now();
        let left = held.life.until().since(began).saturating_sub(RENEWAL_MIN);
        let key = Key { client: held.key.client.with_timeout(left), ..held.key.clone() };
        let told = tokio::select! {
            told = key.keep(held.token) => told,
            _ = held.life.lost() => return,
        };
        // The clock first: an answer that comes too late must not be looked at.
        if held.life.loss().is_some() {
            return;
        }
        wait = match told {
            Ok(Told::Creating { ttl, .. }) => {
                let ttl = ttl.min(held.ttl);
                if !held.life.extend(BootTime::now(), began + counted(ttl)) {
                    return;
                }
                ttl / 3
            }
            Ok(Told::Value(_) | Told::Waiting { .. } | Told::Nothing) => {
                held.life.end(Loss::Ended);
                return;
            }
            Err(error) => {
                let token = held.token;
                tracing::warn!(token, %error, "right to create not renewed, trying again");
                BootTime::now().since(began) + pause(held.ttl)
            }
        };
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
