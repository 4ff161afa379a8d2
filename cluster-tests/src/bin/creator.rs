//! A caller of an exclusive create in a process of its own, to be killed and frozen midway.
//!
//! `holdfast-creator ENDPOINT,… OBJECT KEY TTL_MS polite|stubborn`. It says `creating TOKEN` when its callback
//! begins, and there waits for a line on its standard input; a polite one also for the loss of its right, which it
//! says as `lost` and gives up. Then it says `effect TOKEN`, and in the end `created true|false VALUE` or `failed
//! REASON`. It ends when its standard input is closed.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use holdfast_client::{Client, ClientConfig, ExclusiveError, ExclusiveOptions};
use tokio::sync::mpsc;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let (send, mut told) = mpsc::unbounded_channel();
    // When the test that started us is gone, so are we.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _waiting_or_not = send.send(line);
        }
        std::process::exit(0);
    });
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, object, key, ttl_ms, manner] = args.as_slice() else {
        bail!("five arguments: ENDPOINT,… OBJECT KEY TTL_MS polite|stubborn")
    };
    let is_polite = match manner.as_str() {
        "polite" => true,
        "stubborn" => false,
        other => bail!("{other} is no manner"),
    };
    let client = Client::connect(ClientConfig::new(endpoints.split(',')));
    let ttl = Duration::from_millis(ttl_ms.parse()?);
    let options = ExclusiveOptions { ttl, ..ExclusiveOptions::default() };
    let object = object.parse().context("an object's id")?;
    let state = client.state();
    let created = state.create_exclusive(object, key, options, async |creator| {
        let token = creator.token();
        say(&format!("creating {token}"));
        tokio::select! {
            _ = told.recv() => {}
            _ = creator.lost(), if is_polite => {
                say("lost");
                return Err("LOST".to_owned());
            }
        }
        say(&format!("effect {token}"));
        Ok(format!("made under {token}"))
    });
    match created.await {
        Ok(created) => {
            let value = String::from_utf8_lossy(&created.value).into_owned();
            say(&format!("created {} {value}", created.created));
        }
        Err(ExclusiveError::Callback(reason)) => say(&format!("failed {reason}")),
        Err(ExclusiveError::Waited(_)) => say("failed WAITED"),
        Err(ExclusiveError::Call(error)) => {
            say(&format!("failed {}", error.reason().unwrap_or(&error.to_string())));
        }
    }
    std::future::pending().await
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{what}").and_then(|()| out.flush()).is_err() {
        // Nobody listens any more.
        std::process::exit(0);
    }
}
