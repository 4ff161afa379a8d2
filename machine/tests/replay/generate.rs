//! Makes random entries. Names, ids and clients are few, so that requests meet often.

use holdfast_machine::changesources::{self, Fence};
use holdfast_machine::{
    Applied, Bytes, Command, Entry, Origin, Reply, Request, State, creators, import, limits,
    masters, objects, sessions, state, stm,
};

use crate::random::Random;
use crate::stored::Clients;

/// What a log entry is to carry.
pub(crate) enum Made {
    Blank,
    Membership(Vec<u8>),
    Batch(Entry),
}

/// A client as it sees itself.
#[derive(Clone, Default)]
struct Client {
    session: u64,
    next_seq: u64,
    first_incomplete: u64,
    /// What it has sent, to be sent again.
    sent: Vec<Request>,
}

pub(crate) struct Generator {
    random: Random,
    clients: Vec<Client>,
    clock_ms: u64,
    leases: Vec<u64>,
    /// Leases, and the numbers of their renewals.
    renewals: Vec<(u64, u64)>,
    tokens: Vec<u64>,
    /// Which change sources were waited for, and with which lease.
    places: Vec<(String, i64, u64)>,
    /// Where somebody asked for the right to create, and under which token.
    creations: Vec<(String, i64, String, u64)>,
    revisions: Vec<u64>,
    stored: Clients,
    /// What variables were when somebody read them, to be compared with.
    read: Vec<(String, stm::Comparison)>,
    /// Whether so many leases lapse together that one entry cannot end them all.
    has_many_leases: bool,
}

impl Generator {
    pub(crate) fn new(random: Random, has_many_leases: bool) -> Self {
        Generator {
            random,
            clients: vec![Client::default(); 4],
            clock_ms: 0,
            leases: vec![],
            renewals: vec![],
            tokens: vec![],
            places: vec![],
            creations: vec![],
            revisions: vec![],
            stored: Clients::default(),
            read: vec![],
            has_many_leases,
        }
    }

    pub(crate) fn next(&mut self, state: &State) -> Made {
        match self.random.below(40) {
            0 => return Made::Blank,
            1 => return Made::Membership(self.random.next().to_le_bytes().to_vec()),
            _ => {}
        }
        self.clock_ms = match self.random.below(30) {
            0 => self.clock_ms + self.random.below(20_000),
            1 => self.clock_ms.saturating_sub(500),
            2..=4 => state.next_deadline_ms().unwrap_or(0).max(self.clock_ms),
            _ => self.clock_ms + self.random.below(200),
        };
        let wall_ms = 1_700_000_000_000 + self.random.below(1_000_000);
        let count = if self.has_many_leases { 12 } else { self.random.below(7) };
        let requests = (0..count).map(|_| self.request(state)).collect();
        Made::Batch(Entry { clock_ms: self.clock_ms, wall_ms, requests })
    }

    /// Takes in what the clients get to know.
    pub(crate) fn learn(&mut self, entry: &Entry, applied: &Applied) {
        for (request, response) in entry.requests.iter().zip(&applied.responses) {
            self.revisions.push(response.revision);
            match &response.outcome {
                Ok(Reply::Session(sessions::Reply::Opened { session, .. })) => {
                    let slot = self.random.below(self.clients.len() as u64);
                    let fresh = Client {
                        session: *session,
                        next_seq: 1,
                        first_incomplete: 1,
                        sent: vec![],
                    };
                    *self.client(slot) = fresh;
                }
                Ok(Reply::Masters(masters::Reply::Lease { lease, .. })) => {
                    self.leases.push(*lease);
                    self.renewals.push((*lease, 0));
                }
                Ok(Reply::Masters(masters::Reply::Renewed { renewal, .. })) => {
                    if let Command::Masters(
                        masters::Command::KeepAlive { lease, .. }
                        | masters::Command::KeepWithinGrace { lease, .. },
                    ) = request.command
                    {
                        self.renewals.push((lease, *renewal));
                    }
                }
                Ok(Reply::ChangeSources(changesources::Reply::Granted { token })) => {
                    self.tokens.push(*token);
                }
                Ok(Reply::ChangeSources(changesources::Reply::Waiting { .. })) => {
                    if let Command::ChangeSources(changesources::Command::Await {
                        namespace,
                        changesource,
                        lease,
                    }) = &request.command
                    {
                        self.places.push((namespace.clone(), *changesource, *lease));
                    }
                }
                Ok(Reply::Creators(
                    creators::Reply::Creating { token, .. }
                    | creators::Reply::Waiting { token, .. },
                )) => {
                    if let Command::Creators(creators::Command::Ask {
                        namespace,
                        object,
                        name,
                        ..
                    }) = &request.command
                    {
                        let creation = (namespace.clone(), *object, name.clone(), *token);
                        self.creations.push(creation);
                    }
                }
                Ok(Reply::Objects(reply)) => {
                    if let Command::Objects(command) = &request.command {
                        self.stored.learn(command, reply);
                    }
                }
                Ok(_) | Err(_) => {}
            }
            if let Some(origin) = request.origin
                && let Some(client) =
                    self.clients.iter_mut().find(|client| client.session == origin.session)
                && origin.seq == client.first_incomplete
            {
                client.first_incomplete += 1;
            }
        }
    }

