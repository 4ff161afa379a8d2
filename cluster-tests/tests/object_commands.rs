//! `holdfast object`: files go in and come back byte for byte, and every no has its exit code.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_cluster_tests::{Cluster, Options, holdfast};
use serde_json::Value;

/// Runs `holdfast object` against a node.
fn object(endpoint: &str, args: &[&str]) -> anyhow::Result<Output> {
    Command::new(holdfast()?)
        .arg("object")
        .args(args)
        .args(["--endpoints", endpoint])
        .stdin(Stdio::null())
        .output()
        .context("run holdfast")
}

fn ok(output: &Output) -> anyhow::Result<String> {
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn refused(output: &Output, code: i32, says: &[&str]) -> anyhow::Result<()> {
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{output:?}");
    ensure!(says.iter().all(|text| told.contains(text)), "{told} does not say {says:?}");
    ensure!(output.stdout.is_empty(), "{output:?}");
    Ok(())
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

// P1 P2, UX.md
#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_come_back() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Options::default()).await?;
    let (endpoint, dir) = (cluster.endpoint(0), cluster.dir());
    tokio::task::spawn_blocking(move || round_trip(&endpoint, &dir)).await??;
    cluster.finish().await
}

fn round_trip(endpoint: &str, dir: &Path) -> anyhow::Result<()> {
    let (small, large) = (dir.join("small"), dir.join("large"));
    std::fs::write(&small, b"\0bytes\xff\n")?;
    std::fs::write(&large, vec![7; 3 << 20])?;
    let about = ["--class", "job", "--meta", "state=NEW", "--meta", "size="];
    let id = ok(&object(endpoint, &[&["save", path(&small)], &about[..]].concat())?)?;
    ensure!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    let loaded = object(endpoint, &["load", &id])?;
    ensure!(loaded.status.success() && loaded.stdout == b"\0bytes\xff\n", "{loaded:?}");
    let second = ok(&object(endpoint, &["save", path(&large)])?)?;
    ensure!(second > id, "{second} after {id}");
    let loaded = object(endpoint, &["load", &second])?;
    ensure!(loaded.status.success() && loaded.stdout == vec![7; 3 << 20]);

    let json: Value = serde_json::from_str(&ok(&object(endpoint, &["load", &id, "-o", "json"])?)?)?;
    let expected = serde_json::json!({
        "schema": "holdfast.object/v1",
        "id": id,
        "class": "job",
        "metadata": { "state": "NEW", "size": "" },
        "children": [],
        "body": { "base64": "AGJ5dGVz/wo=" },
    });
    ensure!(json == expected, "{json}");

    let listed = ok(&object(endpoint, &["list", "-o", "json", "--meta", "state=NEW"])?)?;
    let listed: Value = serde_json::from_str(&listed)?;
    let expected = serde_json::json!({
        "schema": "holdfast.stored/v1",
        "objects": [{
            "id": id, "class": "job", "bytes": 8, "metadata": { "state": "NEW", "size": "" },
        }],
    });
    ensure!(listed == expected, "{listed}");
    let text = ok(&object(endpoint, &["list"])?)?;
    let words: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    let size = (3 << 20).to_string();
    let expected = [
        vec!["ID", "CLASS", "BYTES", "METADATA"],
        vec![id.as_str(), "job", "8", "size=", "state=NEW"],
        vec![second.as_str(), "file", size.as_str()],
    ];
    ensure!(words == expected, "{text}");

    ok(&object(endpoint, &["replace", &id, path(&large)])?)?;
    ensure!(object(endpoint, &["load", &id])?.stdout.len() == 3 << 20, "it is not replaced");
    ok(&object(endpoint, &["remove", &id, &second])?)?;
    ok(&object(endpoint, &["remove", &id])?)?;
    refused(&object(endpoint, &["load", &id])?, 1, &["error[absent]", &id])
}

// P2 G9 G11, UX.md
#[tokio::test(flavor = "multi_thread")]
async fn every_no_has_its_exit_code() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Options::default()).await?;
    let (endpoint, dir) = (cluster.endpoint(0), cluster.dir());
    let checked = tokio::task::spawn_blocking(move || {
        let huge = dir.join("huge");
        // A hole: nothing of it is on the disk.
        std::fs::File::create(&huge)?.set_len((64 << 20) + 1)?;
        let numbers = ["error[bad-request]", "67108865", "67108864"];
        refused(&object(&endpoint, &["save", path(&huge)])?, 2, &numbers)?;
        let never = ["replace", "9999999999999999", path(&huge)];
        refused(&object(&endpoint, &never)?, 2, &numbers)?;
        std::fs::write(&huge, b"small")?;
        refused(&object(&endpoint, &never)?, 2, &["error[bad-request]", "never given out"])?;
        let missing = ["save", "/nonexistent/file"];
        refused(&object(&endpoint, &missing)?, 9, &["/nonexistent/file"])?;
        refused(&object(&endpoint, &["load", "17"])?, 2, &["16 digits"])?;
        let bare = ["save", path(&huge), "--meta", "word"];
        refused(&object(&endpoint, &bare)?, 2, &["NAME=VALUE"])?;
        let nobody = ["load", "1000000000000000", "--timeout", "300ms"];
        refused(&object("127.0.0.1:1", &nobody)?, 3, &["error[unreachable]"])
    });
    checked.await??;
    cluster.finish().await
}

