//! What must hold of the answers, told without rows.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_machine::changesources::ChangeSource;
use holdfast_machine::{
    Applied, Bytes, Command, Entry, Refusal, Reply, Request, Response, State, changesources,
    creators, import, limits, masters, state, stm,
};

use crate::stored;

const NAMESPACES: [&str; 2] = ["default", "other"];

/// A change source: its namespace and id.
type Source = (String, i64);
/// An item: its namespace, object and name.
type Item = (String, i64, String);

/// A variable: its namespace and key.
type Key = (String, Bytes);

/// The revisions of all writes to a variable since it was created, and the value of the last one.
struct Variable {
    writes: Vec<u64>,
    codec: stm::Codec,
    value: Bytes,
}

/// A value, and the session and revision of every write to it since it was created.
struct Value {
    value: Bytes,
    writes: Vec<(u64, u64)>,
}

/// A caller that would create a value.
struct Caller {
    token: u64,
    ttl_ms: u64,
    deadline_ms: u64,
}

/// A lease, as its holder and the clock make it.
struct Lease {
    ttl_ms: u64,
    grace_ms: u64,
    renewal: u64,
    deadline_ms: u64,
}

#[derive(Default)]
pub(crate) struct Model {
    /// The first outcome of each write.
    outcomes: BTreeMap<(u64, u64), Response>,
    /// The highest token of each change source.
    tokens: BTreeMap<Source, u64>,
    /// Tokens that were seen no more after they had been seen.
    ended: BTreeSet<(Source, u64)>,
    /// The present claims, as they were seen after the last entry.
    claims: BTreeMap<Source, (i64, u64)>,
    /// The group of each change source that is in one.
    groups: BTreeMap<Source, String>,
    leases: BTreeMap<u64, Lease>,
    items: BTreeMap<Item, Value>,
    /// Who would create a value, in the order in which they came. The first one may.
    creators: BTreeMap<Item, Vec<Caller>>,
    ids: BTreeMap<String, i64>,
    stored: stored::Model,
    /// The present variables.
    variables: BTreeMap<Key, Variable>,
    last_revision: u64,
}

impl Model {
    pub(crate) fn check(&mut self, entry: &Entry, applied: &Applied, state: &State) {
        self.end_creations(state.header().clock_ms);
        self.stored.expire(state.header().clock_ms);
        for (request, response) in entry.requests.iter().zip(&applied.responses) {
            if self.is_first_outcome(request, response) {
                assert!(response.revision >= self.last_revision, "revisions never fall");
                self.last_revision = response.revision;
                self.check_outcome(request, response, state.header().clock_ms);
                self.check_lease(request, response, state.header().clock_ms);
            }
            self.check_small(response);
            let bytes = request.encode().expect("requests are small").len();
            assert!(bytes <= request.encoded_len_hint(), "{request:?}");
        }
        assert!(state.header().revision >= self.last_revision);
        self.last_revision = state.header().revision;
        self.check_claims(state);
        self.check_deadlines(state);
        self.check_items(state);
        self.check_creators(state);
        self.stored.check_state(applied, state);
        self.check_variables(state);
    }

