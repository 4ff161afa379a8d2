//! A master in a process of its own, to be killed, frozen and cut off.
//!
//! The program (`src/bin/stand_in.rs`) prints what happens to it as JSON, one object a line, with
//! the moment on CLOCK_BOOTTIME in microseconds, which all processes of a machine share.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::programs;

/// What a stand-in is to do.
#[derive(Debug, Clone)]
pub struct StandInOptions {
    /// Its name as a master.
    pub name: String,
    /// The client endpoints that it begins with.
    pub endpoints: Vec<String>,
    /// Its namespace.
    pub namespace: String,
    /// How long its lease lives.
    pub ttl: Duration,
    /// The grace of its lease; zero: none. With one it says nothing of its renewals.
    pub grace: Duration,
    /// The change sources that it claims.
    pub sources: Vec<i64>,
    /// How often it tries to claim those that it has not got.
    pub claim_every: Duration,
    /// With an object id: it writes there all the time, under the fence of its first claim, and says
    /// how each write began and ended.
    pub write_object: Option<i64>,
}

impl StandInOptions {
    /// A master of this name with a lease of three seconds, claiming every 50 ms.
    #[must_use]
    pub fn new(name: &str, endpoints: Vec<String>) -> StandInOptions {
        StandInOptions {
            name: name.to_owned(),
            endpoints,
            namespace: "default".to_owned(),
            ttl: Duration::from_secs(3),
            grace: Duration::ZERO,
            sources: Vec::new(),
            claim_every: Duration::from_millis(50),
            write_object: None,
        }
    }
}

/// What a stand-in has said. All moments are microseconds on CLOCK_BOOTTIME.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It has its lease.
    Opened {
        /// The lease.
        lease: u64,
        /// Its id as a master.
        master: i64,
    },
    /// A node has answered on the connection that its lease, with a grace, is attached to.
    Attached,
    /// It saw a renewal succeed, the opening included.
    Renewed {
        /// When that renewal was sent for the first time.
        sent_us: u64,
    },
    /// It was granted a change source.
    Granted {
        /// Which.
        source: i64,
        /// Under which token.
        token: u64,
        /// When the claim that was granted was sent.
        sent_us: u64,
        /// When the answer was there.
        at_us: u64,
    },
    /// It has all that it wanted.
    AllGranted {
        /// When the last answer was there.
        at_us: u64,
    },
    /// Its lease is lost.
    Lost {
        /// How: `Expired`, `Ended` or `Closed`.
        loss: String,
        /// When its owner was told.
        at_us: u64,
    },
    /// A write through the holder, under the fence, has ended.
    Wrote {
        /// When it began.
        began_us: u64,
        /// When its result was there.
        at_us: u64,
        /// `ok`, the reason of a refusal, `LEASE_LOST`, or another error.
        result: String,
    },
    /// A write under the old fence that went around the holder, after the loss, has ended.
    StaleWrite {
        /// `ok`, the reason of a refusal, or another error.
        result: String,
    },
    /// Something else went wrong.
    Failed {
        /// What.
        message: String,
    },
}

/// A master's process. Dropping it kills it and waits for it.
#[derive(Debug)]
pub struct StandIn {
    child: Child,
    /// When this is closed the process ends by itself.
    _stdin: Option<ChildStdin>,
    events: mpsc::UnboundedReceiver<Event>,
    seen: Vec<Event>,
}

