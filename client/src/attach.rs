//! Keeps a lease with a grace attached to a node, and its holder aware of what that allows.
//!
//! A node to which a lease is attached shrinks it to the grace once the connection breaks. That must
//! not find a holder that believes in its lease. So the holder sends a message a few times in each
//! grace, and the node answers every one: a message that was answered was sent before the node saw
//! any break. From the moment before it was sent the holder counts the grace, less the margin.
//!
//! A node can shrink the lease only by the last renewal, and only if it was told of it. So a holder
//! whose connection has broken renews first. With that it is free: no node knows of that renewal,
//! and the count of the grace ends. It starts again when the renewal is told to another node.
//!
//! In between no node would see it go, so it renews for the grace alone, as often as that asks for,
//! until another node has answered; then for the full time.
//!
//! Invariants:
//! - A lease has its full time only before it was ever attached, or while a node answers that can
//!   shrink it; but for a renewal that was on its way as the connection broke.
//! - A renewal is told to one node only, and to none once a stream has ended to which it was told.
//! - The count of the grace begins before a node is told, and only an answer on the same stream, or a
//!   renewal that no node was told of, moves its end.
//! - A node that stops says so, and shrinks nothing: then the count ends as well.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::v1 as proto;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::boottime::BootTime;
use crate::endpoint::Endpoint;
use crate::error::{Answer, is_transport_error};
use crate::lease::{Held, Span, pause};
use crate::life::counted;
use crate::rpc;

/// So many messages are sent in each grace, one and a half of which may be lost to a hiccup before
/// the holder goes elsewhere, with more than half of the grace to do so.
const MESSAGES_PER_GRACE: u32 = 8;
/// Part of the grace after which a node that does not answer is left.
const SILENCE_SHARE: u32 = 4;
/// How many messages may wait for the connection.
const AHEAD_MAX: usize = 16;

/// Runs until the lease is lost.
pub(crate) async fn keep(held: Arc<Held>) {
    let mut attachment =
        Attachment { renewed: held.renewed.subscribe(), told: None, last: None, held };
    let held = attachment.held.clone();
    tokio::select! {
        _ = held.life.lost() => {}
        () = attachment.run() => {}
    }
}

struct Attachment {
    held: Arc<Held>,
    renewed: watch::Receiver<u64>,
    /// The last renewal that any node was told of.
    told: Option<u64>,
    /// Where the last stream was, to try others first.
    last: Option<Arc<str>>,
}

/// A stream to a node, and when the messages were sent that it has not answered.
struct Link {
    messages: mpsc::Sender<proto::AttachLeaseRequest>,
    unanswered: VecDeque<BootTime>,
}

/// How a stream came to its end.
enum Ended {
    /// The node was not told of anything.
    Unused,
    /// The node stops, and will not shrink the lease.
    Stopping,
    /// Perhaps the node has seen it too.
    Broken,
}

impl Attachment {
    async fn run(&mut self) {
        loop {
            for endpoint in self.in_order() {
                match self.attach(&endpoint).await {
                    Ended::Unused => continue,
                    Ended::Stopping => self.held.life.detach(BootTime::now()),
                    Ended::Broken => {}
                }
                self.last = Some(endpoint.address().clone());
                self.renew_untold().await;
                break;
            }
            tokio::time::sleep(pause(self.held.grace)).await;
        }
    }

    /// All endpoints, those that failed lately behind the others, the last one last of all.
    fn in_order(&self) -> Vec<Arc<Endpoint>> {
        let mut endpoints = self.held.client.pool().in_order();
        endpoints.sort_by_key(|endpoint| {
            (self.last.as_ref() == Some(endpoint.address()), endpoint.is_avoided())
        });
        endpoints
    }

    /// Has the lease renewed for its grace, and waits for a renewal that no node was told of.
    async fn renew_untold(&mut self) {
        self.held.span.send_replace(Span::Grace);
        let told = self.told;
        // The sender lives in `held`.
        if self.renewed.wait_for(|renewed| told < Some(*renewed)).await.is_ok() {
            self.held.life.detach(BootTime::now());
        }
    }

    /// Attaches the lease to one node, and stays there for as long as that works.
    async fn attach(&mut self, endpoint: &Arc<Endpoint>) -> Ended {
        let silence = self.held.grace / SILENCE_SHARE;
        let Some(Ok(connection)) = within(silence, endpoint.connection()).await else {
            endpoint.mark_bad();
            return Ended::Unused;
        };
        let (messages, stream) = mpsc::channel(AHEAD_MAX);
        let mut link = Link { messages, unanswered: VecDeque::new() };
        if !self.tell(&mut link) {
            return Ended::Broken;
        }
        let mut masters = rpc::masters(connection.channel.clone());
        let opened = within(silence, masters.attach_lease(ReceiverStream::new(stream))).await;
        let status = match opened {
            Some(Ok(answers)) => self.stay(&mut link, answers.into_inner()).await,
            Some(Err(status)) => Some(status),
            None => None,
        };
        let Some(status) = status else {
            endpoint.mark_bad();
            return Ended::Broken;
        };
        if is_transport_error(&status) {
            endpoint.forget(&connection);
        }
        tracing::debug!(lease = self.held.lease.id, %status, "no more attached");
        match Answer::from_status(&status) {
            Answer::Elsewhere { .. } => Ended::Stopping,
            Answer::Refused(_) | Answer::Unknown { .. } | Answer::NotSent { .. } => Ended::Broken,
        }
    }

    /// Tells the node of the last renewal; false if the connection takes nothing any more.
    fn tell(&mut self, link: &mut Link) -> bool {
        let renewal = *self.renewed.borrow_and_update();
        let Held { client, lease, grace, life, .. } = &*self.held;
        let sent = BootTime::now();
        life.attach(sent + counted(*grace));
        self.told = Some(renewal);
        link.unanswered.push_back(sent);
        let message = proto::AttachLeaseRequest {
            namespace: client.namespace().to_owned(),
            lease_id: lease.id,
            renewal,
            silence_ms: u32::try_from(grace.as_millis()).unwrap_or(u32::MAX),
        };
        link.messages.try_send(message).is_ok()
    }

    /// Goes on telling, until the stream ends or the node is silent for too long; gives the stream's
    /// last word, if it had one.
    async fn stay(
        &mut self,
        link: &mut Link,
        mut answers: Streaming<proto::AttachLeaseResponse>,
    ) -> Option<tonic::Status> {
        let grace = self.held.grace;
        let mut beat = tokio::time::interval(grace / MESSAGES_PER_GRACE);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(_)) => {
                        let sent = link.unanswered.pop_front()?;
                        self.held.life.prove(BootTime::now(), sent + counted(grace));
                        self.held.span.send_if_modified(|span| {
                            std::mem::replace(span, Span::Full) != Span::Full
                        });
                        continue;
                    }
                    Ok(None) => return None,
                    Err(status) => return Some(status),
                },
                renewed = self.renewed.changed() => if renewed.is_err() { return None },
                _ = beat.tick() => {}
            }
            let oldest = link.unanswered.front();
            let is_silent =
                oldest.is_some_and(|sent| BootTime::now().since(*sent) > grace / SILENCE_SHARE);
            if is_silent || !self.tell(link) {
                return None;
            }
        }
    }
}

/// The future's result, unless it takes longer.
async fn within<F: Future>(span: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(span, future).await.ok()
}
