//! A node that says what a test tells it to, and remembers what it was asked.
//!
//! It serves the generated services on a real TCP port. Without a script it grants whatever it is
//! asked; a script sees each call first and may answer, refuse, delay or swallow it, or break all
//! connections. Clients reach it through a forwarder, whose connections can be cut.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_client::{Client, ClientConfig};
use holdfast_proto::v1;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::shelf::Shelf;

pub(crate) const CLUSTER: &str = "0192f0c1-2c5e-7000-8000-000000000001";
/// Longest time that a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a script does with a call.
pub(crate) enum Action {
    /// Grants it, as without a script.
    Default,
    /// Answers with this response.
    Reply(Box<dyn Any + Send>),
    Fail(Box<Status>),
    /// Never answers.
    Hang,
    /// Cuts all connections to the node, without an answer.
    Cut,
    /// Carries it out, and then does this instead of answering.
    Unsaid(Box<Action>),
    /// Waits for the gate to open, then does the rest.
    Wait(Gate, Box<Action>),
}

impl Action {
    pub(crate) fn reply(response: impl Any + Send) -> Action {
        Action::Reply(Box::new(response))
    }

    pub(crate) fn fail(status: Status) -> Action {
        Action::Fail(Box::new(status))
    }
}

/// Closed until it is opened, then open for good.
#[derive(Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn closed() -> Gate {
        Gate(watch::Sender::new(false))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        self.0.subscribe().wait_for(|is_open| *is_open).await.unwrap();
    }
}

/// One call as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) call: &'static str,
    pub(crate) context: Option<v1::WriteContext>,
    pub(crate) timeout: Duration,
    /// Value of a write, name of a read.
    pub(crate) text: String,
    /// How many calls of this name came before it.
    pub(crate) earlier: usize,
}

impl Seen {
    pub(crate) fn seq(&self) -> u64 {
        self.context.unwrap().seq
    }

    pub(crate) fn is_resent(&self) -> bool {
        self.context.unwrap().resent
    }
}

type Script = Box<dyn FnMut(&Seen) -> Action + Send>;

pub(crate) struct Node {
    /// Where clients reach it.
    pub(crate) address: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    header: Mutex<v1::ResponseHeader>,
    script: Mutex<Option<Script>>,
    seen: Mutex<Vec<Seen>>,
    has_seen: Notify,
    /// Rises with every cut.
    cuts: watch::Sender<u64>,
    sessions: AtomicU64,
    session_idle_ms: AtomicU64,
    values: Mutex<HashMap<String, (Vec<u8>, u64)>>,
    variables: Mutex<Variables>,
}

#[derive(Default)]
struct Variables {
    by_key: HashMap<Vec<u8>, v1::Variable>,
    /// What came of the commits that were carried out, by session and seq.
    outcomes: HashMap<(u64, u64), v1::CommitResponse>,
}

impl Node {
    pub(crate) async fn start(node_id: u64) -> Node {
        Node::start_with(node_id, None).await
    }

    /// One that also keeps objects.
    pub(crate) async fn start_with(node_id: u64, shelf: Option<Shelf>) -> Node {
        let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = inside.local_addr().unwrap();
        let address = outside.local_addr().unwrap().to_string();
        let header = v1::ResponseHeader {
            cluster_id: CLUSTER.to_owned(),
            node_id,
            revision: 1,
            term: 1,
            leader_id: 0,
            leader_endpoint: String::new(),
        };
        let shared = Arc::new(Shared {
            header: Mutex::new(header),
            script: Mutex::new(None),
            seen: Mutex::new(Vec::new()),
            has_seen: Notify::new(),
            cuts: watch::Sender::new(0),
            sessions: AtomicU64::new(100 * node_id),
            session_idle_ms: AtomicU64::new(600_000),
            values: Mutex::new(HashMap::new()),
            variables: Mutex::default(),
        });
        let fake = Fake(shared.clone());
        let routes = tonic::transport::Server::builder()
            .add_service(v1::state_server::StateServer::new(fake.clone()))
            .add_service(v1::masters_server::MastersServer::new(fake.clone()))
            .add_service(v1::change_sources_server::ChangeSourcesServer::new(fake.clone()))
            .add_service(v1::stm_server::StmServer::new(fake.clone()))
            .add_service(v1::cluster_server::ClusterServer::new(fake))
            .add_optional_service(shelf.map(|shelf| {
                // Objects come in messages of 1 MiB, and what names them.
                v1::objects_server::ObjectsServer::new(shelf)
            }));
        let mut tasks = JoinSet::new();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(inside);
        tasks.spawn(async move { routes.serve_with_incoming(incoming).await.unwrap() });
        let cuts = shared.cuts.clone();
        tasks.spawn(forward_all(outside, target, cuts));
        Node { address, shared, _tasks: tasks }
    }

