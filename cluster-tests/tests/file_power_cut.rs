//! The power is cut under processes that save into a directory: every tree that was acknowledged is there
//! afterwards, and no part of any other. // P1 P3

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use holdfast_client::persistence::{FilesystemStore, Filter, Id, Listed, Store as _};
use holdfast_cluster_tests::loopfs::{self, LoopFs};
use holdfast_cluster_tests::saver::{self, SaverProcess};
use holdfast_cluster_tests::{report, scale};

/// Sparse: only what is written takes space.
const DISK_BYTES: u64 = 1 << 30;
const SAVERS: usize = 3;
/// Trees of each saver; never all of them before the cut.
const ROUNDS: usize = 1000;
/// Acknowledgements before a cut; the file system has room for about a thousand files.
const ACKS: usize = 45;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_trees_survive_power_cuts() -> anyhow::Result<()> {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if let Some(why) = loopfs::unavailable(base) {
        report("power cut under a directory of objects", format!("SKIPPED: {why}"));
        // Past the test runner's capture: nobody shall believe that this was tested.
        writeln!(std::io::stderr(), "\nSKIPPED the power cuts: {why}\n")?;
        return Ok(());
    }
    let mut disks = [LoopFs::create(base, DISK_BYTES)?];
    let path = disks[0].path().join("site/objects");
    let cuts = scale(20, 3);
    let (mut acknowledged, mut others) = (0, 0);
    let mut given_out = BTreeSet::new();
    for cut in 0..cuts {
        let saved = save_until(ACKS, &path, cut, || loopfs::cut(&disks)).await?;
        disks[0].reboot()?;
        let store = FilesystemStore::new(&path);
        let (roots, leaves) = all(&store).await?;
        for id in &roots {
            saver::check(&store.load(*id).await?).with_context(|| format!("cut {cut}"))?;
        }
        for id in &saved {
            ensure!(roots.contains(id), "cut {cut}: {id} was acknowledged, and is lost");
            ensure!(given_out.insert(*id), "cut {cut}: {id} was given out twice");
        }
        (acknowledged, others) = (acknowledged + saved.len(), others + roots.len() - saved.len());
        for id in roots.iter().chain(&leaves) {
            store.remove(*id).await?;
        }
    }
    report(
        "power cut under a directory of objects",
        format!(
            "{cuts} of {cuts} cuts lost none of {acknowledged} acknowledged trees; {others} others whole"
        ),
    );
    Ok(())
}

/// Lets savers run until so many trees are acknowledged, cuts the power under them, and says which were.
async fn save_until(
    acks: usize,
    path: &Path,
    cut: usize,
    cut_power: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Id>> {
    let uri = path.to_str().context("a plain name")?;
    let mut savers = Vec::new();
    for nth in 0..SAVERS {
        savers.push(SaverProcess::start(uri, &format!("cut-{cut}-{nth}"), ROUNDS)?);
    }
    let mut saved = Vec::new();
    while saved.len() < acks {
        for saver in &mut savers {
            let (_, id) = saver.saved().await?.context("it has more to save than that")?;
            saved.push(id);
        }
    }
    cut_power()?;
    for mut saver in savers {
        saved.extend(saver.kill().await?.into_iter().map(|(_, id)| id));
    }
    Ok(saved)
}

/// The roots, with as many leaves as they have.
async fn all(store: &FilesystemStore) -> anyhow::Result<(BTreeSet<Id>, Vec<Id>)> {
    let all: Vec<Listed> = store.records(Filter::default()).try_collect().await?;
    let (roots, leaves): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|listed| listed.class_name == saver::ROOT);
    let of_roots = roots.iter().map(|root| saver::leaves_of(&root.metadata));
    let expected: usize = of_roots.sum::<anyhow::Result<usize>>()?;
    ensure!(leaves.len() == expected, "{} leaves, and not {expected}", leaves.len());
    let ids = |all: Vec<Listed>| all.into_iter().map(|listed| listed.id).collect::<Vec<_>>();
    Ok((ids(roots).into_iter().collect(), ids(leaves)))
}
