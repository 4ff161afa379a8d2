//! The service `Pipeline`: unary calls of the other services, many on one stream.
//!
//! # Model
//!
//! A call is taken out of its message, handed to the same routes as one that comes by itself, and its
//! answer packed up with whatever else is ready. One task a stream does all of it.
//!
//! # Invariants
//!
//! - At most [`CALLS_MAX`] calls of a stream are worked on; nothing is read while there are as many, or
//!   while the reader leaves answers lying.
//! - Every call that was taken out is answered, unless the stream breaks.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, Request as HttpRequest, Uri};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use holdfast_proto::v1;
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::node::Node;
use crate::runtime::{self, watch};

/// How many calls of one stream are worked on at a time: as many as of one connection.
const CALLS_MAX: usize = 256;
/// Largest response of a call, in bytes: the longest values, some of them together.
const RESPONSE_BYTES_MAX: usize = 4 << 20;
/// Size at which a message of answers is closed, in bytes; one answer more may be in it.
const ANSWERS_BYTES: usize = 64 << 10;
/// How many messages of answers may wait for the connection.
const AHEAD_MAX: usize = 4;
/// A message on the wire begins with a byte that says it is not compressed, and four for its length (gRPC
/// over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const TE: HeaderName = HeaderName::from_static("te");

/// The service.
pub(super) struct Pipeline {
    routes: Routes,
    /// The paths of all unary calls.
    unary: Arc<BTreeSet<String>>,
    node: Arc<Node>,
}

impl Pipeline {
    /// A pipeline to these routes.
    pub(super) fn over(routes: Routes, node: &Arc<Node>) -> Pipeline {
        Pipeline { routes, unary: Arc::new(unary()), node: Arc::clone(node) }
    }
}

/// The paths of all calls of the API that have one request and one response.
fn unary() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET)
        .expect("the descriptor set was compiled with this binary");
    let mut paths = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                if !method.client_streaming() && !method.server_streaming() {
                    let (package, service) = (file.package(), service.name());
                    paths.insert(format!("/{package}.{service}/{}", method.name()));
                }
            }
        }
    }
    paths
}

#[tonic::async_trait]
impl v1::pipeline_server::Pipeline for Pipeline {
    type ExchangeStream = ReceiverStream<Result<v1::ExchangeResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (answers, taken) = mpsc::channel(AHEAD_MAX);
        let exchange = Exchange {
            routes: self.routes.clone(),
            unary: Arc::clone(&self.unary),
            requests: request.into_inner(),
            waiting: VecDeque::new(),
            running: FuturesUnordered::new(),
            answers,
        };
        runtime::spawn(exchange.run(self.node.closing.subscribe()));
        Ok(Response::new(ReceiverStream::new(taken)))
    }
}

/// One stream.
struct Exchange {
    routes: Routes,
    unary: Arc<BTreeSet<String>>,
    requests: Streaming<v1::ExchangeRequest>,
    /// Taken in, and not begun.
    waiting: VecDeque<v1::PipedCall>,
    running: FuturesUnordered<BoxFuture<'static, v1::PipedAnswer>>,
    answers: mpsc::Sender<Result<v1::ExchangeResponse, Status>>,
}

impl Exchange {
    async fn run(mut self, mut closing: watch::Receiver<bool>) {
        let mut is_open = true;
        while is_open || !self.running.is_empty() {
            let has_room = is_open && self.running.len() < CALLS_MAX;
            tokio::select! {
                Some(answer) = self.running.next() => {
                    let answers = self.pack(answer);
                    if self.answers.send(Ok(v1::ExchangeResponse { answers })).await.is_err() {
                        return;
                    }
                }
                message = self.requests.message(), if has_room => match message {
                    Ok(Some(message)) => self.waiting.extend(message.calls),
                    // What runs is answered to one who has only ended its side.
                    Ok(None) => is_open = false,
                    Err(_) => return,
                },
                () = closed(&mut closing), if is_open => is_open = false,
            }
            self.begin();
        }
    }

