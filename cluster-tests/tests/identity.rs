//! A data directory is one node's of one cluster, in one place, used by one process: everything
//! else is refused, and each refusal says what to do. // N1

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_cluster_tests::{Cluster, Ended, ports, serve_until_end};

/// A refusal comes at once, or when the leader has been asked; far above what it takes.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_directory_under_an_old_id_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let follower = cluster.follower().await?;
    cluster.kill(follower);
    std::fs::remove_dir_all(cluster.data_dir(follower))?;

    // As a supervisor would start it again: the node itself sees that it has no cluster.
    let ended = serve(&cluster.serve_args(follower))?;
    refused(&ended, "no-cluster-here", 2, &["--join", "remove it from the cluster"])?;

    // As at its first start: the leader sees that this is another directory.
    let endpoints = cluster.endpoints().join(",");
    let mut args = cluster.serve_args(follower);
    args.extend(["--join".to_owned(), endpoints]);
    let ended = serve(&args)?;
    let remove = format!("holdfast members remove n{}", follower + 1);
    refused(&ended, "wiped-directory", 8, &[&remove, "--node-id"])?;
    // And again: the refused directory has not become a good one.
    refused(&serve(&args)?, "wiped-directory", 8, &[&remove])?;

    cluster.written_everywhere().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_refusal_of_a_wiped_directory_advises_works() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let follower = cluster.follower().await?;
    cluster.kill(follower);
    std::fs::remove_dir_all(cluster.data_dir(follower))?;
    let id = u64::try_from(follower + 1)?;
    cluster.client().cluster().remove(id).await?;
    cluster.join()?;
    let voters = cluster.wait("the replacement votes", async || {
        let status = cluster.status(cluster.leader_now().await?).await.ok()?;
        let voters: Vec<u64> =
            status.members.iter().filter(|m| m.voter).map(|m| m.node_id).collect();
        (voters.len() == 3).then_some(voters)
    });
    let voters = voters.await?;
    ensure!(!voters.contains(&id), "the removed n{id} votes: {voters:?}");
    cluster.written_everywhere().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let other = Cluster::start(1, holdfast_cluster_tests::Options::default()).await?;
    let follower = cluster.follower().await?;
    cluster.kill(follower);
    let before = std::fs::read(cluster.data_dir(follower).join("IDENTITY"))?;

    let mut args = cluster.serve_args(follower);
    args.extend(["--join".to_owned(), other.endpoint(0)]);
    let own = cluster.status(cluster.leader().await?).await?.header.cluster_id;
    let ended = serve(&args)?;
    refused(&ended, "foreign-cluster", 8, &[&own, &other.endpoint(0), "empty --data-dir"])?;
    let after = std::fs::read(cluster.data_dir(follower).join("IDENTITY"))?;
    ensure!(before == after, "the refusal changed IDENTITY");
    let members = other.client().cluster().members().await?.members.len();
    ensure!(members == 1, "the other cluster has {members} members");

    // With its own cluster it goes on.
    cluster.start_node(follower)?;
    cluster.settled().await?;
    other.finish().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_one_directory_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    for index in [cluster.leader().await?, cluster.follower().await?] {
        let pid = cluster.pid(index).context("it runs")?.to_string();
        let ended = serve(&cluster.serve_args(index))?;
        refused(&ended, "data-dir-in-use", 9, &[&pid, "--data-dir"])?;
        // Not even with other ports, or as a new cluster.
        let ended = serve(&on_other_ports(&cluster.data_dir(index), &["--form"])?)?;
        refused(&ended, "data-dir-in-use", 9, &[&pid])?;
    }
    cluster.written_everywhere().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_directory_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let follower = cluster.follower().await?;
    let copy = cluster.dir().join("copy");
    // First beside the running original, then of a stopped one: the node sees it either way.
    for is_running in [true, false] {
        if !is_running {
            cluster.kill(follower);
        }
        copy_dir(&cluster.data_dir(follower), &copy)?;
        let ended = serve(&on_other_ports(&copy, &[])?)?;
        refused(&ended, "copied-directory", 8, &["--moved", "--join"])?;
        std::fs::remove_dir_all(&copy)?;
    }
    cluster.start_node(follower)?;
    cluster.settled().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_started_as_moved_beside_its_original_is_refused_by_the_leader() -> anyhow::Result<()>
{
    let cluster = Cluster::start_three().await?;
    for (name, index) in
        [("of-a-follower", cluster.follower().await?), ("of-the-leader", cluster.leader().await?)]
    {
        let copy = cluster.dir().join(name);
        copy_dir(&cluster.data_dir(index), &copy)?;
        let args = on_other_ports(&copy, &["--moved"])?;
        let ended = serve(&args).with_context(|| format!("a copy {name}"))?;
        refused(&ended, "copied-directory", 8, &["empty directory"])?;
        // It has been told that it was moved; being refused, it must not have become a node.
        let ended = serve(&on_other_ports(&copy, &[])?)?;
        refused(&ended, "copied-directory", 8, &[])?;
        let endpoint = cluster.endpoint(index);
        let members = cluster.client().cluster().members().await?.members;
        let place = members.iter().find(|m| m.client_endpoint == endpoint);
        ensure!(place.is_some(), "the original is not at {endpoint} any more: {members:?}");
        cluster.written_everywhere().await?;
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_directory_goes_on_when_told_so() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let object = client.state().get_object_id("moved", "test").await?;
    client.state().set(object, "before", "1").await?;
    let follower = cluster.follower().await?;
    cluster.kill(follower);
    // As from another disk: the same place, and another inode. (Were the original deleted first,
    // the copy might get its very inode.)
    let (dir, copy) = (cluster.data_dir(follower), cluster.dir().join("copy"));
    copy_dir(&dir, &copy)?;
    std::fs::rename(&dir, cluster.dir().join("original"))?;
    std::fs::rename(&copy, &dir)?;
    client.state().set(object, "while it was away", "2").await?;

    refused(&serve(&cluster.serve_args(follower))?, "copied-directory", 8, &["--moved"])?;
    cluster.start_node_with(follower, &["--moved".to_owned()])?;
    cluster.settled().await?;
    // Once is enough.
    cluster.kill(follower);
    cluster.start_node(follower)?;
    cluster.settled().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_came_back_on_other_ports_is_found_there() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let follower = cluster.follower().await?;
    cluster.kill(follower);
    let dir = cluster.data_dir(follower);
    let moved_to = cluster.dir().join("renamed");
    // A rename keeps the inode: nothing needs to be said.
    std::fs::rename(&dir, &moved_to)?;
    let args = on_other_ports(&moved_to, &[])?;
    found_where_it_is_now(&cluster, args).await?;
    // Back where it was.
    std::fs::rename(&moved_to, &dir)?;
    cluster.start_node(follower)?;
    cluster.settled().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_came_back_on_another_client_port_is_no_copy() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let follower = cluster.follower().await?;
    cluster.kill(follower);
    let mut args = on_other_ports(&cluster.data_dir(follower), &[])?;
    *argument(&mut args, "--peer-addr") = cluster.peer_endpoint(follower);
    found_where_it_is_now(&cluster, args).await?;
    cluster.start_node(follower)?;
    cluster.settled().await?;
    cluster.finish().await
}

/// Starts a node with these arguments, waits until the members know its client endpoint and the
/// leader hears from it, and kills it.
async fn found_where_it_is_now(cluster: &Cluster, mut args: Vec<String>) -> anyhow::Result<()> {
    let endpoint = argument(&mut args, "--client-addr").clone();
    let log = cluster.dir().join("elsewhere.log");
    let mut node = holdfast_cluster_tests::NodeProcess::new(args, Vec::new(), &log)?;
    node.start()?;
    cluster
        .wait("the members know the new address", async || {
            let members = cluster.client().cluster().members().await.ok()?.members;
            let voter = members.iter().find(|member| member.client_endpoint == endpoint)?.voter;
            let silent = members.iter().find(|m| m.client_endpoint == endpoint)?.silent;
            (voter && silent.is_none_or(|s| s < Duration::from_secs(1))).then_some(())
        })
        .await?;
    node.check()?;
    node.kill();
    Ok(())
}

/// The value of a flag.
fn argument<'a>(args: &'a mut [String], flag: &str) -> &'a mut String {
    let at = args.iter().position(|arg| arg == flag).expect("on_other_ports gives both addresses");
    &mut args[at + 1]
}

