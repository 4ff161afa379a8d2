//! Many processes save trees at once, into a cluster and into a directory, and some are killed midway: every id
//! is given out once, every tree that was acknowledged loads back equal, and nobody ever sees a part of one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use holdfast_client::persistence::{Error, Filter, Id, Listed, Store, make_store};
use holdfast_cluster_tests::saver::{self, SaverProcess};
use holdfast_cluster_tests::{Chaos, Cluster, millis, report, scale};
use tokio::sync::watch;

/// How often the store is looked at meanwhile.
const LOOK_EVERY: Duration = millis(50);
/// How long a look may take, however often its listing breaks off: far above what one takes, to end a
/// test whose listings never come to their end.
const LOOK_MAX: Duration = Duration::from_secs(30);

// P1 P3
#[tokio::test(flavor = "multi_thread")]
async fn savers_on_a_cluster_whose_leaders_are_killed() -> anyhow::Result<()> {
    let cluster = Arc::new(Cluster::start_three().await?);
    let uri = format!("holdfast://{}/savers", cluster.endpoints().join(","));
    let every = scale(Duration::from_secs(3), millis(800));
    let chaos = Chaos::start(cluster.clone(), every, millis(500));
    let summary = savers(&uri).await;
    let kills = chaos.stop().await?;
    let summary = summary?;
    ensure!(!kills.is_empty(), "it was over before a leader was killed");
    cluster.settled().await?;
    report("savers on a cluster", format!("{summary}, {} leader kills", kills.len()));
    cluster.finish().await
}

// P1 P3
#[tokio::test(flavor = "multi_thread")]
async fn savers_in_a_directory() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("objects");
    let summary = savers(path.to_str().context("a plain name")?).await?;
    report("savers in a directory", summary);
    Ok(())
}

async fn savers(uri: &str) -> anyhow::Result<String> {
    let (processes, rounds) = (scale(32, 8), scale(200, 60));
    let store = make_store(uri)?;
    let (over, is_over) = watch::channel(false);
    let looker = tokio::spawn(look(store.clone(), is_over));
    let running = (0..processes).map(|nth| {
        let name = format!("saver-{nth}");
        // A quarter of them is killed, each at another point.
        let rounds_to_live = (nth % 4 == 3).then_some(rounds * nth / processes);
        let started = SaverProcess::start(uri, &name, rounds);
        tokio::spawn(async move { run(started?, rounds_to_live).await.context(name) })
    });
    let running: Vec<_> = running.collect();
    let mut acknowledged: BTreeMap<Id, (String, usize)> = BTreeMap::new();
    for (nth, run) in running.into_iter().enumerate() {
        for (round, id) in run.await?? {
            let twice = acknowledged.insert(id, (format!("saver-{nth}"), round));
            ensure!(twice.is_none(), "{id} was given out twice: {twice:?}");
        }
    }
    over.send_replace(true);
    let looks = looker.await??;

    let roots = trees(&store).await?;
    for (id, (name, round)) in &acknowledged {
        let tree = store.load(*id).await.with_context(|| format!("{name} {round}"))?;
        saver::check(&tree)?;
        let said = (&tree.root().metadata["saver"], &tree.root().metadata["round"]);
        ensure!(said == (name, &round.to_string()), "{id} is {said:?} and not {name} {round}");
    }
    // What was not acknowledged may be there, but only whole.
    for id in &roots {
        saver::check(&store.load(*id).await?)?;
    }
    let missing = acknowledged.keys().find(|id| !roots.contains(id));
    ensure!(missing.is_none(), "{missing:?} is not listed");
    Ok(format!(
        "{} trees by {processes} processes acknowledged and equal, {} more whole, {looks} looks saw no \
         part of one",
        acknowledged.len(),
        roots.len() - acknowledged.len(),
    ))
}

/// Follows a saver to its end, or kills it once it has saved so much.
async fn run(
    mut saver: SaverProcess,
    rounds_to_live: Option<usize>,
) -> anyhow::Result<Vec<(usize, Id)>> {
    let mut saved = Vec::new();
    while rounds_to_live.is_none_or(|rounds| saved.len() < rounds) {
        match saver.saved().await? {
            Some(tree) => saved.push(tree),
            None => return Ok(saved),
        }
    }
    saved.extend(saver.kill().await?);
    Ok(saved)
}

/// Looks at all there is, again and again; each look must find whole trees.
async fn look(store: Arc<dyn Store>, is_over: watch::Receiver<bool>) -> anyhow::Result<usize> {
    let mut looks = 0;
    while !*is_over.borrow() {
        let roots = trees(&store).await?;
        if let Some(newest) = roots.last() {
            saver::check(&store.load(*newest).await?)?;
        }
        looks += 1;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(looks)
}

/// The roots at one moment, at which there are as many leaves as they have.
async fn trees(store: &Arc<dyn Store>) -> anyhow::Result<BTreeSet<Id>> {
    let listing = tokio::time::timeout(LOOK_MAX, whole_listing(store)).await;
    let all = listing.with_context(|| format!("no listing was whole within {LOOK_MAX:?}"))??;
    let (roots, leaves): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|listed| listed.class_name == saver::ROOT);
    let of_roots = roots.iter().map(|root| saver::leaves_of(&root.metadata));
    let expected: usize = of_roots.sum::<anyhow::Result<usize>>()?;
    ensure!(leaves.len() == expected, "{} leaves, and not {expected}", leaves.len());
    Ok(roots.into_iter().map(|root| root.id).collect())
}

/// All there is at one moment. A listing that breaks off with its node is begun again.
async fn whole_listing(store: &Arc<dyn Store>) -> Result<Vec<Listed>, Error> {
    loop {
        let listed = store.records(Filter::default()).try_collect().await;
        if !matches!(listed, Err(Error::BrokenOff { .. })) {
            return listed;
        }
    }
}