    /// Begins what there is room for.
    fn begin(&mut self) {
        while self.running.len() < CALLS_MAX {
            let Some(call) = self.waiting.pop_front() else { return };
            self.running.push(match self.unary.contains(&call.method) {
                true => answer(self.routes.clone(), call).boxed(),
                false => {
                    let message = format!("{:?} is no call with one response", call.method);
                    let refused = failed(call.id, &Status::unimplemented(message));
                    std::future::ready(refused).boxed()
                }
            });
        }
    }

    /// This answer, and what else is ready.
    fn pack(&mut self, first: v1::PipedAnswer) -> Vec<v1::PipedAnswer> {
        let mut bytes = first.message.len();
        let mut answers = vec![first];
        while bytes < ANSWERS_BYTES
            && let Some(Some(answer)) = self.running.next().now_or_never()
        {
            bytes += answer.message.len();
            answers.push(answer);
        }
        answers
    }
}

/// Waits until the node closes its connections.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the node is gone, which is the same.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Carries out a call.
async fn answer(mut routes: Routes, call: v1::PipedCall) -> v1::PipedAnswer {
    let id = call.id;
    let carried_out = async {
        let request = request(call)?;
        let Ok(response) = routes.call(request).await;
        message(response).await
    };
    match carried_out.await {
        Ok(message) => {
            let (code, error, details) = (0, String::new(), Vec::new());
            v1::PipedAnswer { id, code, message: message.into(), error, details }
        }
        Err(status) => failed(id, &status),
    }
}

/// The call as it would come by itself.
fn request(call: v1::PipedCall) -> Result<HttpRequest<Body>, Status> {
    let path: PathAndQuery =
        call.method.parse().map_err(|_| Status::invalid_argument("the method is no path"))?;
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + call.message.len());
    let length = u32::try_from(call.message.len())
        .map_err(|_| Status::invalid_argument("the message takes 4 GiB"))?;
    body.put_u8(0);
    body.put_u32(length);
    body.put_slice(&call.message);
    let mut request = HttpRequest::new(Body::from(body.freeze()));
    *request.method_mut() = axum::http::Method::POST;
    *request.uri_mut() = Uri::from(path);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if call.timeout_ms > 0 {
        // At most eight digits (gRPC over HTTP/2, "Requests"): more than a day.
        let timeout = format!("{}m", call.timeout_ms.min(99_999_999));
        let timeout = HeaderValue::try_from(timeout).expect("digits and a letter");
        headers.insert(GRPC_TIMEOUT, timeout);
    }
    Ok(request)
}

/// The one message of a response, or its status if it is not OK.
async fn message(response: axum::http::Response<tonic::body::Body>) -> Result<Bytes, Status> {
    if let Some(status) = Status::from_header_map(response.headers())
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    let mut body = response.into_body();
    let mut data = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(bytes) if data.len() + bytes.len() <= RESPONSE_BYTES_MAX => data.put(bytes),
            Ok(_) => {
                let message = "the response is too long for a pipeline; call by itself";
                return Err(Status::resource_exhausted(message));
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                if let Some(status) = Status::from_header_map(&trailers)
                    && status.code() != Code::Ok
                {
                    return Err(status);
                }
            }
        }
    }
    if data.len() < PREFIX_BYTES {
        return Err(Status::internal("the response has no message"));
    }
    data.advance(PREFIX_BYTES);
    Ok(data.freeze())
}

fn failed(id: u64, status: &Status) -> v1::PipedAnswer {
    v1::PipedAnswer {
        id,
        code: status.code() as u32,
        message: Vec::new(),
        error: status.message().to_owned(),
        details: status.details().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_with_one_response_are_known_and_streams_are_not_among_them() {
        let unary = unary();
        for path in ["State/SetState", "Masters/KeepAlive", "Cluster/OpenSession"] {
            assert!(unary.contains(&format!("/holdfast.v1.{path}")), "{path}");
        }
        for path in ["Watch/Watch", "State/Export", "Masters/AttachLease", "Pipeline/Exchange"] {
            assert!(!unary.contains(&format!("/holdfast.v1.{path}")), "{path}");
        }
    }
}