/// Runs a node that is to be refused.
fn serve(args: &[String]) -> anyhow::Result<Ended> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    serve_until_end(&args, &[], REFUSED_WITHIN)
}

/// The arguments of a node on that directory, and on ports of its own.
fn on_other_ports(dir: &Path, more: &[&str]) -> anyhow::Result<Vec<String>> {
    let ports = ports::reserve(2)?;
    let mut args: Vec<String> = [
        "serve",
        "--data-dir",
        &dir.to_string_lossy(),
        "--client-addr",
        &ports[0].address(),
        "--peer-addr",
        &ports[1].address(),
    ]
    .map(str::to_owned)
    .to_vec();
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    Ok(args)
}

/// Whether it ended with that error and exit code, in three parts, naming what it should.
fn refused(ended: &Ended, code: &str, exit: i32, names: &[&str]) -> anyhow::Result<()> {
    let said = &ended.stderr;
    ensure!(ended.code == Some(exit), "exit {:?} instead of {exit}: {said}", ended.code);
    ensure!(said.contains(&format!("error[{code}]: ")), "not error[{code}]: {said}");
    ensure!(said.contains("\n  cause: ") && said.contains("\n   help: "), "a part misses: {said}");
    for name in names {
        ensure!(said.contains(name), "it does not name {name}: {said}");
    }
    ensure!(ended.stdout.is_empty(), "it said on stdout: {}", ended.stdout);
    Ok(())
}

fn copy_dir(from: &Path, to: &PathBuf) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().context("run cp")?;
    ensure!(status.success(), "cp -a {} {}", from.display(), to.display());
    Ok(())
}