    /// Puts `script` in front of all further calls.
    pub(crate) fn script(&self, script: impl FnMut(&Seen) -> Action + Send + 'static) {
        *self.shared.script.lock().unwrap() = Some(Box::new(script));
    }

    /// Changes the header of all further responses.
    pub(crate) fn header(&self, change: impl FnOnce(&mut v1::ResponseHeader)) {
        change(&mut self.shared.header.lock().unwrap());
    }

    /// Names the leader in all further responses.
    pub(crate) fn hint(&self, leader: &Node, term: u64) {
        let leader_id = leader.shared.header.lock().unwrap().node_id;
        self.header(|header| {
            header.leader_id = leader_id;
            header.leader_endpoint = leader.address.clone();
            header.term = term;
        });
    }

    pub(crate) fn grant_session_idle(&self, idle: Duration) {
        let idle_ms = u64::try_from(idle.as_millis()).unwrap();
        self.shared.session_idle_ms.store(idle_ms, Ordering::Relaxed);
    }

    /// A status as a node makes it, with this node's header.
    pub(crate) fn status(&self, code: Code, reason: &str, applied: &str) -> Status {
        let header = self.shared.header.lock().unwrap().clone();
        status(&header, code, reason, applied)
    }

    pub(crate) fn no_leader(&self) -> Status {
        self.status(Code::Unavailable, "NO_LEADER", "no")
    }

    /// The calls of this name so far.
    pub(crate) fn seen(&self, call: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.call == call).cloned().collect()
    }

    /// Waits until the node has got this many calls of this name, and returns them.
    pub(crate) async fn await_seen(&self, call: &str, count: usize) -> Vec<Seen> {
        let wait = async {
            loop {
                let has_seen = self.shared.has_seen.notified();
                tokio::pin!(has_seen);
                has_seen.as_mut().enable();
                let seen = self.seen(call);
                if seen.len() >= count {
                    return seen;
                }
                has_seen.await;
            }
        };
        in_time(wait).await
    }
}

/// A status with the details that every node attaches.
pub(crate) fn status(
    header: &v1::ResponseHeader,
    code: Code,
    reason: &str,
    applied: &str,
) -> Status {
    status_with(header, code, reason, &[("applied", applied), ("detail", "17")])
}

/// As [`status`] for what was not applied, with further fields.
pub(crate) fn status_with(
    header: &v1::ResponseHeader,
    code: Code,
    reason: &str,
    fields: &[(&str, &str)],
) -> Status {
    let mut metadata = HashMap::from([
        ("applied".to_owned(), "no".to_owned()),
        ("cluster_id".to_owned(), header.cluster_id.clone()),
        ("node_id".to_owned(), header.node_id.to_string()),
        ("revision".to_owned(), header.revision.to_string()),
        ("term".to_owned(), header.term.to_string()),
        ("leader_id".to_owned(), header.leader_id.to_string()),
        ("leader_endpoint".to_owned(), header.leader_endpoint.clone()),
    ]);
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    metadata.extend(fields);
    let details = ErrorDetails::with_error_info(reason, "holdfast", metadata);
    Status::with_error_details(code, format!("{reason} said node {}", header.node_id), details)
}

/// A client of these nodes, with time-outs that suit a test: 10 s for a call, 100 ms before the
/// second copy.
pub(crate) fn client(nodes: &[&Node]) -> Client {
    client_of(nodes.iter().map(|node| node.address.clone()).collect())
}

pub(crate) fn client_of(endpoints: Vec<String>) -> Client {
    Client::connect(ClientConfig {
        endpoints,
        call_timeout: Duration::from_secs(10),
        attempt_timeout: Duration::from_millis(100),
        ..ClientConfig::default()
    })
}

/// An address where nothing listens.
pub(crate) async fn closed_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// What must come, within bounds.
pub(crate) async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.expect("it takes too long")
}