    /// M3, M6: a renewal counts the ttl, or the grace, from then; shrinking a lease leaves it its grace and never more than it had,
    /// and only by the number of its last renewal.
    fn check_lease(&mut self, request: &Request, response: &Response, clock_ms: u64) {
        use masters::Command as Ask;
        let Command::Masters(command) = &request.command else { return };
        let Ok(Reply::Masters(reply)) = &response.outcome else { return };
        match (command, reply) {
            (Ask::OpenLease { ttl_ms, grace_ms, .. }, masters::Reply::Lease { lease, .. }) => {
                let (ttl_ms, grace_ms, renewal) = (*ttl_ms, *grace_ms, 0);
                let deadline_ms = clock_ms + ttl_ms;
                self.leases.insert(*lease, Lease { ttl_ms, grace_ms, renewal, deadline_ms });
            }
            (Ask::KeepAlive { lease, .. }, masters::Reply::Renewed { ttl_ms, renewal }) => {
                let lease = self.leases.get_mut(lease).expect("it was opened");
                assert!(clock_ms < lease.deadline_ms, "a renewal revived a lease");
                assert_eq!((lease.ttl_ms, lease.renewal + 1), (*ttl_ms, *renewal));
                (lease.renewal, lease.deadline_ms) = (*renewal, clock_ms + ttl_ms);
            }
            (Ask::KeepWithinGrace { lease, .. }, masters::Reply::Renewed { ttl_ms, renewal }) => {
                let lease = self.leases.get_mut(lease).expect("it was opened");
                assert!(clock_ms < lease.deadline_ms && lease.grace_ms > 0);
                assert_eq!((lease.grace_ms, lease.renewal + 1), (*ttl_ms, *renewal));
                (lease.renewal, lease.deadline_ms) = (*renewal, clock_ms + ttl_ms);
            }
            (Ask::ShrinkLease { lease, renewal, .. }, masters::Reply::Shrunk { remaining_ms }) => {
                let lease = self.leases.get_mut(lease).expect("it was opened");
                assert!(clock_ms < lease.deadline_ms && lease.grace_ms > 0);
                assert_eq!(lease.renewal, *renewal, "shrunk by an old renewal");
                lease.deadline_ms = lease.deadline_ms.min(clock_ms + lease.grace_ms);
                assert_eq!(lease.deadline_ms - clock_ms, *remaining_ms);
            }
            _ => {}
        }
    }

    /// M4: what a lease has left is what its renewals, the clock and broken connections have left it.
    fn check_deadlines(&self, state: &State) {
        for namespace in NAMESPACES {
            for master in masters::list(state, namespace).expect("no fault") {
                let Some(lease) = master.lease else { continue };
                let deadline_ms = state.header().clock_ms + master.remaining_ms;
                assert_eq!(deadline_ms, self.leases[&lease].deadline_ms, "{master:?}");
            }
        }
    }

    /// G4: whether the request was run now; if it was before, it must have been answered as then.
    fn is_first_outcome(&mut self, request: &Request, response: &Response) -> bool {
        match (&request.origin, &response.outcome) {
            (None, _) => true,
            (
                Some(_),
                Err(
                    Refusal::StaleSeq { .. }
                    | Refusal::SessionExpired { .. }
                    | Refusal::TooManyUndecided { .. },
                ),
            ) => false,
            (Some(origin), _) => match self.outcomes.get(&(origin.session, origin.seq)) {
                Some(first) => {
                    assert_eq!(first, response, "a retry gets the first outcome: {request:?}");
                    false
                }
                None => {
                    self.outcomes.insert((origin.session, origin.seq), response.clone());
                    true
                }
            },
        }
    }

    fn check_small(&self, response: &Response) {
        let bytes = response.encode().expect("an outcome can be stored");
        assert!(bytes.len() <= limits::OUTCOME_BYTES_MAX);
        assert_eq!(Response::decode(&bytes).as_ref(), Ok(response));
    }

    fn check_outcome(&mut self, request: &Request, response: &Response, clock_ms: u64) {
        let reply = match &response.outcome {
            Ok(reply) => reply,
            Err(refusal) => {
                if let Command::Objects(command) = &request.command {
                    self.stored.check_refusal(command, refusal);
                }
                self.check_creation_lost(request, refusal);
                return self.check_from_future(request, refusal, response.revision);
            }
        };
        match (&request.command, reply) {
            (Command::State(command), Reply::State(reply)) => {
                let session = request.origin.expect("writes have a session").session;
                self.check_state(command, reply, (session, response.revision));
            }
            (Command::ChangeSources(command), Reply::ChangeSources(reply)) => {
                self.check_grant(command, reply, response.revision);
            }
            (Command::Creators(command), Reply::Creators(reply)) => {
                self.check_creation(command, reply, response.revision, clock_ms);
            }
            (Command::Objects(command), Reply::Objects(reply)) => {
                self.stored.check(command, reply, (response.revision, clock_ms));
            }
            (Command::Import(command), Reply::Import(_)) => {
                let session = request.origin.expect("writes have a session").session;
                self.check_import(command, (session, response.revision));
            }
            (Command::Stm(command), Reply::Stm(reply)) => {
                self.check_transaction(command, reply, response.revision);
            }
            (Command::Masters(masters::Command::FindId { namespace, name }), reply) => {
                let Reply::Masters(masters::Reply::Id(id)) = reply else { panic!("{reply:?}") };
                self.check_id(format!("master {namespace}/{name}"), *id);
            }
            (Command::Session(_), Reply::Session(_)) | (Command::Masters(_), Reply::Masters(_)) => {
            }
            (command, reply) => panic!("{command:?} answers {reply:?}"),
        }
    }

