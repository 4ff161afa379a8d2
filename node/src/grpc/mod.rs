//! The services: from protobuf to commands and back, and nothing else.
//!
//! Each connector has one file. The API and the log are separate formats; they meet here only.

mod attach;
mod changesources;
mod cluster;
mod download;
mod export;
mod feed;
mod header;
mod health;
mod masters;
mod objects;
pub(crate) mod peer;
mod pipeline;
mod state;
mod status;
mod stm;
mod upload;
mod watch;

use std::sync::Arc;

use holdfast_machine::{Command, Origin, Reply, Request, Response, State};
use holdfast_proto::v1;
use tonic::metadata::MetadataMap;
use tonic::{Status, service::Routes};

use crate::node::Node;

/// The namespace of a call that names none.
const NAMESPACE_DEFAULT: &str = "default";

/// Everything that clients may call.
pub(crate) fn client_routes(node: &Arc<Node>) -> Routes {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptor set was compiled with this binary");
    let calls = Calls(Arc::clone(node));
    health::follow(node, health);
    let routes = Routes::new(health_service)
        .add_service(reflection)
        .add_service(v1::state_server::StateServer::new(calls.clone()))
        .add_service(v1::masters_server::MastersServer::new(calls.clone()))
        .add_service(v1::change_sources_server::ChangeSourcesServer::new(calls.clone()))
        .add_service(v1::cluster_server::ClusterServer::new(calls.clone()))
        .add_service(v1::objects_server::ObjectsServer::new(calls.clone()))
        .add_service(
            v1::stm_server::StmServer::new(calls.clone())
                .max_decoding_message_size(stm::REQUEST_BYTES_MAX),
        )
        .add_service(v1::watch_server::WatchServer::new(watch::Watches::new(calls)))
        .prepare();
    let pipeline = pipeline::Pipeline::over(routes.clone(), node);
    routes.add_service(v1::pipeline_server::PipelineServer::new(pipeline))
}

/// The implementation of every service: each in its own file.
#[derive(Clone)]
struct Calls(Arc<Node>);

/// A reply, with the header that goes with it.
struct Answered {
    reply: Reply,
    header: v1::ResponseHeader,
}

impl Calls {
    /// Carries out a command in its session.
    async fn write(
        &self,
        metadata: &MetadataMap,
        context: Option<v1::WriteContext>,
        command: Command,
    ) -> Result<Answered, Status> {
        let origin = self.origin(context)?;
        self.carry_out(metadata, Request { origin: Some(origin), command }).await
    }

    async fn carry_out(
        &self,
        metadata: &MetadataMap,
        request: Request,
    ) -> Result<Answered, Status> {
        let deadline = header::deadline(metadata);
        let written = self.0.write(request, deadline).await;
        let Response { revision, outcome } = written.map_err(|f| self.0.write_failed(f))?;
        match outcome {
            Ok(reply) => Ok(Answered { reply, header: self.0.header(revision) }),
            Err(refusal) => Err(self.0.refused(&refusal, revision)),
        }
    }

    fn origin(&self, context: Option<v1::WriteContext>) -> Result<Origin, Status> {
        let missing = |field: &str| {
            let help = "open a session with Cluster.OpenSession and number its writes from 1";
            self.0.bad_request(format!("context.{field} is missing: {help}"))
        };
        let context = context.ok_or_else(|| missing("session_id"))?;
        if context.session_id == 0 {
            return Err(missing("session_id"));
        }
        if context.seq == 0 {
            return Err(missing("seq"));
        }
        if context.first_incomplete > context.seq {
            return Err(self.0.bad_request(format!(
                "context.first_incomplete is {}, beyond context.seq {}: a write that is sent is \
                 not answered yet",
                context.first_incomplete, context.seq
            )));
        }
        Ok(Origin {
            session: context.session_id,
            seq: context.seq,
            first_incomplete: context.first_incomplete,
            resent: context.resent,
        })
    }

    /// The state that a read may see.
    async fn read(
        &self,
        metadata: &MetadataMap,
        options: Option<v1::ReadOptions>,
    ) -> Result<State, Status> {
        let local = options.unwrap_or_default().local;
        let deadline = header::deadline(metadata);
        self.0.read(local, deadline).await.map_err(|failed| self.0.read_failed(failed))
    }
}

impl Calls {
    /// A query's result. A fault means that the state is damaged: the node stops.
    fn checked<T>(&self, result: Result<T, holdfast_machine::Fault>) -> Result<T, Status> {
        result.map_err(|fault| {
            self.0.stop_for(format!("read the state: {fault}"));
            Status::internal(fault.to_string())
        })
    }
}

fn namespace(name: String) -> String {
    if name.is_empty() { NAMESPACE_DEFAULT.to_owned() } else { name }
}

/// A reply of another connector than the one that was asked.
fn foreign(reply: &Reply) -> Status {
    Status::internal(format!("the state machine answered with {reply:?}"))
}
