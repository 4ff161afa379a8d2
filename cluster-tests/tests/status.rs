//! The command line as people and scripts see it: what it prints, in which shape, and with which
//! exit code. A local cluster is started, looked at, broken and mended with it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_cluster_tests::{Ended, bound, report, scale, serve_until_end};
use serde_json::Value;
use tempfile::TempDir;

/// No command takes so long, starting a cluster included.
const COMMAND_MAX: Duration = Duration::from_secs(40);
/// `status` answers within this time when the quorum is lost, whatever the machine.
const STATUS_MAX: Duration = Duration::from_secs(1);

#[test]
fn status_with_a_lost_quorum_says_so_within_a_second() -> anyhow::Result<()> {
    let local = Local::up()?;
    local.ok("state set demo key 1")?;
    let leader = local.json("status")?["leader"].as_str().context("it leads")?.to_owned();
    let mut followers = ["n1", "n2", "n3"].to_vec();
    followers.retain(|node| *node != leader);

    // The leader and a follower are gone: nobody leads.
    local.ok(&format!("local kill {}", followers[0]))?;
    local.ok("local kill leader")?;
    let mut slowest = Duration::ZERO;
    for turn in 0..scale(20, 5) {
        let ended = local.run("status")?;
        slowest = slowest.max(ended.took);
        ensure!(ended.took < STATUS_MAX, "status {turn} took {:?}", ended.took);
        ensure!(ended.code == Some(4), "exit {:?}: {}", ended.code, ended.stderr);
        ensure!(ended.stdout.is_empty(), "on stdout: {}", ended.stdout);
        let lines: Vec<&str> = ended.stderr.lines().collect();
        let [what, cause, help] = lines[..] else { bail!("not three lines: {}", ended.stderr) };
        ensure!(what == "error[no-quorum]: the cluster cannot commit writes", "{what}");
        let alive = followers[1];
        let answers = format!("  cause: 1 of 3 voters answers ({alive}); ");
        ensure!(cause.starts_with(&answers), "{cause}");
        let mut gone = [&*leader, followers[0]];
        gone.sort_unstable();
        for node in gone {
            ensure!(cause.contains(&format!("{node} unreachable")), "{cause}");
        }
        let [a, b] = gone;
        let bring_back = format!(
            "   help: bring back {a} or {b}. Nothing is lost; stale reads work with --local."
        );
        ensure!(help == bring_back, "{help}");
    }
    report("status with a lost quorum, slowest", format!("{} ms", slowest.as_millis()));

    let json = local.json_of("status", 4)?;
    ensure!(json["schema"] == "holdfast.status/v1" && json["verdict"] == "no-quorum", "{json}");
    ensure!(json["can_lose"] == 0 && json["error"]["code"] == "no-quorum", "{json}");
    // What its help promises.
    let stale = local.ok("state get demo key --local")?;
    ensure!(stale.stdout == "1\n", "{stale:?}");
    // A write is not carried out; it is sent, so that nobody can say more than that it is unknown,
    // or it waits for a leader, and nothing was sent.
    let write = local.run("state set demo key 2 --timeout 1s")?;
    ensure!(matches!(write.code, Some(4 | 7)), "{write:?}");

    local.ok(&format!("local kill {}", followers[1]))?;
    let ended = local.run("status")?;
    ensure!(ended.code == Some(3) && ended.took < STATUS_MAX, "{ended:?}");
    ensure!(
        ended.stderr.starts_with("error[unreachable]: no node answered\n  cause: "),
        "{ended:?}"
    );
    ensure!(local.json_of("status", 3)?["verdict"] == "unreachable", "not unreachable");
    ensure!(local.run("state get demo key --timeout 1s")?.code == Some(3), "a read reached nobody");

    // Bringing one back is enough, as the help says.
    local.ok(&format!("local start {leader}"))?;
    local.ok(&format!("local start {}", followers[0]))?;
    let value = local.ok("state get demo key")?;
    ensure!(value.stdout == "1\n" || value.stdout == "2\n", "{value:?}");
    ensure!(local.run("status")?.code == Some(6), "two of three are not degraded");
    Ok(())
}