    /// S7: whatever was taken in is here, and under its own id.
    fn check_import(&mut self, command: &import::Command, write: (u64, u64)) {
        let namespace = &command.namespace;
        for row in &command.rows {
            match row {
                import::Row::Master { id, name, .. } => {
                    self.check_id(format!("master {namespace}/{name}"), *id);
                }
                import::Row::ChangeSource { id, name, group } => {
                    self.check_id(format!("source {namespace}/{name}"), *id);
                    let source = (namespace.clone(), *id);
                    let present = self.groups.get(&source);
                    assert!(present.is_none() || present == group.as_ref(), "{source:?} moved");
                    self.groups.extend(group.clone().map(|group| (source, group)));
                }
                import::Row::Object { id, name, class_name } => {
                    self.check_id(format!("object {namespace}/{name}/{class_name}"), *id);
                }
                import::Row::Item { object, name, value } => {
                    let item = (namespace.clone(), *object, name.clone());
                    let present = self.items.get(&item).map(|present| &present.value);
                    assert!(present.is_none_or(|present| present == value), "{item:?} overwritten");
                    self.write(&item, value, write);
                }
            }
        }
    }

    /// S1, M1, C1: the same name always has the same id, and no two names of a namespace share one.
    fn check_id(&mut self, name: String, id: i64) {
        let kind = name.split('/').next().expect("a kind and a namespace").to_owned();
        for (other, other_id) in &self.ids {
            let is_same_kind = other.split('/').next() == Some(&kind);
            assert!(!is_same_kind || (*other == name) == (*other_id == id), "{name} {id}, {other}");
        }
        assert!(id > 0);
        self.ids.insert(name, id);
    }

    /// S3, S4: what a write says it did is what it did, and should have done.
    fn check_state(&mut self, command: &state::Command, reply: &state::Reply, write: (u64, u64)) {
        match (command, reply) {
            (
                state::Command::GetObjectId { namespace, name, class_name },
                state::Reply::ObjectId(id),
            ) => self.check_id(format!("object {namespace}/{name}/{class_name}"), *id),
            (
                state::Command::Set {
                    namespace,
                    object,
                    name,
                    value,
                    if_revision,
                    noted_revision,
                    ..
                },
                state::Reply::Written { written, found, value: stands, mod_revision },
            ) => {
                let item = (namespace.clone(), *object, name.clone());
                let lost = self.loses(&item, write.0, *if_revision, *noted_revision);
                assert_eq!(*written, !lost, "{command:?}");
                if *written {
                    assert!(stands.is_none());
                    self.write(&item, value, write);
                } else {
                    self.check_standing(&item, stands.as_ref());
                }
                assert_eq!(*found, self.items.contains_key(&item));
                assert_eq!(*mod_revision, self.mod_revision(&item));
            }
            (
                state::Command::Create { namespace, object, name, value, token, .. },
                state::Reply::Created { created, value: stands, mod_revision },
            ) => {
                let item = (namespace.clone(), *object, name.clone());
                assert_eq!(*created, !self.items.contains_key(&item), "{item:?}");
                if *created {
                    assert!(token.is_none_or(|token| self.creator(&item) == Some(token)), "S5");
                    self.write(&item, value, write);
                } else {
                    self.check_standing(&item, stands.as_ref());
                }
                assert_eq!(*mod_revision, self.mod_revision(&item));
            }
            (
                state::Command::Delete { namespace, object, name, .. },
                state::Reply::Deleted(deleted),
            ) => {
                let removed = self.items.remove(&(namespace.clone(), *object, name.clone()));
                assert_eq!(*deleted, removed.is_some());
            }
            (command, reply) => panic!("{command:?} answers {reply:?}"),
        }
    }

