//! Groups of change sources: whoever owns one member owns all, whoever is killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::{
    Change, Claimed, Client, Event, Instance, LeaseHolder, Opened, Watch, WatchFilter, WatchOptions,
};
use holdfast_cluster_tests::{
    Chaos, Cluster, Event as Said, StandIn, StandInOptions, millis, report, scale,
};

const TTL: Duration = Duration::from_secs(3);
const WAIT_MAX: Duration = Duration::from_secs(60);
const GROUPS: usize = 3;
const MEMBERS: usize = 4;

/// Who owns something: the master and the token.
type Owner = Option<(i64, u64)>;

/// What a watch says of every group, change by change.
// C7 C4 C5 W1
struct Seen {
    members: BTreeMap<String, BTreeSet<i64>>,
    /// The owner of each group, and the highest token that it has had.
    owners: BTreeMap<String, Owner>,
    tokens: BTreeMap<String, u64>,
    grants: usize,
}

impl Seen {
    /// Takes in all changes of one revision: of a group, either no member is among them, or all are, with one
    /// owner; it has passed from nobody to somebody or back, and its tokens rise.
    fn take_in(&mut self, changes: &[Change]) -> anyhow::Result<()> {
        let mut changed: BTreeMap<&str, Vec<(i64, Owner)>> = BTreeMap::new();
        for change in changes {
            if let Event::ChangeSource { id, owner, group: Some(group), .. } = &change.event {
                changed.entry(group).or_default().push((*id, *owner));
            }
        }
        for (group, members) in changed {
            let ids: BTreeSet<i64> = members.iter().map(|(id, _)| *id).collect();
            let (_, owner) = members[0];
            ensure!(ids == self.members[group], "only {ids:?} of {group}: {changes:?}");
            ensure!(members.iter().all(|(_, other)| *other == owner), "{group}: {changes:?}");
            let before = self.owners.insert(group.to_owned(), owner).flatten();
            ensure!(before.is_some() != owner.is_some(), "{group} from {before:?} to {owner:?}");
            let Some((_, token)) = owner else { continue };
            self.grants += 1;
            let highest = self.tokens.insert(group.to_owned(), token).unwrap_or(0);
            ensure!(highest < token, "the fence of {group} went from {highest} to {token}");
            ensure!(changes.iter().all(|c| c.revision == token), "{token}: {changes:?}");
        }
        Ok(())
    }
}

/// Reads a watch up to the change at `last`, revision by revision.
async fn read(mut watch: Watch, mut seen: Seen, last: i64) -> anyhow::Result<Seen> {
    let mut pending: Vec<Change> = Vec::new();
    loop {
        let change = watch.next().await?;
        if pending.first().is_some_and(|first| first.revision < change.revision) {
            seen.take_in(&std::mem::take(&mut pending))?;
        }
        if matches!(change.event, Event::ChangeSource { id, .. } if id == last) {
            return Ok(seen);
        }
        pending.push(change);
    }
}

// C7 C4 C5 M7
#[tokio::test(flavor = "multi_thread")]
async fn members_change_hands_together_while_owners_and_leaders_are_killed() -> anyhow::Result<()> {
    let rounds = scale(20, 3);
    let cluster = Arc::new(Cluster::start_three().await?);
    let client = cluster.client();
    let members = groups(&client).await?;
    let all: Vec<i64> = members.values().flatten().copied().collect();
    let last = client.change_sources().find_id("last").await?;
    let filters = vec![WatchFilter::ChangeSource(None)];
    let watch = client.watch(WatchOptions { filters, ..WatchOptions::default() }).await?;
    let (owners, tokens) = (BTreeMap::new(), BTreeMap::new());
    let reader = tokio::spawn(read(watch, Seen { members, owners, tokens, grants: 0 }, last));

    let chaos = Chaos::start(cluster.clone(), millis(2500), millis(700));
    let mut owner = stand_in(&cluster, 0, &all)?;
    owner.next("all granted", WAIT_MAX, all_granted).await?;
    for round in 1..=rounds {
        let mut heir = stand_in(&cluster, round, &all)?;
        heir.next("its lease", WAIT_MAX, opened).await?;
        tokio::time::sleep(millis(rand::random_range(0..800))).await;
        owner.kill();
        heir.next("all granted", WAIT_MAX, all_granted).await?;
        owner = heir;
    }
    owner.kill();
    let kills = chaos.stop().await?;
    // A change that ends the watch.
    let end = holder(&client).await?;
    let claimed = end.claim(last).await?;
    ensure!(matches!(claimed, Claimed::Granted { .. }), "{claimed:?}");
    let seen = tokio::time::timeout(WAIT_MAX, reader).await.context("the watch goes on")???;
    ensure!(seen.grants > rounds * GROUPS, "{} grants in {rounds} rounds", seen.grants);
    ensure!(!kills.is_empty(), "no leader was killed");
    report(
        "groups of 4 sources under kills of owners and leaders",
        format!(
            "{} grants, {rounds} owners and {} leaders killed, 0 groups apart",
            seen.grants,
            kills.len()
        ),
    );
    end.close().await?;
    cluster.finish().await
}

/// Ids of the change sources of each group.
async fn groups(client: &Client) -> anyhow::Result<BTreeMap<String, BTreeSet<i64>>> {
    let sources = client.change_sources();
    let mut groups: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for nth in 0..GROUPS * MEMBERS {
        let (id, group) =
            (sources.find_id(&format!("source-{nth}")).await?, format!("group-{}", nth % GROUPS));
        ensure!(sources.set_group(id, Some(&group)).await?, "it was in none");
        ensure!(!sources.set_group(id, Some(&group)).await?, "it is in it already");
        groups.entry(group).or_default().insert(id);
    }
    let listed = sources.list(None, None).await?;
    let is_listed = |id: i64, group: &str| {
        listed.iter().any(|source| source.id == id && source.group.as_deref() == Some(group))
    };
    let all_listed = groups.iter().all(|(group, ids)| ids.iter().all(|&id| is_listed(id, group)));
    ensure!(all_listed, "{listed:?}");
    Ok(groups)
}

fn stand_in(cluster: &Cluster, round: usize, sources: &[i64]) -> anyhow::Result<StandIn> {
    let name = format!("owner-{round}");
    StandIn::start(&StandInOptions {
        ttl: TTL,
        sources: sources.to_vec(),
        ..StandInOptions::new(&name, cluster.endpoints())
    })
}

async fn holder(client: &Client) -> anyhow::Result<LeaseHolder> {
    match LeaseHolder::open(client, "end", &Instance::random(), TTL).await? {
        Opened::Granted(holder) => Ok(holder),
        Opened::HeldBy(by) => bail!("{by:?}"),
    }
}

fn all_granted(event: &Said) -> Option<()> {
    matches!(event, Said::AllGranted { .. }).then_some(())
}

fn opened(event: &Said) -> Option<()> {
    matches!(event, Said::Opened { .. }).then_some(())
}
