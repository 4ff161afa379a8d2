//! A program that saves trees of objects, in a process of its own, to be killed midway.
//!
//! `holdfast-saver URI NAME COUNT` saves so many trees, one after the other, says `saved ROUND ID` of each
//! once that is acknowledged, and then `done`. What a tree holds follows from the name and the round
//! ([`mod@holdfast_cluster_tests::saver`]). It ends when its standard input is closed.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, bail};
use holdfast_client::persistence::make_store;
use holdfast_cluster_tests::saver;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    // When the test that started us is gone, so are we.
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _closed = std::io::stdin().lock().read_to_end(&mut rest);
        std::process::exit(0);
    });
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [uri, name, count] = args.as_slice() else { bail!("three arguments: URI NAME COUNT") };
    let store = make_store(uri)?;
    let count: usize = count.parse().context("a number")?;
    for round in 0..count {
        let id = store.save(&saver::tree(name, round)).await?;
        say(&format!("saved {round} {id}"));
    }
    say("done");
    Ok(())
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{what}").and_then(|()| out.flush()).is_err() {
        // Nobody listens any more.
        std::process::exit(0);
    }
}