/// The leader itself may be the one that is left: it tells how long the others have been silent,
/// whether they are gone or only hang.
#[test]
fn a_leader_without_followers_is_no_quorum() -> anyhow::Result<()> {
    let local = Local::up()?;
    for (break_it, mend_it) in [("pause", "resume"), ("kill", "start")] {
        let leader = local.json("status")?["leader"].as_str().context("it leads")?.to_owned();
        let mut followers = ["n1", "n2", "n3"].to_vec();
        followers.retain(|node| *node != leader);
        for node in &followers {
            local.ok(&format!("local {break_it} {node}"))?;
        }
        let ended = local.run("status")?;
        // It looks until that second is nearly over, so a busy machine gets more of them.
        ensure!(ended.took < bound(STATUS_MAX), "{break_it}: status took {:?}", ended.took);
        ensure!(ended.code == Some(4), "{break_it}: {ended:?}");
        let answers = format!("  cause: 1 of 3 voters answers ({leader}); ");
        ensure!(ended.stderr.contains(&answers), "{break_it}: {ended:?}");
        for node in &followers {
            ensure!(ended.stderr.contains(&format!("{node} unreachable")), "{ended:?}");
        }
        for node in &followers {
            local.ok(&format!("local {mend_it} {node}"))?;
        }
        local.until_status(0, "Healthy.")?;
    }
    Ok(())
}

