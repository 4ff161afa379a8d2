//! README.md says what is so: its commands run and print what it says, its Rust is that of an example.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use holdfast_cluster_tests::holdfast;

/// Longest wait for an election. Far above what it takes: it ends a test that hangs.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// What a command prints stands behind it.
const PRINTS: &str = "#=>";

/// A directory to run commands in, with a local cluster of its own. Dropping it deletes both.
struct Scratch {
    dir: tempfile::TempDir,
    holdfast: PathBuf,
}

impl Scratch {
    fn new() -> anyhow::Result<Scratch> {
        let scratch = Scratch { dir: tempfile::tempdir()?, holdfast: holdfast()? };
        std::os::unix::fs::symlink(root().join("scripts"), scratch.dir.path().join("scripts"))?;
        Ok(scratch)
    }

    fn run(&self, line: &str) -> anyhow::Result<Output> {
        let beside = self.holdfast.parent().context("it is in a directory")?;
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new("sh")
            .args(["-c", line])
            .current_dir(&self.dir)
            .env("PATH", format!("{}:{path}", beside.display()))
            .env("HOLDFAST_BIN", &self.holdfast)
            .env("XDG_STATE_HOME", self.dir.path())
            .env("XDG_DATA_HOME", self.dir.path())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {line}"))
    }

    /// Runs a line of the page, which must do and print what the page says.
    fn follow(&self, line: &str) -> anyhow::Result<()> {
        let (command, prints) = match line.split_once(PRINTS) {
            Some((command, prints)) => (command, Some(prints)),
            None => (line, None),
        };
        // The ports of the page may be taken.
        let command = command.replace("cluster up ", "cluster up --base-port 0 ");
        if command.contains("status") {
            return self.status(&command);
        }
        let output = self.run(&command)?;
        // A create that loses says no.
        let expected = i32::from(prints.is_some_and(|prints| prints.contains("exists")));
        ensure!(output.status.code() == Some(expected), "{command}: {output:?}");
        if let Some(prints) = prints {
            let printed = String::from_utf8_lossy(&output.stdout);
            ensure!(shape(&printed) == shape(prints), "{command} prints {printed}, not {prints}");
        }
        Ok(())
    }
}

impl Scratch {
    /// Healthy or degraded, once a leader is elected.
    fn status(&self, command: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let output = self.run(command)?;
            if matches!(output.status.code(), Some(0 | 6)) {
                return Ok(());
            }
            ensure!(began.elapsed() < SETTLE_MAX, "{command}: {output:?}");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.run("holdfast down --purge") {
            eprintln!("down: {error:#}");
        }
    }
}

/// A text without what differs from run to run: numbers, and how many blanks there are.
fn shape(text: &str) -> String {
    let words = text.split_whitespace().map(|word| match word.parse::<u64>() {
        Ok(_) => "N",
        Err(_) => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace")
}

/// The lines of all blocks of the page in a language, under a heading.
fn block(heading: &str, language: &str) -> anyhow::Result<Vec<String>> {
    let page = std::fs::read_to_string(root().join("README.md"))?;
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).context("the heading")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mark = format!("```{language}\n");
    let blocks = section.split(&mark).skip(1);
    let lines = blocks.filter_map(|block| block.split("```").next()).flat_map(str::lines);
    let lines: Vec<String> =
        lines.filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    ensure!(!lines.is_empty(), "no block of {language} under {heading}");
    Ok(lines)
}

// UX.md, README: its blocks are run by a test, so it cannot drift.
#[test]
fn its_commands_do_what_it_says() -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let survive = block("See it survive", "sh")?;
    let (down, before) = survive.split_last().context("commands")?;
    for line in before.iter().chain(&block("Use it", "sh")?).chain([down]) {
        scratch.follow(line)?;
    }
    Ok(())
}

#[test]
fn its_rust_is_the_example() -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for name in ["readme", "objects"] {
        let path = root().join(format!("client/examples/{name}.rs"));
        let example = std::fs::read_to_string(path)?;
        let (_, from) = example.split_once("// README.md from here\n").context("the mark")?;
        let (code, _) = from.split_once("// to here\n").context("the other mark")?;
        let code = code.lines().map(|line| line.trim().to_owned());
        lines.extend(code.filter(|line| !line.is_empty()));
    }
    let blocks = block("Use it", "rust")?;
    assert_eq!(lines, blocks.iter().map(|line| line.trim()).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn its_setup_names_scripts_that_are_there() -> anyhow::Result<()> {
    for line in block("Set up", "sh")? {
        ensure!(root().join(&line).is_file(), "there is no {line}");
    }
    Ok(())
}