impl StandIn {
    /// Starts one, and waits for nothing.
    ///
    /// # Errors
    /// If it has not been built.
    pub fn start(options: &StandInOptions) -> anyhow::Result<StandIn> {
        let program = programs::stand_in()?;
        let sources: Vec<String> = options.sources.iter().map(ToString::to_string).collect();
        let mut command = Command::new(&program);
        command
            .args(["--name", &options.name, "--endpoints", &options.endpoints.join(",")])
            .args(["--namespace", &options.namespace])
            .args(["--ttl-ms", &options.ttl.as_millis().to_string()])
            .args(["--grace-ms", &options.grace.as_millis().to_string()])
            .args(["--claim-every-ms", &options.claim_every.as_millis().to_string()])
            .args(["--sources", &sources.join(",")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(object) = options.write_object {
            command.args(["--write-object", &object.to_string()]);
        }
        let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let (said, events) = mpsc::unbounded_channel();
        // Ends with the process, as its output is closed then.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = Event::parse(&line)
                    .unwrap_or_else(|| Event::Failed { message: format!("it said {line}") });
                if said.send(event).is_err() {
                    return;
                }
            }
        });
        Ok(StandIn { child, _stdin: stdin, events, seen: Vec::new() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an event that `pick` takes; events that it does not take are passed over, and can
    /// be found in [`StandIn::seen`].
    ///
    /// # Errors
    /// If there is none within this time, or something went wrong in the process.
    pub async fn next<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + within;
        loop {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let event = event
                .with_context(|| format!("the stand-in says {what}: not within {within:?}"))?
                .with_context(|| format!("the stand-in has ended before it said {what}"))?;
            if let Event::Failed { message } = &event {
                bail!("the stand-in failed: {message}");
            }
            let picked = pick(&event);
            self.seen.push(event);
            if let Some(picked) = picked {
                return Ok(picked);
            }
        }
    }

    /// All events so far, without waiting.
    pub fn seen(&mut self) -> &[Event] {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
        &self.seen
    }

    /// The last renewal that it saw, of those passed over so far: when it was sent, in microseconds
    /// on CLOCK_BOOTTIME.
    pub fn last_renewal_us(&mut self) -> Option<u64> {
        self.seen().iter().rev().find_map(|event| match event {
            Event::Renewed { sent_us } => Some(*sent_us),
            Event::Opened { .. }
            | Event::Attached
            | Event::Granted { .. }
            | Event::AllGranted { .. }
            | Event::Lost { .. }
            | Event::Wrote { .. }
            | Event::StaleWrite { .. }
            | Event::Failed { .. } => None,
        })
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        // An error says that it is gone already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGKILL; returns when it is gone and all that it said has been taken in.
    pub async fn kill_and_hear(&mut self) {
        self.kill();
        while let Some(event) = self.events.recv().await {
            self.seen.push(event);
        }
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// If it is gone.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it is gone.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // Our own child that has not been waited for, so the number is still its.
        kill_process(Pid::from_child(&self.child), signal).context("signal the stand-in")
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Event {
    /// As one line of JSON.
    #[must_use]
    pub fn format(&self) -> String {
        use serde_json::json;
        let value = match self {
            Event::Opened { lease, master } => {
                json!({"event": "opened", "lease": lease, "master": master})
            }
            Event::Attached => json!({"event": "attached"}),
            Event::Renewed { sent_us } => json!({"event": "renewed", "sent_us": sent_us}),
            Event::Granted { source, token, sent_us, at_us } => json!({
                "event": "granted", "source": source, "token": token, "sent_us": sent_us,
                "at_us": at_us,
            }),
            Event::AllGranted { at_us } => json!({"event": "all_granted", "at_us": at_us}),
            Event::Lost { loss, at_us } => json!({"event": "lost", "loss": loss, "at_us": at_us}),
            Event::Wrote { began_us, at_us, result } => json!({
                "event": "wrote", "began_us": began_us, "at_us": at_us, "result": result,
            }),
            Event::StaleWrite { result } => json!({"event": "stale_write", "result": result}),
            Event::Failed { message } => json!({"event": "failed", "message": message}),
        };
        value.to_string()
    }

    /// The inverse of [`Event::format`]; none if the line is something else.
    #[must_use]
    pub fn parse(line: &str) -> Option<Event> {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let number = |name: &str| value.get(name)?.as_u64();
        let id = |name: &str| value.get(name)?.as_i64();
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        Some(match value.get("event")?.as_str()? {
            "opened" => Event::Opened { lease: number("lease")?, master: id("master")? },
            "attached" => Event::Attached,
            "renewed" => Event::Renewed { sent_us: number("sent_us")? },
            "granted" => Event::Granted {
                source: id("source")?,
                token: number("token")?,
                sent_us: number("sent_us")?,
                at_us: number("at_us")?,
            },
            "all_granted" => Event::AllGranted { at_us: number("at_us")? },
            "lost" => Event::Lost { loss: text("loss")?, at_us: number("at_us")? },
            "wrote" => Event::Wrote {
                began_us: number("began_us")?,
                at_us: number("at_us")?,
                result: text("result")?,
            },
            "stale_write" => Event::StaleWrite { result: text("result")? },
            "failed" => Event::Failed { message: text("message")? },
            _ => return None,
        })
    }
}