    fn client(&mut self, slot: u64) -> &mut Client {
        &mut self.clients[usize::try_from(slot).expect("it is small")]
    }

    fn request(&mut self, state: &State) -> Request {
        let slot = self.random.below(self.clients.len() as u64);
        let Client { session, next_seq, mut first_incomplete, .. } = *self.client(slot);
        if session == 0 || self.random.one_in(30) {
            let command = self.session_command(session);
            return Request { origin: None, command: Command::Session(command) };
        }
        if self.random.one_in(5) {
            let sent = &self.clients[usize::try_from(slot).expect("it is small")].sent;
            // A late one, more often: it may not have been answered yet.
            let late = if self.random.one_in(3) { 0 } else { sent.len().saturating_sub(4) };
            if let Some(mut again) = self.random.pick(&sent[late..]).cloned() {
                if let Some(origin) = &mut again.origin {
                    origin.resent = true;
                }
                return again;
            }
        }
        let seq = match self.random.below(25) {
            0 => self.random.below(next_seq + 3),
            _ => next_seq,
        };
        if self.random.one_in(25) {
            first_incomplete = self.random.below(next_seq + 2);
        }
        let origin = Origin { session, seq, first_incomplete, resent: false };
        let command = self.command(state);
        let is_of_nodes = matches!(
            command,
            Command::Masters(masters::Command::ShrinkLease { .. })
                | Command::Objects(
                    objects::Command::StageChunk { .. } | objects::Command::StageObjects { .. }
                )
        );
        let origin = (!is_of_nodes && !self.random.one_in(200)).then_some(origin);
        let mut request = Request { origin, command };
        if self.random.one_in(2) {
            // Half of all requests come by way of the leader's admission, with its notes.
            let _ = state.admit(&mut request);
        }
        let client = self.client(slot);
        if !is_of_nodes {
            client.next_seq = client.next_seq.max(seq + 1);
        }
        client.sent.push(request.clone());
        request
    }

    fn session_command(&mut self, session: u64) -> sessions::Command {
        match self.random.below(12) {
            0 => sessions::Command::Close { session },
            1 | 2 => sessions::Command::Keep { session },
            3 => sessions::Command::Open { idle_ms: 1 },
            _ => sessions::Command::Open {
                idle_ms: limits::SESSION_IDLE_MS_MIN + self.random.below(20_000),
            },
        }
    }

    fn command(&mut self, state: &State) -> Command {
        let of_leases = if self.has_many_leases { 8 } else { 4 };
        match self.random.below(17 + of_leases) {
            0..4 => Command::State(self.state_command()),
            4..8 => Command::ChangeSources(self.changesource_command()),
            8..10 => self.creation_command(),
            10 => Command::Import(self.import_command()),
            11..15 => Command::Objects(self.stored.command(&mut self.random)),
            15..17 => Command::Stm(self.transaction(state)),
            _ => Command::Masters(self.master_command()),
        }
    }

    fn state_command(&mut self) -> state::Command {
        let namespace = self.namespace();
        // Some write what others would create.
        let kind = if self.random.one_in(6) { "created" } else { "key" };
        let (object, name) = (self.id(), self.name(kind, 3));
        let (value, fence) = (self.value(), self.fence());
        match self.random.below(10) {
            0 | 1 => {
                let (name, class_name) = (self.name("object", 2), self.name("class", 2));
                state::Command::GetObjectId { namespace, name, class_name }
            }
            2 => state::Command::Delete { namespace, object, name, fence },
            3 | 4 => state::Command::Create { namespace, object, name, value, fence, token: None },
            _ => {
                let if_revision = self.random.one_in(4).then(|| self.revision());
                let noted_revision = self.random.one_in(3).then(|| self.revision());
                let item = (namespace, object, name, value);
                let (namespace, object, name, value) = item;
                state::Command::Set {
                    namespace,
                    object,
                    name,
                    value,
                    if_revision,
                    fence,
                    noted_revision,
                }
            }
        }
    }