    /// Whether a set loses: to another revision than it names, or to another session's write that it did not
    /// know of.
    fn loses(&self, item: &Item, session: u64, expected: Option<u64>, noted: Option<u64>) -> bool {
        let writes = self.items.get(item).map_or(&[][..], |value| &value.writes);
        match (expected, noted) {
            (Some(expected), _) => self.mod_revision(item) != expected,
            (None, Some(noted)) => {
                writes.iter().any(|(writer, revision)| *writer != session && *revision > noted)
            }
            (None, None) => false,
        }
    }

    fn mod_revision(&self, item: &Item) -> u64 {
        self.items.get(item).and_then(|value| value.writes.last()).map_or(0, |write| write.1)
    }

    /// An equal value is no write.
    fn write(&mut self, item: &Item, value: &Bytes, write: (u64, u64)) {
        let new = || Value { value: value.clone(), writes: vec![] };
        let present = self.items.entry(item.clone()).or_insert_with(new);
        if present.writes.is_empty() || present.value != *value {
            present.value = value.clone();
            present.writes.push(write);
        }
        self.creators.remove(item);
    }

    /// S5: whose time is over goes, and the next one has the right from here on.
    fn end_creations(&mut self, clock_ms: u64) {
        for callers in self.creators.values_mut() {
            let before = callers.first().map(|first| first.token);
            callers.retain(|caller| caller.deadline_ms > clock_ms);
            Model::pass_on(before, callers, clock_ms);
        }
    }

    fn pass_on(before: Option<u64>, callers: &mut [Caller], clock_ms: u64) {
        if let Some(first) = callers.first_mut().filter(|first| Some(first.token) != before) {
            first.deadline_ms = clock_ms + first.ttl_ms;
        }
    }

    fn creator(&self, item: &Item) -> Option<u64> {
        self.creators.get(item)?.first().map(|first| first.token)
    }

    /// S5: of those who would create a value, the first may; who comes later waits, and is told a value.
    fn check_creation(
        &mut self,
        command: &creators::Command,
        reply: &creators::Reply,
        revision: u64,
        clock_ms: u64,
    ) {
        let (creators::Command::Ask { namespace, object, name, .. }
        | creators::Command::Keep { namespace, object, name, .. }
        | creators::Command::Abandon { namespace, object, name, .. }) = command;
        let item = (namespace.clone(), *object, name.clone());
        if let creators::Reply::Exists { mod_revision, value } = reply {
            assert_eq!(*mod_revision, self.mod_revision(&item));
            return self.check_standing(&item, value.as_ref());
        }
        let is_abandoned = matches!(command, creators::Command::Abandon { .. });
        assert!(is_abandoned || !self.items.contains_key(&item), "{command:?} answers {reply:?}");
        let callers = self.creators.entry(item).or_default();
        let place = |token: u64| callers.iter().position(|caller| caller.token == token);
        match (command, reply) {
            (creators::Command::Ask { ttl_ms, .. }, creators::Reply::Creating { token, .. }) => {
                assert!(callers.is_empty() && *token == revision, "{token} is not alone");
                let (ttl_ms, deadline_ms) = (*ttl_ms, clock_ms + ttl_ms);
                callers.push(Caller { token: *token, ttl_ms, deadline_ms });
            }
            (
                creators::Command::Ask { ttl_ms, wait_ms, .. },
                creators::Reply::Waiting { token, ahead },
            ) => {
                assert_eq!((*token, *ahead), (revision, callers.len() as u64));
                let (ttl_ms, deadline_ms) = (*ttl_ms, clock_ms + wait_ms);
                callers.push(Caller { token: *token, ttl_ms, deadline_ms });
            }
            (creators::Command::Keep { token, .. }, creators::Reply::Creating { .. }) => {
                assert_eq!(place(*token), Some(0));
                callers[0].deadline_ms = clock_ms + callers[0].ttl_ms;
            }
            (creators::Command::Keep { token, .. }, creators::Reply::Waiting { ahead, .. }) => {
                assert!(*ahead > 0 && place(*token).map(|place| place as u64) == Some(*ahead));
            }
            (creators::Command::Abandon { token, .. }, creators::Reply::Abandoned(did)) => {
                let before = callers.first().map(|first| first.token);
                assert_eq!(place(*token).is_some(), *did, "{command:?}");
                callers.retain(|caller| caller.token != *token);
                Model::pass_on(before, callers, clock_ms);
            }
            (command, reply) => panic!("{command:?} answers {reply:?}"),
        }
    }

