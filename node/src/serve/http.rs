//! What is served over plain HTTP beside gRPC, on the clients' port: `/livez`, `/readyz` and
//! `/metrics`.
//!
//! Pages are for probes and scrapers, which come a few times a minute: each HTTP/1 connection ends
//! with its answer, so that no idle one stays.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, Response, StatusCode, Version};
use axum::routing::get;
use tonic::service::Routes;

use crate::grpc;
use crate::metrics::Metrics;
use crate::node::Node;

const TEXT: &str = "text/plain; charset=utf-8";
/// OpenMetrics 1.0, "Protocol Negotiation".
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that clients may ask for: the services, and the pages.
pub(super) fn client_routes(node: &Arc<Node>) -> Routes {
    let pages = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(only_get)
        .with_state(Pages { node: Arc::clone(node), metrics: Arc::new(Metrics::new(node)) });
    let routes = grpc::client_routes(node).into_axum_router();
    Routes::from(routes.merge(pages).fallback(nowhere))
}

#[derive(Clone)]
struct Pages {
    node: Arc<Node>,
    metrics: Arc<Metrics>,
}

/// Whether the process is worth keeping: it answers, and has not decided to stop.
async fn livez(State(pages): State<Pages>, request: Request) -> Response<Body> {
    let stops = pages.node.stop_reason.borrow().clone();
    match stops {
        None => page(&request, StatusCode::OK, TEXT, "alive\n".to_owned()),
        Some(reason) => {
            let text = format!("not alive: this node stops: {reason}\n");
            page(&request, StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
        }
    }
}

/// Whether calls can be sent here.
async fn readyz(State(pages): State<Pages>, request: Request) -> Response<Body> {
    match pages.node.readiness() {
        Ok(ready) => page(&request, StatusCode::OK, TEXT, format!("ready: {ready}\n")),
        Err(why) => {
            page(&request, StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n"))
        }
    }
}

async fn metrics(State(pages): State<Pages>, request: Request) -> Response<Body> {
    match pages.metrics.text() {
        Ok(text) => page(&request, StatusCode::OK, OPENMETRICS, text),
        Err(_) => {
            let text = "the state is damaged, and this node stops\n".to_owned();
            page(&request, StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
        }
    }
}

async fn only_get(request: Request) -> Response<Body> {
    let text = "pages are read with GET\n".to_owned();
    page(&request, StatusCode::METHOD_NOT_ALLOWED, TEXT, text)
}

/// Neither a service nor a page.
async fn nowhere(request: Request) -> Response<Body> {
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return tonic::Status::unimplemented("there is no such method").into_http();
    }
    let text = "there are /livez, /readyz and /metrics here, and gRPC\n".to_owned();
    page(&request, StatusCode::NOT_FOUND, TEXT, text)
}

fn page(request: &Request, status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // HTTP/2 has no such header (RFC 9113, section 8.2.2).
    if request.version() < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