    /// What those do who would create a value: ask, and then renew, give up or write it.
    fn creation_command(&mut self) -> Command {
        let late = self.creations.len().saturating_sub(8);
        let known = self.random.pick(&self.creations[late..]).cloned();
        let Some((namespace, object, name, token)) = known.filter(|_| !self.random.one_in(2))
        else {
            let (namespace, object, name) = (self.namespace(), self.id(), self.name("created", 3));
            let ttl_ms = limits::CREATE_TTL_MS_MIN - 1 + self.random.below(1_000);
            let wait_ms = self.random.below(2_000);
            return Command::Creators(creators::Command::Ask {
                namespace,
                object,
                name,
                ttl_ms,
                wait_ms,
            });
        };
        match self.random.below(7) {
            0 => Command::Creators(creators::Command::Abandon { namespace, object, name, token }),
            1 | 2 => {
                let (value, fence, token) = (self.value(), self.fence(), Some(token));
                Command::State(state::Command::Create {
                    namespace,
                    object,
                    name,
                    value,
                    fence,
                    token,
                })
            }
            3 => {
                let fence = None;
                Command::State(state::Command::Delete { namespace, object, name, fence })
            }
            _ => Command::Creators(creators::Command::Keep { namespace, object, name, token }),
        }
    }

    /// Rows whose names and ids often are somebody's already, mostly in this way and sometimes in another.
    fn import_command(&mut self) -> import::Command {
        let (namespace, count) = (self.namespace(), 1 + self.random.below(3));
        let rows = (0..count).map(|_| {
            let number = self.random.below(4);
            let id = 1 + number.cast_signed() + i64::from(self.random.one_in(20));
            match self.random.below(4) {
                0 => {
                    import::Row::Master { id, name: format!("master-{number}"), last_active_ms: 7 }
                }
                1 => {
                    let group = self.random.one_in(5).then(|| self.name("group", 2));
                    import::Row::ChangeSource { id, name: format!("source-{number}"), group }
                }
                2 => {
                    let name = format!("imported-{number}");
                    import::Row::Object { id: id + 10, name, class_name: "class-0".to_owned() }
                }
                _ => {
                    let (object, name) = (self.id() + 10, self.name("key", 3));
                    import::Row::Item { object, name, value: self.value() }
                }
            }
        });
        let rows = rows.collect();
        import::Command { namespace, rows }
    }

    /// What transactions do: they compare what they have read, now or a while ago, and write some of it.
    fn transaction(&mut self, state: &State) -> stm::Command {
        let namespace = self.namespace();
        for _ in 0..2 {
            let key = self.variable();
            let found = stm::get(state, &namespace, &key).expect("no fault");
            let (version, revision) =
                found.map_or((0, 0), |found| (found.version, found.mod_revision));
            let mod_revision = (!self.random.one_in(4)).then_some(revision);
            self.read.push((namespace.clone(), stm::Comparison { key, version, mod_revision }));
        }
        let mut comparisons: Vec<stm::Comparison> = Vec::new();
        for _ in 0..self.random.below(4) {
            let late = self.read.len().saturating_sub(if self.random.one_in(4) { 30 } else { 4 });
            let Some((of, comparison)) = self.random.pick(&self.read[late..]).cloned() else {
                break;
            };
            let is_there = comparisons.iter().any(|other| other.key == comparison.key);
            if of == namespace && (!is_there || self.random.one_in(20)) {
                comparisons.push(comparison);
            }
        }
        if let Some(first) = comparisons.first_mut().filter(|_| self.random.one_in(30)) {
            first.version += self.random.below(3);
            first.mod_revision = first.mod_revision.map(|revision| revision + self.random.below(3));
        }
        let mut writes: Vec<stm::Write> = Vec::new();
        for _ in 0..self.random.below(4) {
            let key = self.variable();
            if writes.iter().any(|write| *write.key() == key) && !self.random.one_in(20) {
                continue;
            }
            let put = |value| stm::Write::Put { key: key.clone(), codec: stm::Codec::Json, value };
            writes.push(match self.random.below(40) {
                0..6 => stm::Write::Delete { key },
                6 => put(vec![7; limits::VALUE_BYTES_MAX + 1].into()),
                _ => put(self.value()),
            });
        }
        if self.random.one_in(60) {
            let keys = 0..limits::TRANSACTION_KEYS_MAX as u64 + self.random.below(2);
            let read = |key: u64| stm::Comparison {
                key: key.to_be_bytes().as_slice().into(),
                version: 0,
                mod_revision: None,
            };
            comparisons = keys.map(read).collect();
            writes.clear();
        }
        stm::Command { namespace, comparisons, writes }
    }