    /// T1, T2: a commit is carried out exactly if all that it compares is as it says, so that no update is lost
    /// and nothing that was read is stale; the comparisons that failed are named.
    fn check_transaction(&mut self, command: &stm::Command, reply: &stm::Reply, revision: u64) {
        let namespace = &command.namespace;
        let stands = |comparison: &stm::Comparison| {
            let writes = self.variables.get(&(namespace.clone(), comparison.key.clone()));
            let writes = writes.map_or(&[][..], |variable| &variable.writes);
            let last = writes.last().copied().unwrap_or(0);
            match comparison.mod_revision {
                Some(named) => last == named,
                None => writes.len() as u64 == comparison.version,
            }
        };
        let failed = (0..).zip(&command.comparisons).filter(|(_, comparison)| !stands(comparison));
        let failed: Vec<u32> = failed.map(|(nth, _)| nth).collect();
        match reply {
            stm::Reply::Committed => assert_eq!(failed, [], "{command:?} at {revision}"),
            stm::Reply::Conflict { failed: named, total } => {
                assert_eq!(*total as usize, failed.len());
                assert!(!failed.is_empty() && named.len() <= limits::CONFLICTS_NAMED_MAX);
                assert!(failed.starts_with(named), "{named:?} of {failed:?}");
                assert!(*named == failed || named.len() == limits::CONFLICTS_NAMED_MAX);
                return;
            }
        }
        for write in &command.writes {
            let key = (namespace.clone(), write.key().clone());
            match write {
                stm::Write::Delete { .. } => {
                    self.variables.remove(&key);
                }
                stm::Write::Put { codec, value, .. } => {
                    let (codec, value) = (*codec, value.clone());
                    let before = self.variables.remove(&key).map(|variable| variable.writes);
                    let writes = before.into_iter().flatten().chain([revision]).collect();
                    self.variables.insert(key, Variable { writes, codec, value });
                }
            }
        }
    }

    /// T2: only a comparison that names what was never there is refused as one from the future.
    fn check_from_future(&self, request: &Request, refusal: &Refusal, revision: u64) {
        let Refusal::VersionFromFuture { nth, found, .. } = refusal else { return };
        let Command::Stm(command) = &request.command else {
            panic!("{request:?} is refused: {refusal}")
        };
        let nth = usize::try_from(*nth).expect("it is a place");
        let stm::Comparison { key, version, mod_revision } = &command.comparisons[nth];
        let variable = self.variables.get(&(command.namespace.clone(), key.clone()));
        let writes = variable.map_or(&[][..], |variable| &variable.writes);
        let (here, last) = (writes.len() as u64, writes.last().copied().unwrap_or(0));
        let is_from_future = match mod_revision {
            None => *version > here,
            Some(named) => *named > revision || (*named == last && *version != here),
        };
        assert!(is_from_future && (*found == here || *found == last), "{refusal}: {request:?}");
    }