async fn forward_all(
    listener: TcpListener,
    target: std::net::SocketAddr,
    cuts: watch::Sender<u64>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut cut = cuts.subscribe();
        connections.spawn(async move {
            let mut server = TcpStream::connect(target).await.unwrap();
            // Small messages in both directions would wait for each other's acknowledgements.
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

#[derive(Clone)]
struct Fake(Arc<Shared>);

impl Fake {
    async fn serve<Q, R>(
        &self,
        call: &'static str,
        request: Request<Q>,
    ) -> Result<Response<R>, Status>
    where
        Q: Any + Send,
        R: Any + Send,
    {
        let timeout = timeout_of(&request);
        let request: Box<dyn Any + Send> = Box::new(request.into_inner());
        let (context, text) = describe(&*request);
        let mut action = {
            let mut seen = self.0.seen.lock().unwrap();
            let earlier = seen.iter().filter(|seen| seen.call == call).count();
            let this = Seen { call, context, timeout, text, earlier };
            seen.push(this.clone());
            drop(seen);
            match self.0.script.lock().unwrap().as_mut() {
                Some(script) => script(&this),
                None => Action::Default,
            }
        };
        self.0.has_seen.notify_waiters();
        loop {
            action = match action {
                Action::Default => Action::Reply(self.grant(&*request)?),
                Action::Reply(response) => {
                    let mut response = response.downcast::<R>().expect("the call's own response");
                    self.put_header(&mut *response);
                    return Ok(Response::new(*response));
                }
                Action::Fail(status) => return Err(*status),
                Action::Unsaid(then) => {
                    self.grant(&*request)?;
                    *then
                }
                Action::Hang => std::future::pending().await,
                Action::Cut => {
                    self.0.cuts.send_modify(|cuts| *cuts += 1);
                    Action::Hang
                }
                Action::Wait(gate, then) => {
                    gate.passed().await;
                    *then
                }
            };
        }
    }

    /// What a small and willing cluster answers.
    fn grant(&self, request: &dyn Any) -> Result<Box<dyn Any + Send>, Status> {
        if let Some(request) = request.downcast_ref::<v1::SetStateRequest>() {
            return Ok(Box::new(self.set(request)));
        }
        if let Some(request) = request.downcast_ref::<v1::GetStateRequest>() {
            let values = self.0.values.lock().unwrap();
            let (value, mod_revision) = values.get(&request.name).cloned().unwrap_or_default();
            let found = mod_revision != 0;
            return Ok(Box::new(v1::GetStateResponse { header: None, found, value, mod_revision }));
        }
        if let Some(request) = request.downcast_ref::<v1::CommitRequest>() {
            return Ok(Box::new(self.commit(request)));
        }
        if let Some(request) = request.downcast_ref::<v1::GetVariablesRequest>() {
            let variables = self.0.variables.lock().unwrap();
            let found = |key: &Vec<u8>| {
                let none = v1::Variable { key: key.clone(), ..Default::default() };
                variables.by_key.get(key).cloned().unwrap_or(none)
            };
            let variables = request.keys.iter().map(found).collect();
            return Ok(Box::new(v1::GetVariablesResponse { header: None, variables }));
        }
        if request.is::<v1::OpenSessionRequest>() {
            return Ok(Box::new(v1::OpenSessionResponse {
                header: None,
                session_id: self.0.sessions.fetch_add(1, Ordering::Relaxed),
                idle_ms: self.0.session_idle_ms.load(Ordering::Relaxed),
            }));
        }
        if let Some(request) = request.downcast_ref::<v1::OpenLeaseRequest>() {
            let lease = v1::Lease { lease_id: 5, master_id: 1, ttl_ms: request.ttl_ms };
            let outcome = Some(v1::open_lease_response::Outcome::Lease(lease));
            return Ok(Box::new(v1::OpenLeaseResponse { header: None, outcome }));
        }
        if request.is::<v1::KeepAliveRequest>() {
            return Ok(Box::new(v1::KeepAliveResponse {
                header: None,
                ttl_ms: 3_600_000,
                renewal: 1,
            }));
        }
        if request.is::<v1::CloseLeaseRequest>() {
            return Ok(Box::new(v1::CloseLeaseResponse { header: None, freed: 2 }));
        }
        if request.is::<v1::ClaimRequest>() {
            let outcome = Some(v1::claim_response::Outcome::Token(9));
            return Ok(Box::new(v1::ClaimResponse { header: None, outcome }));
        }
        if request.is::<v1::CloseSessionRequest>() {
            return Ok(Box::new(v1::CloseSessionResponse { header: None }));
        }
        if request.is::<v1::StatusRequest>() {
            return Ok(Box::new(v1::StatusResponse { ready: true, ..Default::default() }));
        }
        if request.is::<v1::RemoveMemberRequest>() {
            return Ok(Box::new(v1::RemoveMemberResponse { header: None }));
        }
        Err(Status::internal("the test does not say what to answer"))
    }

    fn commit(&self, request: &v1::CommitRequest) -> v1::CommitResponse {
        let context = request.context.unwrap();
        let mut variables = self.0.variables.lock().unwrap();
        let Variables { by_key, outcomes } = &mut *variables;
        if let Some(outcome) = outcomes.get(&(context.session_id, context.seq)) {
            return outcome.clone();
        }
        let mut conflicts = Vec::new();
        for wanted in &request.comparisons {
            let none = v1::Variable { key: wanted.key.clone(), ..Default::default() };
            let found = by_key.get(&wanted.key).cloned().unwrap_or(none);
            let is_same = wanted.mod_revision.is_none_or(|revision| revision == found.mod_revision);
            if wanted.version != found.version || !is_same {
                let variable = Some(found);
                conflicts.push(v1::ConflictingVariable { variable, has_value: true });
            }
        }
        let committed = conflicts.is_empty();
        if committed {
            let mut header = self.0.header.lock().unwrap();
            header.revision += 1;
            for write in request.writes.iter().cloned() {
                let version = by_key.get(&write.key).map_or(0, |found| found.version) + 1;
                let v1::VariableWrite { key, delete, codec, value } = write;
                assert!(!delete, "no test of the fake deletes");
                let mod_revision = header.revision;
                let variable =
                    v1::Variable { key: key.clone(), version, mod_revision, codec, value };
                by_key.insert(key, variable);
            }
        }
        let conflicts_total = u32::try_from(conflicts.len()).unwrap();
        let header = Some(self.0.header.lock().unwrap().clone());
        let outcome = v1::CommitResponse { header, committed, conflicts, conflicts_total };
        outcomes.insert((context.session_id, context.seq), outcome.clone());
        outcome
    }

    fn set(&self, request: &v1::SetStateRequest) -> v1::SetStateResponse {
        let mut values = self.0.values.lock().unwrap();
        let (old, mod_revision) = values.get(&request.name).cloned().unwrap_or_default();
        if request.if_revision.is_some_and(|wanted| wanted != mod_revision) {
            let found = mod_revision != 0;
            return v1::SetStateResponse {
                header: None,
                written: false,
                value: old,
                mod_revision,
                found,
            };
        }
        let mut header = self.0.header.lock().unwrap();
        header.revision += 1;
        let mod_revision = header.revision;
        values.insert(request.name.clone(), (request.value.clone(), mod_revision));
        v1::SetStateResponse {
            header: None,
            written: true,
            value: Vec::new(),
            mod_revision,
            found: true,
        }
    }

    fn put_header(&self, response: &mut dyn Any) {
        macro_rules! put {
            ($($response:ident)*) => {$(
                if let Some(response) = response.downcast_mut::<v1::$response>() {
                    response.header = Some(self.0.header.lock().unwrap().clone());
                }
            )*};
        }
        put! {
            SetStateResponse GetStateResponse GetVariablesResponse OpenSessionResponse OpenLeaseResponse
            KeepAliveResponse CloseLeaseResponse ClaimResponse StatusResponse RemoveMemberResponse
        }
    }
}

fn describe(request: &dyn Any) -> (Option<v1::WriteContext>, String) {
    macro_rules! writes {
        ($($request:ident)*) => {$(
            if let Some(request) = request.downcast_ref::<v1::$request>() {
                return (request.context, String::new());
            }
        )*};
    }
    if let Some(request) = request.downcast_ref::<v1::SetStateRequest>() {
        return (request.context, String::from_utf8_lossy(&request.value).into_owned());
    }
    if let Some(request) = request.downcast_ref::<v1::GetStateRequest>() {
        return (None, request.name.clone());
    }
    writes! { CommitRequest OpenLeaseRequest KeepAliveRequest CloseLeaseRequest ClaimRequest KeepSessionRequest }
    (None, String::new())
}

/// tonic writes time-outs in the largest number that has eight digits.
fn timeout_of<Q>(request: &Request<Q>) -> Duration {
    let text = request.metadata().get("grpc-timeout").unwrap().to_str().unwrap();
    let (digits, unit) = text.split_at(text.len() - 1);
    let value: u64 = digits.parse().unwrap();
    match unit {
        "n" => Duration::from_nanos(value),
        "u" => Duration::from_micros(value),
        "m" => Duration::from_millis(value),
        "S" => Duration::from_secs(value),
        other => panic!("unit {other} of a time-out"),
    }
}

macro_rules! service {
    ($service:path {
        $($method:ident($request:ident) -> $response:ident;)*
    } $($more:tt)*) => {
        #[tonic::async_trait]
        impl $service for Fake {
            $(async fn $method(
                &self,
                request: Request<v1::$request>,
            ) -> Result<Response<v1::$response>, Status> {
                self.serve(stringify!($method), request).await
            })*
            $($more)*
        }
    };
}

service! { v1::state_server::State {
    get_object_id(GetObjectIdRequest) -> GetObjectIdResponse;
    get_state(GetStateRequest) -> GetStateResponse;
    get_state_many(GetStateManyRequest) -> GetStateManyResponse;
    set_state(SetStateRequest) -> SetStateResponse;
    create_state(CreateStateRequest) -> CreateStateResponse;
    ask_to_create(AskToCreateRequest) -> AskToCreateResponse;
    keep_creating(KeepCreatingRequest) -> KeepCreatingResponse;
    abandon_creating(AbandonCreatingRequest) -> AbandonCreatingResponse;
    delete_state(DeleteStateRequest) -> DeleteStateResponse;
    list_objects(ListObjectsRequest) -> ListObjectsResponse;
    list_state(ListStateRequest) -> ListStateResponse;
    import(ImportRequest) -> ImportResponse;
}
    type ExportStream = tokio_stream::Empty<Result<v1::ExportResponse, Status>>;

    async fn export(
        &self,
        _request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        Err(Status::unimplemented("no test of the fake reads a stream"))
    }
}

service! { v1::masters_server::Masters {
    find_master_id(FindMasterIdRequest) -> FindMasterIdResponse;
    set_master_state(SetMasterStateRequest) -> SetMasterStateResponse;
    get_master(GetMasterRequest) -> GetMasterResponse;
    list_masters(ListMastersRequest) -> ListMastersResponse;
    open_lease(OpenLeaseRequest) -> OpenLeaseResponse;
    keep_alive(KeepAliveRequest) -> KeepAliveResponse;
    close_lease(CloseLeaseRequest) -> CloseLeaseResponse;
}
    type AttachLeaseStream = tokio_stream::wrappers::ReceiverStream<
        Result<v1::AttachLeaseResponse, Status>,
    >;

    async fn attach_lease(
        &self,
        _: Request<tonic::Streaming<v1::AttachLeaseRequest>>,
    ) -> Result<Response<Self::AttachLeaseStream>, Status> {
        Err(Status::unimplemented("no test of this crate attaches a lease"))
    }
}

service! { v1::change_sources_server::ChangeSources {
    find_change_source_id(FindChangeSourceIdRequest) -> FindChangeSourceIdResponse;
    set_change_source_master(SetChangeSourceMasterRequest) -> SetChangeSourceMasterResponse;
    get_change_source(GetChangeSourceRequest) -> GetChangeSourceResponse;
    list_change_sources(ListChangeSourcesRequest) -> ListChangeSourcesResponse;
    claim(ClaimRequest) -> ClaimResponse;
    release(ReleaseRequest) -> ReleaseResponse;
    await_claim(AwaitClaimRequest) -> AwaitClaimResponse;
    stop_awaiting(StopAwaitingRequest) -> StopAwaitingResponse;
    set_group(SetGroupRequest) -> SetGroupResponse;
} }

service! { v1::stm_server::Stm {
    get_variables(GetVariablesRequest) -> GetVariablesResponse;
    commit(CommitRequest) -> CommitResponse;
}
    type ListVariablesStream = tokio_stream::Empty<Result<v1::ListVariablesResponse, Status>>;

    async fn list_variables(
        &self,
        _request: Request<v1::ListVariablesRequest>,
    ) -> Result<Response<Self::ListVariablesStream>, Status> {
        Err(Status::unimplemented("no test of the fake reads a stream"))
    }
}

service! { v1::cluster_server::Cluster {
    open_session(OpenSessionRequest) -> OpenSessionResponse;
    keep_session(KeepSessionRequest) -> KeepSessionResponse;
    close_session(CloseSessionRequest) -> CloseSessionResponse;
    status(StatusRequest) -> StatusResponse;
    list_members(ListMembersRequest) -> ListMembersResponse;
    join(JoinRequest) -> JoinResponse;
    remove_member(RemoveMemberRequest) -> RemoveMemberResponse;
    move_lead(MoveLeadRequest) -> MoveLeadResponse;
} }
