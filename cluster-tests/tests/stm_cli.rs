//! `holdfast stm`: what it prints and what it exits with, on a real cluster. // UX.md, T2, T5, T6

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_cluster_tests::{Cluster, Ended, holdfast, serve_until_end};
use serde_json::{Value, json};

/// Ends a test that hangs.
const LONG: Duration = Duration::from_secs(60);

/// The command, against a cluster.
struct Stm {
    endpoints: String,
}

impl Stm {
    fn run(&self, args: &[&str]) -> anyhow::Result<Ended> {
        let all = [&["stm"], args, &["--endpoints", &self.endpoints]].concat();
        serve_until_end(&all, &[], LONG)
    }

    /// What it prints, if it exits with this.
    fn prints(&self, args: &[&str], code: i32) -> anyhow::Result<String> {
        let ended = self.run(args)?;
        ensure!(ended.code == Some(code), "{args:?}: {ended:?}");
        Ok(ended.stdout.trim_end().to_owned())
    }

    fn json(&self, args: &[&str], code: i32) -> anyhow::Result<Value> {
        let text = self.prints(&[args, &["-o", "json"]].concat(), code)?;
        serde_json::from_str(&text).with_context(|| text)
    }

    /// With this on standard input.
    fn fed(&self, args: &[&str], input: &str) -> anyhow::Result<(Option<i32>, String)> {
        let mut command = Command::new(holdfast()?);
        command.arg("stm").args(args).args(["--endpoints", &self.endpoints]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("it is piped")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        Ok((output.status.code(), String::from_utf8(output.stdout)?.trim_end().to_owned()))
    }
}

/// A text without its revision, which is the number behind that word.
fn without_revision(text: &str) -> String {
    let mut words = Vec::new();
    for word in text.split(' ') {
        let is_number = words.last() == Some(&"revision") && word.parse::<u64>().is_ok();
        words.push(if is_number { "N" } else { word });
    }
    words.join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_do_what_they_print() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Default::default()).await?;
    let stm = Stm { endpoints: cluster.endpoints().join(",") };

    // Absent is exit 1, and says so.
    let absent = stm.run(&["get", "alice"])?;
    ensure!(absent.code == Some(1) && absent.stderr.contains("error[absent]"), "{absent:?}");
    ensure!(absent.stderr.contains("there is no variable 'alice'"), "{absent:?}");

    let put = stm.prints(&["put", "alice", "{\"n\": 100}"], 0)?;
    ensure!(without_revision(&put) == "written  revision N", "{put}");
    ensure!(stm.prints(&["get", "alice"], 0)? == "{\"n\": 100}");
    ensure!(stm.prints(&["get", "'alice'", "--local"], 0)? == "{\"n\": 100}");
    let found = stm.json(&["get", "alice"], 0)?;
    ensure!(found["key"] == "'alice'" && found["version"] == "1", "{found}");
    ensure!(found["value"] == "{\"n\": 100}" && found["codec"] == "json", "{found}");
    ensure!(found["schema"] == "holdfast.stm/v1", "{found}");

    // A version that is not there (any more) writes nothing; one that never was is refused.
    let lost = stm.prints(&["put", "alice", "1", "--if-version", "0"], 1)?;
    ensure!(lost == "lost  version 1  {\"n\": 100}", "{lost}");
    let refused = stm.run(&["put", "alice", "1", "--if-version", "9"])?;
    ensure!(refused.code == Some(2), "{refused:?}");
    let not_json = stm.run(&["put", "alice", "hello"])?;
    ensure!(
        not_json.code == Some(2) && not_json.stderr.contains("error[not-json]"),
        "{not_json:?}"
    );

    // 7, 7.0 and 0x7 are one key, '7' is another.
    stm.prints(&["put", "7.0", "[]"], 0)?;
    ensure!(stm.prints(&["get", "0x7"], 0)? == "[]");
    stm.prints(&["get", "'7'"], 1)?;
    stm.prints(&["put", "('account', 7)", "-1"], 0)?;
    stm.prints(&["put", "('account', 7.5)", "2"], 0)?;

    // A pickle is bytes.
    let (code, _) = stm.fed(&["put", "blob", "-", "--codec", "pickle"], "\u{80}K\u{1}.")?;
    ensure!(code == Some(0));
    let blob = stm.json(&["get", "blob"], 0)?;
    ensure!(blob["codec"] == "pickle" && blob["value"] == "\u{80}K\u{1}.", "{blob}");

