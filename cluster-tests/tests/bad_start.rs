//! A node that cannot start as it is told says why and what to do, changes nothing, and leaves
//! whatever is in its way alone. // G11

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use holdfast_cluster_tests::loopfs::{self, LoopFs};
use holdfast_cluster_tests::{Cluster, Ended, ports, serve_until_end};

/// No start may take so long to be refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_config_file_with_a_typo_is_refused() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("holdfast.toml");
    let data = dir.path().join("data");
    let cases: [(&str, &[&str]); 6] = [
        ("heartbeat_ms = 50\nsnapshot_evry_entries = 5\n", &["snapshot_every_entries", "2"]),
        ("hartbeat_ms = 50\n", &["hartbeat_ms", "heartbeat_ms"]),
        ("heartbeat_ms = \"fifty\"\n", &["heartbeat_ms"]),
        ("heartbeat_ms = 50\nheartbeat_ms = 60\n", &["heartbeat_ms"]),
        ("this is no toml\n", &["1"]),
        ("heartbeat_ms = 200\n", &["election-min-ms", "twice"]),
    ];
    for (text, names) in cases {
        std::fs::write(&file, text)?;
        let args = ["serve", "--form", "--config", path(&file), "--data-dir", path(&data)];
        let ended = serve_until_end(&args, &[], REFUSED_WITHIN)?;
        refused(&ended, "bad-config", 2, names)?;
        ensure!(!data.exists(), "{text:?}: the data directory was made");
    }
    let missing = dir.path().join("missing.toml");
    let args = ["serve", "--form", "--config", path(&missing), "--data-dir", path(&data)];
    let ended = serve_until_end(&args, &[], REFUSED_WITHIN)?;
    refused(&ended, "bad-config", 2, &["missing.toml"])
}

#[test]
fn bad_flags_are_refused() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let common = ["serve", "--data-dir", path(&data)];
    let cases: [(&[&str], i32); 5] = [
        (&["--form", "--heartbeat-ms", "x"], 2),
        (&["--form", "--client-addr", "nowhere"], 2),
        (&["--form", "--join", "127.0.0.1:1"], 2),
        (&["--form", "--heartbeat-ms", "100", "--election-min-ms", "150"], 2),
        (&["--form", "--snapshot-every-entries", "0"], 2),
    ];
    for (more, exit) in cases {
        let args = [&common[..], more].concat();
        let ended = serve_until_end(&args, &[], REFUSED_WITHIN)?;
        ensure!(ended.code == Some(exit), "{more:?}: exit {:?}: {}", ended.code, ended.stderr);
        ensure!(ended.stderr.contains("error"), "{more:?}: {}", ended.stderr);
        ensure!(!data.exists(), "{more:?}: the data directory was made");
    }
    // A first start that does not say where it belongs.
    let ports = ports::reserve(2)?;
    let (client, peer) = (ports[0].address(), ports[1].address());
    let args = [&common[..], &["--client-addr", &client, "--peer-addr", &peer]].concat();
    let ended = serve_until_end(&args, &[], REFUSED_WITHIN)?;
    refused(&ended, "no-cluster-here", 2, &["--form", "--join"])
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_in_use_are_named() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let data = cluster.dir().join("another");
    let free = ports::reserve(1)?[0].address();
    let (taken, taken_peer) = (cluster.endpoint(1), cluster.peer_endpoint(2));
    for (client, peer, named) in
        [(&taken, &free, &taken), (&free, &taken_peer, &taken_peer), (&free, &free, &free)]
    {
        let args = ["serve", "--form", "--data-dir", path(&data)];
        let args = [&args[..], &["--client-addr", client, "--peer-addr", peer]].concat();
        let ended = serve_until_end(&args, &[], REFUSED_WITHIN)?;
        refused(&ended, "port-in-use", 9, &[named, "--client-addr"])?;
    }
    cluster.written_everywhere().await?;
    cluster.finish().await
}

#[test]
fn an_unwritable_data_directory_is_named() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("a-file");
    std::fs::write(&file, "not ours")?;
    // Permissions do not apply to root, but these do: below a file, and where the kernel lets
    // nobody make anything.
    for data in [file.join("data"), file.clone(), "/proc/holdfast-data".into()] {
        let ended = form(&data)?;
        refused(&ended, "data-dir-unwritable", 9, &[path(&data), "--data-dir"])?;
    }
    ensure!(std::fs::read(&file)? == b"not ours", "the file was changed");
    Ok(())
}

#[test]
fn a_read_only_file_system_is_named() -> anyhow::Result<()> {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if let Some(why) = loopfs::unavailable(base) {
        println!("SKIPPED the read-only file system: {why}");
        return Ok(());
    }
    let mut disk = LoopFs::create(base, 64 << 20)?;
    let data = disk.path().join("data");
    std::fs::create_dir(&data)?;
    disk.read_only()?;
    refused(&form(&data)?, "data-dir-unwritable", 9, &[path(&data), "--data-dir"])?;
    refused(&form(&data.join("below"))?, "data-dir-unwritable", 9, &[path(&data), "--data-dir"])
}

#[test]
fn a_directory_with_other_things_in_it_is_left_alone() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::create_dir(dir.path().join("log"))?;
    std::fs::write(dir.path().join("log/precious"), "not ours")?;
    let ended = form(dir.path())?;
    refused(&ended, "foreign-directory", 9, &[path(dir.path())])?;
    ensure!(std::fs::read(dir.path().join("log/precious"))? == b"not ours", "it was changed");
    Ok(())
}

/// Forms a cluster in a directory that must not let it.
fn form(data: &Path) -> anyhow::Result<Ended> {
    let ports = ports::reserve(2)?;
    let (client, peer) = (ports[0].address(), ports[1].address());
    let args = ["serve", "--form", "--data-dir", path(data)];
    let args = [&args[..], &["--client-addr", &client, "--peer-addr", &peer]].concat();
    serve_until_end(&args, &[], REFUSED_WITHIN)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// Whether it ended with that error and exit code, in three parts, naming what it should.
fn refused(ended: &Ended, code: &str, exit: i32, names: &[&str]) -> anyhow::Result<()> {
    let said = &ended.stderr;
    ensure!(ended.code == Some(exit), "exit {:?} instead of {exit}: {said}", ended.code);
    ensure!(said.contains(&format!("error[{code}]: ")), "not error[{code}]: {said}");
    ensure!(said.contains("\n   help: "), "it does not say what to do: {said}");
    for name in names {
        ensure!(said.contains(name), "it does not name {name}: {said}");
    }
    ensure!(!said.contains("panicked"), "it panicked: {said}");
    Ok(())
}