    /// T5: what was committed is what is read; the version counts the writes.
    fn check_variables(&self, state: &State) {
        for namespace in NAMESPACES {
            let page = stm::list(state, namespace, b"", b"").expect("no fault");
            let of_namespace = self.variables.iter().filter(|((of, _), _)| of == namespace);
            let expected: Vec<_> = of_namespace
                .map(|((_, key), Variable { writes, codec, value })| stm::Listed {
                    key: key.to_vec(),
                    found: stm::Found {
                        version: writes.len() as u64,
                        mod_revision: *writes.last().expect("it was written"),
                        codec: *codec,
                        value,
                    },
                })
                .collect();
            assert!(page.items == expected && !page.more, "{namespace}: {:?}", page.items);
        }
    }

    /// S5: only who may not create is told so.
    fn check_creation_lost(&self, request: &Request, refusal: &Refusal) {
        let Refusal::CreationLost { token } = refusal else { return };
        let (may_wait, item) =
            if let Command::State(state::Command::Create { namespace, object, name, .. }) =
                &request.command
            {
                (true, (namespace.clone(), *object, name.clone()))
            } else if let Command::Creators(creators::Command::Keep {
                namespace,
                object,
                name,
                ..
            }) = &request.command
            {
                (false, (namespace.clone(), *object, name.clone()))
            } else {
                panic!("{request:?} is refused: {refusal}")
            };
        assert!(!self.items.contains_key(&item), "there is a value");
        assert_ne!(self.creator(&item), Some(*token), "{refusal}");
        let callers = self.creators.get(&item).map_or(&[][..], Vec::as_slice);
        let waits = callers.iter().any(|caller| caller.token == *token);
        assert!(may_wait || !waits, "{refusal}");
    }

    /// S5: the queues are the same.
    fn check_creators(&mut self, state: &State) {
        self.creators.retain(|_, callers| !callers.is_empty());
        for ((namespace, object, name), callers) in &self.creators {
            let found = creators::callers(state, namespace, *object, name).expect("no fault");
            let tokens: Vec<u64> = callers.iter().map(|caller| caller.token).collect();
            assert_eq!(found, tokens, "{namespace}/{object}/{name}");
        }
    }

    fn check_standing(&self, item: &Item, stands: Option<&Bytes>) {
        let value = self.items.get(item).map(|value| &value.value);
        let small = value.filter(|value| value.len() <= limits::REPLY_VALUE_BYTES_MAX);
        assert_eq!(small, stands);
    }

    /// C5: each grant's token is above all before it; a repeated claim gets the present one.
    fn check_grant(
        &mut self,
        command: &changesources::Command,
        reply: &changesources::Reply,
        revision: u64,
    ) {
        let (namespace, changesource) = match command {
            changesources::Command::FindId { namespace, name } => {
                let changesources::Reply::Id(id) = reply else { panic!("{reply:?}") };
                return self.check_id(format!("source {namespace}/{name}"), *id);
            }
            changesources::Command::SetMaster { namespace, changesource, .. }
            | changesources::Command::Claim { namespace, changesource, .. }
            | changesources::Command::Release { namespace, changesource, .. }
            | changesources::Command::Await { namespace, changesource, .. }
            | changesources::Command::StopAwaiting { namespace, changesource, .. } => {
                (namespace.clone(), *changesource)
            }
            changesources::Command::SetGroup { namespace, changesource, group } => {
                let changesources::Reply::GroupSet(changed) = reply else { panic!("{reply:?}") };
                let source = (namespace.clone(), *changesource);
                let before = match group {
                    Some(group) => self.groups.insert(source, group.clone()),
                    None => self.groups.remove(&source),
                };
                return assert_eq!(*changed, before != *group, "{command:?}");
            }
        };
        if let changesources::Reply::Granted { token } = reply {
            let source = (namespace, changesource);
            let highest = self.tokens.entry(source.clone()).or_default();
            // A repeated claim, or one that was granted to who waited, names an earlier grant.
            let is_repeatable = matches!(
                command,
                changesources::Command::Claim { .. } | changesources::Command::Await { .. }
            );
            assert!(*token == revision || is_repeatable && *token < revision, "token {token}");
            assert!(*token >= *highest, "{token} behind {highest}");
            assert!(!self.ended.contains(&(source, *token)), "token {token} is back");
            *highest = *token;
        }
    }