// UX.md rule 1: on a terminal a bar after half a second.
#[tokio::test(flavor = "multi_thread")]
async fn long_transfer_has_a_bar_on_a_terminal() -> anyhow::Result<()> {
    let cluster = Cluster::start(3, Options { network: true, ..Options::default() }).await?;
    let leader = cluster.leader().await?;
    let (quick, long) = (cluster.dir().join("quick"), cluster.dir().join("long"));
    std::fs::write(&quick, "soon there")?;
    let mut bytes = vec![0; 64 << 20];
    // No two chunks alike, so that all of them are sent.
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    std::fs::write(&long, bytes)?;
    let endpoint = cluster.endpoint(leader);
    let at_once =
        tokio::task::spawn_blocking(move || object(&endpoint, &["save", path(&quick)])).await??;
    ensure!(at_once.status.success() && at_once.stderr.is_empty(), "{at_once:?}");
    // At most 2 MiB are on their way to the log of the others at a time: that makes 32 round trips.
    let (leader_id, by) = (u64::try_from(leader + 1)?, Duration::from_millis(30));
    let slowed = cluster.network().change(|rules| rules.slow(leader_id, by));
    ensure!(slowed.is_ok(), "{slowed:?}");
    let endpoint = cluster.endpoint(leader);
    let seen = tokio::task::spawn_blocking(move || {
        on_terminal(&["object", "save", path(&long), "--endpoints", &endpoint])
    });
    let seen = seen.await??;
    ensure!(seen.contains("saving [") && seen.contains(" of 64.00 MiB"), "{seen:?}");
    ensure!(seen.trim_end().ends_with(|last: char| last.is_ascii_digit()), "{seen:?}");
    cluster.finish().await
}

// UX.md rule 1: elsewhere a line after two seconds; stdout is the answer's.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_says_so() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Options::default()).await?;
    cluster.pause(0)?;
    let endpoint = cluster.endpoint(0);
    let told = tokio::task::spawn_blocking(move || {
        let load = ["load", "1000000000000000", "--timeout", "2500ms"];
        Ok::<_, anyhow::Error>((
            object(&endpoint, &load)?,
            object(&endpoint, &[&load[..], &["-o", "json"]].concat())?,
        ))
    });
    let (text, json) = told.await??;
    cluster.resume(0)?;
    refused(&text, 3, &["waiting for the cluster (2.0 s)\n", "error[unreachable]"])?;
    ensure!(!String::from_utf8_lossy(&json.stderr).contains("waiting"), "{json:?}");
    cluster.finish().await
}

/// What the program shows on a terminal.
fn on_terminal(args: &[&str]) -> anyhow::Result<String> {
    let command = format!("{} {}", path(&holdfast()?), args.join(" "));
    let output = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .context("run script, which makes a terminal")?;
    ok(&output)
}
