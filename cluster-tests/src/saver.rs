//! A saver of trees in a process of its own (`src/bin/saver.rs`), and what it saves.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::persistence::{Id, Object, Tree};
use tokio::sync::mpsc;

use crate::programs;

/// Longest wait for something that it is to say. Far above what it takes: it ends a test that hangs.
const SAY_MAX: Duration = Duration::from_secs(120);
/// The class of the roots.
pub const ROOT: &str = "Tree";
/// The class of what they refer to.
pub const LEAF: &str = "Leaf";
/// One tree in so many is too large for one request.
const LARGE_EVERY: usize = 25;
/// One tree in so many has many leaves.
const WIDE_EVERY: usize = 5;

/// How many leaves a tree has that is saved in this round.
#[must_use]
pub fn leaves(round: usize) -> usize {
    if round % WIDE_EVERY == WIDE_EVERY - 1 { 20 } else { 3 }
}

/// How many leaves a root has, by its metadata.
///
/// # Errors
/// If it is none of ours.
pub fn leaves_of(metadata: &BTreeMap<String, String>) -> anyhow::Result<usize> {
    Ok(leaves(metadata.get("round").context("a root says when it was saved")?.parse()?))
}

/// What a saver of this name saves in a round.
#[must_use]
pub fn tree(name: &str, round: usize) -> Object {
    let leaf = |nth| Arc::new(Object::new(LEAF, body(name, round, nth)));
    let mut root = Object::new(ROOT, body(name, round, leaves(round)));
    root.metadata.insert("saver".to_owned(), name.to_owned());
    root.metadata.insert("round".to_owned(), round.to_string());
    root.children = (0..leaves(round)).map(leaf).collect();
    root
}

/// Whether a tree is what a saver saved: all of it, and of one round.
///
/// # Errors
/// If it is not, with what is wrong.
pub fn check(tree: &Tree) -> anyhow::Result<()> {
    let root = tree.root();
    let name = root.metadata.get("saver").context("a root says who saved it")?;
    let round = root.metadata.get("round").context("a root says when")?.parse()?;
    let leaves = leaves(round);
    ensure!(root.children.len() == leaves, "{} has {:?}", root.id, root.children);
    ensure!(root.body == body(name, round, leaves), "the root of {name} {round} differs");
    for (nth, leaf) in root.children.iter().enumerate() {
        let leaf = tree.get(*leaf).context("a tree has its leaves")?;
        ensure!(leaf.class_name == LEAF, "{leaf:?}");
        ensure!(leaf.body == body(name, round, nth), "leaf {nth} of {name} {round} differs");
    }
    Ok(())
}

fn body(name: &str, round: usize, nth: usize) -> Vec<u8> {
    let is_large = round % LARGE_EVERY == LARGE_EVERY - 1;
    let text = format!("{name} {round} {nth} ");
    text.repeat(if is_large { (200 << 10) / text.len() } else { 10 }).into_bytes()
}

/// A saver's process. Dropping it kills it and waits for it.
#[derive(Debug)]
pub struct SaverProcess {
    child: Child,
    said: mpsc::UnboundedReceiver<String>,
}

impl SaverProcess {
    /// Starts one, which saves so many trees into the store of a URI.
    ///
    /// # Errors
    /// If it has not been built.
    pub fn start(uri: &str, name: &str, count: usize) -> anyhow::Result<SaverProcess> {
        let program = programs::saver()?;
        let mut child = Command::new(&program)
            .args([uri, name, &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let (send, said) = mpsc::unbounded_channel();
        // Ends with the process, as its output is closed then.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(SaverProcess { child, said })
    }

    /// What it saves next, once that is acknowledged: the round and the root's id; none when it is done.
    ///
    /// # Errors
    /// If it ends before it is done, or says nothing for two minutes.
    pub async fn saved(&mut self) -> anyhow::Result<Option<(usize, Id)>> {
        let said = tokio::time::timeout(SAY_MAX, self.said.recv()).await;
        let line = said.context("it never said what it saved")?;
        let line = line.context("it ended before it was done")?;
        if line == "done" { Ok(None) } else { parse(&line).map(Some) }
    }

    /// SIGKILL; returns when it is gone, with what else it had saved.
    ///
    /// # Errors
    /// If it said something else.
    pub async fn kill(&mut self) -> anyhow::Result<Vec<(usize, Id)>> {
        // An error says that it is gone already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut rest = Vec::new();
        while let Some(line) = self.said.recv().await {
            if line != "done" {
                rest.push(parse(&line)?);
            }
        }
        Ok(rest)
    }
}

impl Drop for SaverProcess {
    fn drop(&mut self) {
        // Gone already, or gone now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> anyhow::Result<(usize, Id)> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["saved", round, id] = words.as_slice() else { bail!("it said {line:?}") };
    Ok((round.parse()?, id.parse()?))
}