    // In order of the keys: numbers, texts, tuples.
    let list = stm.json(&["list"], 0)?;
    let keys: Vec<&Value> =
        list["variables"].as_array().context("a list")?.iter().map(|v| &v["key"]).collect();
    let expected = ["7", "'alice'", "'blob'", "('account', 7)", "('account', 7.5)"];
    ensure!(keys == expected, "{list}");
    let accounts = stm.prints(&["list", "('account',)", "-o", "jsonl"], 0)?;
    ensure!(accounts.lines().count() == 2, "{accounts}");
    let dump = stm.prints(&["dump"], 0)?;
    let lines: Vec<&str> = dump.lines().collect();
    let expected = [
        "7 = []  version 1",
        "'alice' = {\"n\": 100}  version 1",
        "'blob' = <pickle of 5 bytes>  version 1",
        "('account', 7) = -1  version 1",
        "('account', 7.5) = 2  version 1",
    ];
    ensure!(lines == expected, "{dump}");
    let dump = stm.json(&["dump", "al"], 0)?;
    ensure!(dump["variables"].as_array().context("a list")?.len() == 1, "{dump}");
    ensure!(dump["revision"].as_str().is_some_and(|r| r.parse::<u64>().is_ok()), "{dump}");

    ensure!(stm.prints(&["del", "7"], 0)? == "deleted");
    stm.prints(&["del", "7"], 1)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_carried_out_whole() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Default::default()).await?;
    let stm = Stm { endpoints: cluster.endpoints().join(",") };
    let steps = ["expect alice absent", "put alice 100", "put ('log', 1) \"opened\""];
    let done = stm.prints(&[&["txn"], &steps[..]].concat(), 0)?;
    ensure!(without_revision(&done) == "committed  revision N", "{done}");

    let script = "# ten for bob\nexpect alice 1\nexpect bob absent\nput alice 90\nput bob 10\n\
                  del ('log', 1)\n";
    let (code, done) = stm.fed(&["txn"], script)?;
    ensure!(code == Some(0) && without_revision(&done) == "committed  revision N", "{done}");
    // Again: two comparisons fail, and nothing is written.
    let (code, lost) = stm.fed(&["txn"], script)?;
    ensure!(code == Some(1), "{lost}");
    ensure!(lost == "conflict  2 failed\n'alice'  version 2  90\n'bob'  version 1  10", "{lost}");
    let lost = stm.json(&["txn", "expect bob absent", "put bob 0"], 1)?;
    ensure!(lost["committed"] == false && lost["conflicts_total"] == 1, "{lost}");
    ensure!(lost["conflicts"][0]["value"] == "10", "{lost}");
    stm.prints(&["get", "('log', 1)"], 1)?;
    let wrong = stm.run(&["txn", "take bob 1"])?;
    ensure!(wrong.code == Some(2) && wrong.stderr.contains("step 1"), "{wrong:?}");
    cluster.finish().await
}

// W1
#[tokio::test(flavor = "multi_thread")]
async fn watch_names_the_variables() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Default::default()).await?;
    let stm = Stm { endpoints: cluster.endpoints().join(",") };
    let first = stm.json(&["put", "('account', 7)", "1"], 0)?;
    let from = first["mod_revision"].as_str().context("a revision")?.to_owned();
    stm.prints(&["put", "other", "1"], 0)?;
    stm.prints(&["put", "('account', 7)", "2"], 0)?;
    stm.prints(&["del", "('account', 7)"], 0)?;

    let mut command = Command::new(holdfast()?);
    command.args(["stm", "watch", "('account',)", "--from-revision", &from, "-o", "jsonl"]);
    command.args(["--endpoints", &stm.endpoints]).stdout(Stdio::piped());
    let mut watching = command.spawn()?;
    let printed = BufReader::new(watching.stdout.take().context("it is piped")?);
    let read = tokio::task::spawn_blocking(move || {
        printed.lines().take(3).collect::<Result<Vec<String>, _>>()
    });
    let read = tokio::time::timeout(LONG, read).await;
    watching.kill()?;
    watching.wait()?;
    let lines = read.context("it prints nothing")???;
    let events: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    ensure!(events.iter().all(|event| event["key"] == "('account', 7)"), "{lines:?}");
    ensure!(events[0]["path"] == "stm/('account', 7)" && events[0]["revision"] == json!(from));
    let versions: Vec<&Value> = events.iter().map(|event| &event["version"]).collect();
    ensure!(versions == [&json!("1"), &json!("2"), &Value::Null], "{lines:?}");
    cluster.finish().await
}