#[test]
fn a_local_cluster_is_started_broken_and_mended() -> anyhow::Result<()> {
    let local = Local::new()?;
    let up = local.ok("up --base-port 0")?;
    let lines: Vec<&str> = up.stdout.lines().collect();
    ensure!(lines.len() == 9, "nodes, a sentence, and four things to do: {}", up.stdout);
    for (index, line) in lines[..3].iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [node, endpoint, "pid", pid, role] = words[..] else { bail!("{line}") };
        ensure!(node == format!("n{}", index + 1), "{line}");
        ensure!(endpoint.starts_with("127.0.0.1:"), "{line}");
        ensure!(pid.parse::<u32>().is_ok() && ["leader", "follower"].contains(&role), "{line}");
    }
    let leaders = lines[..3].iter().filter(|line| line.ends_with("leader")).count();
    ensure!(leaders == 1, "{leaders} leaders: {}", up.stdout);
    ensure!(lines[3].starts_with("Ready in "), "{}", lines[3]);
    let sentence = ": a write committed on 3 of 3 nodes. One node can fail.";
    ensure!(lines[3].ends_with(sentence), "{}", lines[3]);
    for (line, verb) in lines[5..].iter().zip(["Look", "Try", "Break", "Stop"]) {
        ensure!(line.trim_start().starts_with(verb) && line.contains("holdfast "), "{line}");
    }

    let again = local.run("up --base-port 0")?;
    ensure!(again.code == Some(9) && again.stderr.contains("error[already-up]"), "{again:?}");
    let status = local.ok("status")?;
    ensure!(status.stdout.starts_with("Healthy. One more node can fail.\nleader n"), "{status:?}");
    ensure!(status.stdout.contains("3 of 3 voters"), "{status:?}");

    local.expect_states(["running", "running", "running"])?;
    local.ok("local pause n3")?;
    local.expect_states(["running", "running", "paused"])?;
    local.ok("local resume n3")?;
    local.ok("local kill n3")?;
    local.expect_states(["running", "running", "stopped"])?;
    local.until_status(6, "Degraded: n3 unreachable")?;
    ensure!(local.run("local kill n3")?.code == Some(1), "it does not run");
    ensure!(local.run("local kill n9")?.code == Some(1), "there is none");
    local.ok("local start n3")?;
    local.until_status(0, "Healthy.")?;
    local.ok("state set demo key 1")?;
    local.ok("local stop leader")?;
    local.ok("state set demo key 2")?;
    let stopped = local.json("ps")?;
    let stopped = stopped["nodes"].as_array().context("nodes")?.iter();
    let stopped: Vec<&str> = stopped
        .filter(|node| node["state"] == "stopped")
        .filter_map(|node| node["node"].as_str())
        .collect();
    let [stopped] = stopped[..] else { bail!("not one is stopped: {stopped:?}") };
    local.ok(&format!("local start {stopped}"))?;
    local.ok("local restart leader")?;
    local.until_status(0, "Healthy.")?;

    local.ok("down")?;
    local.expect_states(["stopped", "stopped", "stopped"])?;
    ensure!(local.ok("down")?.stdout.starts_with("No node was running."), "twice is fine");
    let up = local.json("up")?;
    ensure!(up["schema"] == "holdfast.up/v1", "{up}");
    ensure!(up["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3), "{up}");
    ensure!(up["ready_ms"].is_u64() && up["can_lose"] == 1, "{up}");
    ensure!(local.ok("state get demo key")?.stdout == "2\n", "the data went with the processes");
    let data = up["data_dir"].as_str().context("where the data is")?.to_owned();
    local.ok("down --purge")?;
    ensure!(!Path::new(&data).exists(), "{data} is still there");
    ensure!(local.run("ps")?.code == Some(1), "there is no local cluster any more");
    Ok(())
}

#[test]
fn two_local_clusters_run_side_by_side() -> anyhow::Result<()> {
    let local = Local::new()?;
    local.ok("up -n 1 --base-port 0 --name left")?;
    local.ok("up -n 1 --base-port 0 --name right")?;
    local.ok("state set demo key 1 --name left")?;
    let right = local.run("state get demo key --name right")?;
    ensure!(right.code == Some(1), "one cluster sees the other's state: {right:?}");
    local.ok("down --purge --name right")?;
    ensure!(local.ok("state get demo key --name left")?.stdout == "1\n", "left is gone, too");
    local.ok("down --purge --name left").map(drop)
}

#[test]
fn outputs_that_scripts_rely_on() -> anyhow::Result<()> {
    let local = Local::up()?;
    let created = local.ok("state create demo key \"hello\"")?.stdout;
    let revision =
        created.trim_end().strip_prefix("created  revision ").context(created.clone())?;
    revision.parse::<u64>()?;
    let exists = local.run("state create demo key \"other\"")?;
    ensure!(exists.code == Some(1), "{exists:?}");
    ensure!(exists.stdout == format!("exists  revision {revision}  \"hello\"\n"), "{exists:?}");
    ensure!(local.ok("state get demo key")?.stdout == "\"hello\"\n", "not the text alone");
    ensure!(local.ok("state get cli/demo key")?.stdout == "\"hello\"\n", "the class is cli");
    ensure!(local.ok("state get demo key -o jsonl")?.stdout.lines().count() == 1, "not one line");
    let json = local.json("state get demo key")?;
    ensure!(json["schema"] == "holdfast.state/v1" && json["value"] == "\"hello\"", "{json}");
    ensure!(json["mod_revision"] == revision, "64-bit numbers are text: {json}");
    let json = local.json_of("state create demo key 1", 1)?;
    ensure!(json["created"] == false && json["value"] == "\"hello\"", "{json}");

    for absent in ["state get demo nothing", "state get nobody key", "state del demo nothing"] {
        let ended = local.run(absent)?;
        ensure!(ended.code == Some(1) && ended.stdout.is_empty(), "{absent}: {ended:?}");
        ensure!(ended.stderr.starts_with("error[absent]: "), "{absent}: {ended:?}");
    }
    let lost = local.run("state set demo key 2 --if-revision 1")?;
    ensure!(lost.code == Some(1) && lost.stdout.starts_with("lost  revision "), "{lost:?}");
    let no_json = local.run("state set demo key hello")?;
    ensure!(no_json.code == Some(2) && no_json.stderr.contains("error[not-json]"), "{no_json:?}");

    let members = local.json("members")?;
    let rows = members["members"].as_array().context("members")?;
    ensure!(rows.len() == 3, "{members}");
    for row in rows {
        for field in ["node", "role", "voter", "address", "applied"] {
            ensure!(!row[field].is_null(), "{field} misses: {row}");
        }
        ensure!(
            ["leader", "follower"].contains(&row["role"].as_str().unwrap_or_default()),
            "{row}"
        );
        ensure!(row["voter"] == true && row["applied"].is_string(), "{row}");
    }

    local.ok("changesource claim git-main --as master-a --ttl 30s")?;
    let claimed = local.run("changesource claim git-main --as master-c")?;
    ensure!(claimed.code == Some(1), "{claimed:?}");
    let what = claimed.stderr.lines().next().unwrap_or_default();
    let begin = "error[claimed]: git-main is owned by master-a (fence ";
    ensure!(what.starts_with(begin) && what.ends_with(" s left)"), "{what}");
    let help = "help: wait for it, or take it: holdfast changesource move git-main master-c";
    ensure!(claimed.stderr.trim_end().ends_with(help), "{claimed:?}");
    local.ok("changesource move git-main master-c")?;
    let list = local.json("changesource list")?;
    ensure!(list["changesources"][0]["owner"]["master"] == "master-c", "{list}");
    let fence = list["changesources"][0]["owner"]["fence"].as_str().context("a fence")?;
    let stale = local.run("state set demo key 3 --fence git-main:1")?;
    ensure!(stale.code == Some(5) && stale.stderr.contains("error[stale-fence]"), "{stale:?}");
    local.ok(&format!("state set demo key 3 --fence git-main:{fence}"))?;

    // C7
    let owned = local.run("changesource group join git-main project")?;
    ensure!(owned.code == Some(1), "{owned:?}");
    ensure!(owned.stderr.starts_with("error[in-use]: git-main is owned by master-c "), "{owned:?}");
    local.ok("changesource release git-main")?;
    let joined = local.ok("changesource group join git-main project")?;
    ensure!(joined.stdout == "joined  project\n", "{joined:?}");
    local.ok("changesource group join git-docs project")?;
    local.ok("changesource claim git-docs --as master-a")?;
    let claimed = local.run("changesource claim git-main --as master-c")?;
    ensure!(claimed.stderr.starts_with("error[claimed]: git-main is owned by master-a"));
    let groups = local.json("changesource group list")?;
    let project = &groups["groups"][0];
    ensure!(project["group"] == "project" && project["owner"]["master"] == "master-a", "{groups}");
    ensure!(project["changesources"] == serde_json::json!(["git-main", "git-docs"]), "{groups}");
    local.ok("changesource release git-main")?;
    let left = local.ok("changesource group leave git-docs")?;
    ensure!(left.stdout == "left  project\n", "{left:?}");
    let none = local.run("changesource group leave git-docs")?;
    ensure!(none.code == Some(1) && none.stderr.starts_with("error[absent]: "), "{none:?}");
    Ok(())
}

#[test]
fn exit_codes_without_a_cluster() -> anyhow::Result<()> {
    let local = Local::new()?;
    let nobody = "--endpoints 127.0.0.1:1,127.0.0.1:2";
    for (line, exit) in [
        ("bogus".to_owned(), 2),
        (String::new(), 2),
        ("state get demo".to_owned(), 2),
        ("up -n 0".to_owned(), 2),
        ("ps -o yaml".to_owned(), 2),
        ("status --endpoints nonsense".to_owned(), 2),
        (format!("status {nobody}"), 3),
        (format!("state get demo key --timeout 1s {nobody}"), 3),
        (format!("state set demo key 1 --timeout 1s {nobody}"), 3),
        ("ps".to_owned(), 1),
        ("local kill n1".to_owned(), 1),
        ("down".to_owned(), 0),
        ("version".to_owned(), 0),
        ("--version".to_owned(), 0),
        ("--help".to_owned(), 0),
        ("help no-quorum".to_owned(), 0),
        ("completions bash".to_owned(), 0),
    ] {
        let ended = local.run(&line)?;
        ensure!(ended.code == Some(exit), "holdfast {line}: not {exit}: {ended:?}");
        let is_answer = exit == 0;
        ensure!(ended.stdout.is_empty() != is_answer, "holdfast {line}: stdout: {ended:?}");
    }
    let error = local.run("state get demo key --timeout 1s -o json --endpoints 127.0.0.1:1")?;
    let json: Value = serde_json::from_str(&error.stderr).context(error.stderr.clone())?;
    ensure!(json["schema"] == "holdfast.error/v1" && json["code"] == "unreachable", "{json}");
    ensure!(json["exit"] == 3, "{json}");
    let help = local.ok("help no-quorum")?.stdout;
    ensure!(help.contains("no-quorum"), "{help}");
    Ok(())
}

/// The files of local clusters, away from those of whoever runs the tests. Ends what still runs.
struct Local {
    dir: TempDir,
}

impl Local {
    fn new() -> anyhow::Result<Local> {
        Ok(Local { dir: tempfile::Builder::new().prefix("holdfast-local-").tempdir()? })
    }

    /// With three nodes that are up.
    fn up() -> anyhow::Result<Local> {
        let local = Local::new()?;
        local.ok("up --base-port 0")?;
        Ok(local)
    }

    /// Runs `holdfast` with these words.
    fn run(&self, line: &str) -> anyhow::Result<Ended> {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let (state, data) = (self.dir.path().join("state"), self.dir.path().join("data"));
        let env = [
            ("XDG_STATE_HOME", state.to_str().expect("a test's path is text")),
            ("XDG_DATA_HOME", data.to_str().expect("a test's path is text")),
        ];
        serve_until_end(&words, &env, COMMAND_MAX)
    }

    /// As [`Local::run`]; it must exit with 0.
    fn ok(&self, line: &str) -> anyhow::Result<Ended> {
        let ended = self.run(line)?;
        ensure!(ended.code == Some(0), "holdfast {line}: {ended:?}");
        Ok(ended)
    }

    /// The one object that it prints.
    fn json_of(&self, line: &str, exit: i32) -> anyhow::Result<Value> {
        let ended = self.run(&format!("{line} -o json"))?;
        ensure!(ended.code == Some(exit), "holdfast {line}: not {exit}: {ended:?}");
        serde_json::from_str(&ended.stdout).with_context(|| format!("holdfast {line}: {ended:?}"))
    }

    fn json(&self, line: &str) -> anyhow::Result<Value> {
        self.json_of(line, 0)
    }

    fn expect_states(&self, states: [&str; 3]) -> anyhow::Result<()> {
        let json = self.json("ps")?;
        let rows = json["nodes"].as_array().context("nodes")?;
        for (index, (row, state)) in rows.iter().zip(states).enumerate() {
            ensure!(row["node"] == format!("n{}", index + 1), "{json}");
            ensure!(row["state"] == state, "n{} is not {state}: {json}", index + 1);
            ensure!(row["endpoint"].as_str().is_some_and(|e| e.contains(':')), "{json}");
            ensure!(row["pid"].is_null() == (state == "stopped"), "{json}");
        }
        ensure!(rows.len() == states.len(), "{json}");
        Ok(())
    }

    /// Until `status` says so: a node that was killed is missed, or comes back, in a moment.
    fn until_status(&self, exit: i32, begin: &str) -> anyhow::Result<()> {
        for _ in 0..20 {
            let ended = self.run("status")?;
            if ended.code == Some(exit) && ended.stdout.starts_with(begin) {
                return Ok(());
            }
        }
        bail!("status does not become {begin:?}: {:?}", self.run("status")?)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let clusters = self.dir.path().join("state/holdfast/local");
        for cluster in std::fs::read_dir(clusters).into_iter().flatten().flatten() {
            let name = cluster.file_name();
            // A test that failed has said why; here only its processes matter.
            let _ = self.run(&format!("down --purge --name {}", name.to_string_lossy()));
        }
    }
}