    /// C4: nobody reads a change source as owned by two, or by a master whose lease has lapsed.
    fn check_claims(&mut self, state: &State) {
        let clock_ms = state.header().clock_ms;
        let is_due = state.next_deadline_ms().is_some_and(|due_ms| due_ms <= clock_ms);
        let mut claims = BTreeMap::new();
        for namespace in NAMESPACES {
            let sources = changesources::list(state, namespace, None, None).expect("no fault");
            let mut owned: BTreeMap<i64, u32> = BTreeMap::new();
            for changesource in &sources {
                let Some(claimant) = &changesource.claimant else {
                    // C6: nothing is free that somebody waits for, once all that is due is done.
                    let waiting = changesources::waiting(state, namespace, changesource.id);
                    let waiting = waiting.expect("no fault");
                    assert!(waiting.is_empty() || is_due, "{waiting:?} wait for {changesource:?}");
                    continue;
                };
                let source = (namespace.to_owned(), changesource.id);
                *owned.entry(claimant.master).or_default() += 1;
                // It may have been granted to who waited, which is no reply.
                let highest = self.tokens.entry(source.clone()).or_default();
                assert!(claimant.token >= *highest, "{claimant:?} behind {highest}");
                assert!(claimant.token <= state.header().revision, "{claimant:?}");
                *highest = claimant.token;
                let master = masters::get(state, namespace, claimant.master);
                let master = master.expect("no fault").expect("an owner");
                assert_eq!(master.lease, claimant.lease);
                assert_eq!(claimant.lease.is_some(), claimant.remaining_ms > 0);
                claims.insert(source, (claimant.master, claimant.token));
            }
            self.check_groups(state, namespace, &sources);
            for master in masters::list(state, namespace).expect("no fault") {
                assert_eq!(owned.get(&master.id).copied().unwrap_or(0), master.claims);
                assert!(master.lease.is_none() || (master.active && master.remaining_ms > 0));
            }
        }
        for (source, (master, token)) in &self.claims {
            match claims.get(source) {
                Some(now) if now.1 == *token => assert_eq!(now.0, *master, "a token moved"),
                Some(_) | None => {
                    self.ended.insert((source.clone(), *token));
                }
            }
        }
        let came_back = |(source, (_, token)): (&Source, &(i64, u64))| {
            self.ended.contains(&(source.clone(), *token))
        };
        assert!(!claims.iter().any(came_back), "a token came back");
        self.claims = claims;
    }

    /// C7: all change sources of a group have one owner, one token and one queue, or none.
    fn check_groups(&self, state: &State, namespace: &str, sources: &[ChangeSource]) {
        let mut grants = BTreeMap::new();
        for ChangeSource { id, claimant, group, .. } in sources {
            assert_eq!(self.groups.get(&(namespace.to_owned(), *id)), group.as_ref());
            let Some(group) = group else { continue };
            let grant = claimant.as_ref().map(|claimant| (claimant.master, claimant.token));
            let waiting = changesources::waiting(state, namespace, *id).expect("no fault");
            let of_this = (grant, waiting);
            let of_group = grants.entry(group).or_insert_with(|| of_this.clone());
            assert_eq!(*of_group, of_this, "{id} of {group} is apart from the others");
        }
    }

    /// S2: what was written is what is read.
    fn check_items(&self, state: &State) {
        let mut items = BTreeMap::new();
        for namespace in NAMESPACES {
            for object in state::list_objects(state, namespace, 0, 0).expect("no fault").items {
                let page = state::list(state, namespace, object.id, "", 0).expect("no fault");
                for item in page.expect("an object").items {
                    items.insert((namespace.to_owned(), object.id, item.name), item.value.into());
                }
            }
        }
        let written = self.items.iter().map(|(item, value)| (item.clone(), value.value.clone()));
        assert!(items.into_iter().eq(written), "what is read is not what was written");
    }
}
