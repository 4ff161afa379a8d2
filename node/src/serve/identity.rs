//! Who this node is: forming a cluster, joining one, going on in one, or being refused.
//!
//! Forming and joining are explicit. A directory knows its cluster, its node id and its
//! incarnation; a new directory under an old node id, a directory of another cluster and a copied
//! one are refused, here or by the leader, and each refusal says what to do.

use std::time::Duration;

use holdfast_proto::v1;
use holdfast_proto::v1::cluster_client::ClusterClient;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

use super::{ServeError, Sockets};
use crate::config::{Config, Start};
use crate::node::Node;
use crate::raft::peer::Own;
use crate::raft::types::Member;
use crate::runtime;
use crate::store::{DataDir, Identity, Place};

/// How long one endpoint may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long one endpoint may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Pause between tries to reach a cluster that does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A node that knows who it is.
pub(super) struct Established {
    pub(super) own: Own,
    /// Whether it is to form its cluster, should that not have happened yet.
    pub(super) forms: bool,
    client_endpoint: String,
    peer_endpoint: String,
}

/// Finds out who this node is, and writes it down before anybody hears of it.
pub(super) async fn establish(
    config: &Config,
    dir: &DataDir,
    sockets: &Sockets,
) -> Result<Established, ServeError> {
    let identity = match dir.identity() {
        Some(identity) => {
            dir.check_place(config.moved)?;
            check_node_id(config, &identity)?;
            identity
        }
        None => new_identity(config),
    };
    let identity = match (identity.cluster_id, &config.start) {
        (Some(_), start) => {
            if let Start::Join(endpoints) = start {
                check_cluster(&identity, endpoints).await?;
            }
            identity
        }
        (None, Start::Existing) => return Err(no_cluster_here(config)),
        (None, Start::Form) => Identity {
            cluster_id: Some(*uuid::Uuid::now_v7().as_bytes()),
            node_id: config.node_id.unwrap_or(1),
            ..identity
        },
        (None, Start::Join(endpoints)) => {
            dir.write_identity(identity)?;
            join_first(identity, config, endpoints, sockets).await?
        }
    };
    if dir.identity().is_none_or(|written| written.cluster_id.is_none()) {
        dir.write_identity(identity)?;
    }
    let cluster_id = identity.cluster_id.expect("every way here has set it");
    let own = Own {
        cluster_id: uuid::Uuid::from_bytes(cluster_id).to_string(),
        node_id: identity.node_id,
        incarnation: identity.incarnation,
        nonce: random(),
    };
    Ok(Established {
        own,
        forms: config.start == Start::Form,
        client_endpoint: sockets.client_endpoint.clone(),
        peer_endpoint: sockets.peer_endpoint.clone(),
    })
}

/// A member record of this node.
pub(super) fn member(own: &Own, client_endpoint: &str, peer_endpoint: &str) -> Member {
    Member {
        peer_endpoint: peer_endpoint.to_owned(),
        client_endpoint: client_endpoint.to_owned(),
        incarnation: own.incarnation,
        promote: true,
        ..Member::default()
    }
}

/// Tells the cluster where this node is now, if that has changed, until it knows. Returns only if
/// the cluster refuses this node for good.
pub(super) async fn announce(node: &Node, identity: &Established) -> ServeError {
    loop {
        runtime::sleep(RETRY_PAUSE).await;
        let members = node.peers.members();
        let Some(recorded) = members.get(&identity.own.node_id) else { continue };
        if recorded.client_endpoint == identity.client_endpoint
            && recorded.peer_endpoint == identity.peer_endpoint
        {
            continue;
        }
        let request = v1::JoinRequest {
            node_id: identity.own.node_id,
            incarnation: identity.own.incarnation,
            client_endpoint: identity.client_endpoint.clone(),
            peer_endpoint: identity.peer_endpoint.clone(),
            learner_only: !recorded.promote,
        };
        let others = members.values().map(|member| member.client_endpoint.clone());
        let endpoints = others.filter(|endpoint| *endpoint != recorded.client_endpoint);
        let mut endpoints: Vec<String> = endpoints.collect();
        // A node that leads takes its own word.
        endpoints.push(identity.client_endpoint.clone());
        match ask(&endpoints, &request).await {
            Ok(_) => tracing::info!("the cluster knows the new address {}", identity.peer_endpoint),
            Err(Asked::Refused(error)) => return error,
            Err(Asked::NoAnswer(_)) => {}
        }
    }
}

fn random() -> u64 {
    // Never 0, which means "none" on the wire.
    rand::random::<u64>() | 1
}

fn new_identity(config: &Config) -> Identity {
    Identity {
        format: 0,
        cluster_id: None,
        node_id: config.node_id.unwrap_or(0),
        incarnation: random(),
        place: Place::default(),
    }
}

fn check_node_id(config: &Config, identity: &Identity) -> Result<(), ServeError> {
    match config.node_id {
        Some(asked) if identity.cluster_id.is_some() && asked != identity.node_id => {
            let dir = config.data_dir.display();
            Err(ServeError::new(
                "other-node",
                format!("data directory {dir} belongs to n{}, not to n{asked}", identity.node_id),
                "a directory is one node's for good",
                format!("leave out --node-id, or give n{asked} a directory of its own"),
            ))
        }
        Some(_) | None => Ok(()),
    }
}