    /// The key of one of a few variables; once in a while it is too long.
    fn variable(&mut self) -> Bytes {
        self.name("variable", 4).into_bytes().into()
    }

    fn master_command(&mut self) -> masters::Command {
        let namespace = self.namespace();
        let of_leases = if self.has_many_leases { 30 } else { 4 };
        match self.random.below(8 + of_leases) {
            0 => masters::Command::FindId { namespace, name: self.name("master", 4) },
            1 => {
                let active = self.random.one_in(2);
                masters::Command::SetState { namespace, master: self.id(), active }
            }
            2 | 3 if self.random.one_in(4) => {
                masters::Command::KeepWithinGrace { namespace, lease: self.lease() }
            }
            2 | 3 => masters::Command::KeepAlive { namespace, lease: self.lease() },
            4 => masters::Command::CloseLease { namespace, lease: self.lease() },
            5 => masters::Command::OpenLease {
                namespace,
                name: self.name("master", 4),
                instance: [7; 32],
                ttl_ms: self.random.below(600),
                grace_ms: self.random.below(600),
            },
            6 | 7 => {
                let late = self.renewals.len().saturating_sub(6);
                let (lease, renewal) =
                    self.random.pick(&self.renewals[late..]).copied().unwrap_or((1, 0));
                masters::Command::ShrinkLease { namespace, lease, renewal }
            }
            _ => {
                let names = if self.has_many_leases { 300 } else { 4 };
                let instance = [u8::from(self.random.one_in(3)); 32];
                let name = self.name("master", names);
                let more_ms = self.random.below(4_000);
                let ttl_ms = limits::LEASE_TTL_MS_MIN + more_ms;
                let grace_ms = limits::LEASE_GRACE_MS_MIN + self.random.below(more_ms + 1);
                let grace_ms = if self.random.one_in(2) { grace_ms } else { 0 };
                masters::Command::OpenLease { namespace, name, instance, ttl_ms, grace_ms }
            }
        }
    }

    fn changesource_command(&mut self) -> changesources::Command {
        let (namespace, changesource) = (self.namespace(), self.id());
        match self.random.below(13) {
            0 => changesources::Command::FindId { namespace, name: self.name("source", 4) },
            1 | 2 => {
                let master = (!self.random.one_in(4)).then(|| self.id());
                changesources::Command::SetMaster { namespace, changesource, master }
            }
            3 => {
                let token = self.random.pick(&self.tokens).copied().unwrap_or(1);
                changesources::Command::Release { namespace, changesource, token }
            }
            4 | 5 => changesources::Command::Await { namespace, changesource, lease: self.lease() },
            6 => {
                let stray = (namespace, changesource, self.lease());
                let late = self.places.len().saturating_sub(3);
                let place = self.random.pick(&self.places[late..]).cloned();
                let (namespace, changesource, lease) = place.unwrap_or(stray);
                changesources::Command::StopAwaiting { namespace, changesource, lease }
            }
            7 | 8 => {
                let group = (!self.random.one_in(4)).then(|| self.name("group", 2));
                changesources::Command::SetGroup { namespace, changesource, group }
            }
            _ => changesources::Command::Claim { namespace, changesource, lease: self.lease() },
        }
    }

    fn namespace(&mut self) -> String {
        if self.random.one_in(10) { "other".to_owned() } else { "default".to_owned() }
    }

    /// One of a few names; once in a while one that is too long.
    fn name(&mut self, kind: &str, names: u64) -> String {
        match self.random.below(150) {
            0 => kind.repeat(limits::NAME_BYTES_MAX),
            1 => format!("{kind}\0with\0zeros"),
            _ => format!("{kind}-{}", self.random.below(names)),
        }
    }

    fn id(&mut self) -> i64 {
        let id = if self.random.one_in(30) { 0 } else { 1 + self.random.below(5) };
        id.cast_signed()
    }

    fn value(&mut self) -> Bytes {
        let len = if self.random.one_in(20) { 3000 } else { 2 };
        vec![b'a' + u8::from(self.random.one_in(2)); len].into()
    }

    fn fence(&mut self) -> Option<Fence> {
        let token = self.random.pick(&self.tokens).copied().unwrap_or(1);
        let fence = Fence { changesource: self.id(), token };
        self.random.one_in(8).then_some(fence)
    }

    /// A lease, more often a late one.
    fn lease(&mut self) -> u64 {
        let late = self.leases.len().saturating_sub(6);
        let from = if self.random.one_in(5) { &self.leases } else { &self.leases[late..] };
        self.random.pick(from).copied().unwrap_or(1)
    }

    fn revision(&mut self) -> u64 {
        self.random.pick(&self.revisions).copied().unwrap_or(0)
    }
}
