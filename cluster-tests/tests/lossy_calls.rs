//! A proxy of whole calls that loses some of them: the request before it arrives, or the reply on its way
//! back. What is lost ends with an error at once, or never.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use holdfast_proto::v1::cluster_server::ClusterServer;
use holdfast_proto::v1::stm_server::StmServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint, Server};

/// A proxy before one node. Dropping it breaks all its connections.
#[derive(Debug)]
pub(crate) struct LossyCalls {
    address: String,
    losses: Arc<Losses>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// How often something was lost.
#[derive(Debug, Default)]
struct Losses {
    requests: AtomicUsize,
    replies: AtomicUsize,
}

/// Of 100 requests, and of 100 replies, so many are lost.
const LOST_PERCENT: u32 = 10;
/// One in so many of these never ends; the others end at once.
const ENDLESS_IN: u32 = 4;

impl LossyCalls {
    /// Starts one in front of `target` (`host:port`), for the services `Stm` and `Cluster`.
    pub(crate) async fn start(target: &str) -> anyhow::Result<LossyCalls> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let channel = Endpoint::from_shared(format!("http://{target}"))?.connect_lazy();
        let losses = Arc::new(Losses::default());
        let routes = Server::builder()
            .add_service(Relay::<StmServer<()>>::new(&channel, &losses))
            .add_service(Relay::<ClusterServer<()>>::new(&channel, &losses));
        let server = tokio::spawn(routes.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(LossyCalls { address, losses, server })
    }

    /// Where it listens, as `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Requests and replies that were lost.
    pub(crate) fn lost(&self) -> (usize, usize) {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (of(&self.losses.requests), of(&self.losses.replies))
    }
}

impl Drop for LossyCalls {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Carries the calls of one service.
struct Relay<S> {
    channel: Channel,
    losses: Arc<Losses>,
    service: PhantomData<fn() -> S>,
}

impl<S> Relay<S> {
    fn new(channel: &Channel, losses: &Arc<Losses>) -> Relay<S> {
        Relay { channel: channel.clone(), losses: losses.clone(), service: PhantomData }
    }
}

impl<S> Clone for Relay<S> {
    fn clone(&self) -> Relay<S> {
        Relay::new(&self.channel, &self.losses)
    }
}

impl<S: NamedService> NamedService for Relay<S> {
    const NAME: &'static str = S::NAME;
}

type Carried = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S: 'static> Service<http::Request<Body>> for Relay<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Carried;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Carried {
        let (mut channel, losses) = (self.channel.clone(), self.losses.clone());
        Box::pin(async move {
            if rand::random_ratio(LOST_PERCENT, 100) {
                losses.requests.fetch_add(1, Ordering::Relaxed);
                return Ok(lost().await);
            }
            let answered = async {
                poll_fn(|context| channel.poll_ready(context)).await?;
                channel.call(request).await
            };
            let Ok(response) = answered.await else { return Ok(lost().await) };
            if rand::random_ratio(LOST_PERCENT, 100) {
                losses.replies.fetch_add(1, Ordering::Relaxed);
                return Ok(lost().await);
            }
            Ok(response)
        })
    }
}

/// What a caller sees of a call that was lost: nothing, or that something on the way has failed.
async fn lost() -> http::Response<Body> {
    if rand::random_ratio(1, ENDLESS_IN) {
        pending::<()>().await;
    }
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
    response
}