fn no_cluster_here(config: &Config) -> ServeError {
    let node = config.node_id.map_or_else(|| "this node".to_owned(), |id| format!("n{id}"));
    ServeError::new(
        "no-cluster-here",
        format!("data directory {} belongs to no cluster", config.data_dir.display()),
        "it is empty: this is a first start, or the directory was wiped",
        format!(
            "form a new cluster with --form, or join one with --join HOST:PORT; if {node} was a \
             member before, remove it from the cluster first and join as a new node"
        ),
    )
}

/// Whether the endpoints belong to this directory's cluster, as far as they answer.
async fn check_cluster(identity: &Identity, endpoints: &[String]) -> Result<(), ServeError> {
    let own = uuid::Uuid::from_bytes(identity.cluster_id.unwrap_or_default()).to_string();
    for endpoint in endpoints {
        let Ok(mut client) = dial(endpoint).await else { continue };
        let deadline = runtime::now() + CONNECT_MAX;
        let answer = runtime::until(deadline, client.status(v1::StatusRequest {})).await;
        let Some(Ok(answer)) = answer else { continue };
        let other = answer.into_inner().header.unwrap_or_default().cluster_id;
        if other != own {
            return Err(ServeError::new(
                "foreign-cluster",
                format!("this directory belongs to cluster {own}, {endpoint} to {other}"),
                "a node never changes its cluster: its log means nothing in another one",
                "use the directory with its own cluster, or join with an empty --data-dir",
            ));
        }
    }
    Ok(())
}

async fn join_first(
    identity: Identity,
    config: &Config,
    endpoints: &[String],
    sockets: &Sockets,
) -> Result<Identity, ServeError> {
    let request = v1::JoinRequest {
        node_id: config.node_id.unwrap_or(0),
        incarnation: identity.incarnation,
        client_endpoint: sockets.client_endpoint.clone(),
        peer_endpoint: sockets.peer_endpoint.clone(),
        learner_only: false,
    };
    let mut told = false;
    loop {
        match ask(endpoints, &request).await {
            Ok(joined) => {
                let cluster_id = uuid::Uuid::parse_str(&joined.cluster_id).map_err(|error| {
                    let what = format!("the cluster calls itself {:?}", joined.cluster_id);
                    ServeError::new("join-failed", what, error.to_string(), "check --join")
                })?;
                let cluster_id = Some(*cluster_id.as_bytes());
                return Ok(Identity { cluster_id, node_id: joined.node_id, ..identity });
            }
            Err(Asked::Refused(error)) => return Err(error),
            Err(Asked::NoAnswer(cause)) => {
                if !told {
                    tracing::info!("waiting for a cluster that takes this node in: {cause}");
                    told = true;
                }
                runtime::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Why nobody took this node in.
enum Asked {
    /// For good.
    Refused(ServeError),
    /// For now.
    NoAnswer(String),
}

async fn ask(endpoints: &[String], request: &v1::JoinRequest) -> Result<v1::JoinResponse, Asked> {
    let mut causes = Vec::new();
    for endpoint in endpoints {
        let mut client = match dial(endpoint).await {
            Ok(client) => client,
            Err(cause) => {
                causes.push(format!("{endpoint}: {cause}"));
                continue;
            }
        };
        let mut call = tonic::Request::new(request.clone());
        call.set_timeout(ANSWER_MAX);
        match client.join(call).await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => match refusal(&status, request.node_id) {
                Some(error) => return Err(Asked::Refused(error)),
                None => causes.push(format!("{endpoint}: {}", status.message())),
            },
        }
    }
    Err(Asked::NoAnswer(causes.join("; ")))
}

async fn dial(endpoint: &str) -> Result<ClusterClient<Channel>, String> {
    let dialled = Endpoint::from_shared(format!("http://{endpoint}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(CONNECT_MAX)
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    Ok(ClusterClient::new(dialled))
}

/// The answer as an error to show, if trying again cannot help.
fn refusal(status: &tonic::Status, node_id: u64) -> Option<ServeError> {
    let info = status.get_details_error_info()?;
    let message = status.message();
    let error = match info.reason.as_str() {
        "WIPED_DIRECTORY" => ServeError::new(
            "wiped-directory",
            format!("the cluster refuses this directory as n{node_id}"),
            format!("{message}; this one is new: was it wiped?"),
            format!(
                "remove the old node (holdfast members remove n{node_id}), then join with an \
                 empty directory and without --node-id"
            ),
        ),
        "COPIED_DIRECTORY" => ServeError::new(
            "copied-directory",
            "the cluster refuses this directory",
            message,
            "stop this node and join with an empty directory; never run a copy beside its original",
        ),
        "ID_USED_BEFORE" => ServeError::new(
            "id-used-before",
            format!("the cluster refuses the id n{node_id}"),
            message,
            "leave out --node-id, and the cluster chooses one",
        ),
        "BAD_REQUEST" => ServeError::new(
            "join-failed",
            "the cluster refuses this node",
            message,
            "check --advertise-client and --advertise-peer",
        ),
        _ => return None,
    };
    Some(error)
}
