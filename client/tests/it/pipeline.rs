//! Small calls share a stream with a node that knows such streams. // G5

use std::sync::{Arc, Mutex};

use holdfast_client::{Client, ClientConfig, Error};
use holdfast_proto::v1;
use holdfast_proto::v1::pipeline_server::{Pipeline, PipelineServer};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::fake::in_time;

/// Longest value that goes on the stream, with room for what is beside it in its request.
const SMALL_BYTES: usize = (64 << 10) - 64;

/// A node with this service and no other one: a call that comes by itself is refused.
#[derive(Clone, Default)]
struct Carrier {
    /// How many calls each message brought.
    messages: Arc<Mutex<Vec<usize>>>,
}

impl Carrier {
    async fn start(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let server = tonic::transport::Server::builder()
            .add_service(PipelineServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        Client::connect(ClientConfig::new([address]))
    }

    fn calls_of_each_message(&self) -> Vec<usize> {
        self.messages.lock().expect("no test panics while it holds this lock").clone()
    }
}

fn answer(call: v1::PipedCall) -> v1::PipedAnswer {
    let message = match call.method.as_str() {
        "/holdfast.v1.Cluster/OpenSession" => {
            let idle_ms = 600_000;
            v1::OpenSessionResponse { header: None, session_id: 7, idle_ms }.encode_to_vec()
        }
        "/holdfast.v1.State/SetState" => {
            let set = v1::SetStateRequest::decode(call.message.as_slice()).expect("a request");
            let mod_revision = set.object_id.unsigned_abs();
            v1::SetStateResponse { written: true, mod_revision, ..Default::default() }
                .encode_to_vec()
        }
        other => panic!("no test calls {other}"),
    };
    v1::PipedAnswer { id: call.id, message, ..Default::default() }
}

#[tonic::async_trait]
impl Pipeline for Carrier {
    type ExchangeStream = ReceiverStream<Result<v1::ExchangeResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, taken) = mpsc::channel(4);
        let messages = Arc::clone(&self.messages);
        tokio::spawn(async move {
            while let Ok(Some(message)) = requests.message().await {
                messages.lock().expect("it is not poisoned").push(message.calls.len());
                // The last one first: answers find their calls by number.
                let answers_of = message.calls.into_iter().rev().map(answer).collect();
                let response = v1::ExchangeResponse { answers: answers_of };
                if answers.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(taken)))
    }
}

#[tokio::test]
async fn small_calls_share_messages_and_find_their_answers() -> Result<(), Error> {
    let node = Carrier::default();
    let state = node.start().await.state();
    in_time(state.set(1, "first", "value")).await?;
    let mut sets = JoinSet::new();
    for object in 1..=100 {
        let state = state.clone();
        sets.spawn(async move { (object, state.set(object, "name", "value").await) });
    }
    for (object, written) in in_time(sets.join_all()).await {
        let answered = written?.mod_revision;
        assert_eq!(answered, i64::unsigned_abs(object), "it is another call's answer");
    }
    let messages = node.calls_of_each_message();
    assert_eq!(messages.iter().sum::<usize>(), 102, "one opens the session: {messages:?}");
    assert!(messages.len() < 20, "calls that come together share messages: {messages:?}");
    Ok(())
}

#[tokio::test]
async fn a_long_request_goes_by_itself() -> Result<(), Error> {
    let node = Carrier::default();
    let state = node.start().await.state();
    in_time(state.set(1, "name", vec![b'7'; SMALL_BYTES])).await?;
    let refused = in_time(state.set(1, "name", vec![b'7'; 64 << 10])).await;
    let error = refused.expect_err("no service here takes calls by themselves");
    assert!(matches!(&error, Error::Refused { code: Code::Unimplemented, .. }), "{error:?}");
    assert_eq!(node.calls_of_each_message().iter().sum::<usize>(), 2);
    Ok(())
}
