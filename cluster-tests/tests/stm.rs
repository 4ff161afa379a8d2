//! The service `Stm` as it is on the wire: what commits compare and write, their limits and one beyond,
//! and what a reader sees. // T1, T2, T3, T5, G4, G9
//!
//! The calls are made with the generated client, on the leader and on a follower, which forwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::{Event, WatchFilter, WatchOptions};
use holdfast_cluster_tests::{Cluster, Options, bound, report, scale};
use holdfast_proto::v1;
use holdfast_proto::v1::stm_client::StmClient;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::raw::{Raw, refused};

const MIB: usize = 1 << 20;
const WAIT_MAX: Duration = Duration::from_secs(30);
/// When a reader that stopped has been cut off.
const CUT_OFF_MAX: Duration = Duration::from_secs(12);

/// That a variable has a version, and was written by a revision.
fn is(key: &[u8], version: u64, mod_revision: u64) -> v1::Comparison {
    v1::Comparison { key: key.to_vec(), version, mod_revision: Some(mod_revision) }
}

fn absent(key: &[u8]) -> v1::Comparison {
    is(key, 0, 0)
}

fn put(key: &[u8], value: impl Into<Vec<u8>>) -> v1::VariableWrite {
    let codec = v1::Codec::Bytes.into();
    v1::VariableWrite { key: key.to_vec(), delete: false, codec, value: value.into() }
}

fn delete(key: &[u8]) -> v1::VariableWrite {
    v1::VariableWrite { key: key.to_vec(), delete: true, ..Default::default() }
}

fn revision(header: Option<&v1::ResponseHeader>) -> anyhow::Result<u64> {
    Ok(header.context("every response has a header")?.revision)
}

/// The revision of a commit that was carried out.
fn committed(response: &v1::CommitResponse) -> anyhow::Result<u64> {
    ensure!(response.committed && response.conflicts.is_empty(), "{response:?}");
    ensure!(response.conflicts_total == 0, "{response:?}");
    revision(response.header.as_ref())
}

// T1 T2 T3
#[tokio::test(flavor = "multi_thread")]
async fn commits_are_whole_and_conflicts_tell_what_is_there() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    for mut raw in Raw::on_leader_and_follower(&cluster).await? {
        let nobody = raw.variables(&[b"x", b"y"]).await?;
        ensure!(nobody.variables.iter().all(|one| one.version == 0 && one.mod_revision == 0));
        let json = v1::VariableWrite { codec: v1::Codec::Json.into(), ..put(b"y", "1") };
        let first =
            committed(&raw.commit(vec![absent(b"x")], vec![put(b"x", "one"), json]).await?)?;
        let found = raw.variables(&[b"y", b"x", b"z"]).await?;
        let said: Vec<_> =
            found.variables.iter().map(|one| (one.version, one.mod_revision)).collect();
        ensure!(said == [(1, first), (1, first), (0, 0)], "{found:?}");
        ensure!(found.variables[0].codec() == v1::Codec::Json, "{found:?}");
        ensure!(
            found.variables[0].value == b"1" && found.variables[1].value == b"one",
            "{found:?}"
        );

        let second =
            committed(&raw.commit(vec![is(b"x", 1, first)], vec![put(b"x", "two")]).await?)?;
        // Of three comparisons two fail; nothing is written, and what is there now comes back.
        let compared = vec![is(b"x", 1, first), is(b"y", 1, first), is(b"z", 3, first)];
        let lost = raw.commit(compared, vec![put(b"x", "three"), put(b"y", "2")]).await?;
        ensure!(!lost.committed && lost.conflicts_total == 2, "{lost:?}");
        ensure!(revision(lost.header.as_ref())? >= second, "{lost:?}");
        let told: Vec<_> = lost
            .conflicts
            .iter()
            .map(|conflict| conflict.variable.clone().unwrap_or_default())
            .collect();
        ensure!(lost.conflicts.iter().all(|conflict| conflict.has_value), "{lost:?}");
        let expected = raw.variables(&[b"x", b"z"]).await?.variables;
        ensure!(told == expected && told[0].value == b"two", "{told:?}");
        ensure!(raw.variables(&[b"y"]).await?.variables[0].version == 1, "half a commit");

        // T2: one that was deleted and created again is another one, though its version is the same.
        committed(&raw.commit(vec![], vec![delete(b"y")]).await?)?;
        let again = committed(&raw.commit(vec![absent(b"y")], vec![put(b"y", "1")]).await?)?;
        let lost = raw.commit(vec![is(b"y", 1, first)], vec![put(b"y", "2")]).await?;
        ensure!(!lost.committed, "{lost:?}");
        // A comparison alone is answered at a revision, and makes none.
        let same = committed(&raw.commit(vec![is(b"y", 1, again)], vec![]).await?)?;
        ensure!(same >= again && raw.revision().await? == same, "{same} after {again}");
        committed(&raw.commit(vec![], vec![delete(b"x"), delete(b"y")]).await?)?;
    }
    cluster.finish().await
}

// T2 G11
#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    for mut raw in Raw::on_leader_and_follower(&cluster).await? {
        let now = committed(&raw.commit(vec![absent(b"x")], vec![put(b"x", "1")]).await?)?;
        let future = now + 1_000;
        let (text, now_text) = (future.to_string(), now.to_string());
        let answer = raw.commit(vec![is(b"x", 1, future)], vec![put(b"x", "2")]).await;
        let fields =
            [("nth", "0"), ("field", "mod_revision"), ("actual", &*text), ("found", &*now_text)];
        refused(answer, Code::FailedPrecondition, "VERSION_FROM_FUTURE", &fields)?;
        let answer = raw.commit(vec![absent(b"y"), is(b"x", 7, now)], vec![]).await;
        let fields = [("nth", "1"), ("field", "version"), ("actual", "7"), ("found", "1")];
        refused(answer, Code::FailedPrecondition, "VERSION_FROM_FUTURE", &fields)?;
        let answer = raw.commit(vec![], vec![put(b"x", "2"), delete(b"x")]).await;
        let fields = [("field", "writes"), ("first", "0"), ("again", "1")];
        refused(answer, Code::InvalidArgument, "DUPLICATE_KEY", &fields)?;
        let answer = raw.commit(vec![absent(b"")], vec![]).await;
        refused(answer, Code::InvalidArgument, "NAME_EMPTY", &[("field", "key")])?;
        let answer = raw.commit(vec![], vec![put(&[7; 1025], "1")]).await;
        let fields = [("field", "key"), ("actual", "1025"), ("allowed", "1024")];
        refused(answer, Code::InvalidArgument, "NAME_TOO_LONG", &fields)?;
        let answer = raw.commit(vec![], vec![put(b"x", vec![7; MIB + 1])]).await;
        let fields = [("actual", "1048577"), ("allowed", "1048576")];
        refused(answer, Code::InvalidArgument, "VALUE_TOO_LARGE", &fields)?;
        for codec in [0, 77] {
            let write = v1::VariableWrite { codec, ..put(b"x", "2") };
            let answer = raw.commit(vec![], vec![put(b"y", "1"), write]).await;
            let message = answer.as_ref().err().map(|status| status.message().to_owned());
            ensure!(message.is_some_and(|text| text.contains("writes[1].codec")), "{answer:?}");
            refused(answer, Code::InvalidArgument, "BAD_REQUEST", &[])?;
        }
        ensure!(raw.revision().await? == now, "a refused commit changed something");
        committed(&raw.commit(vec![is(b"x", 1, now)], vec![delete(b"x")]).await?)?;
    }
    cluster.finish().await
}

/// Eight values, which with their keys take so many bytes.
fn eight_values(bytes: usize) -> Vec<v1::VariableWrite> {
    let last = bytes - 7 * MIB - 8;
    let sizes = [MIB; 7].into_iter().chain([last]);
    (0..).zip(sizes).map(|(nth, bytes)| put(&[nth], vec![nth; bytes])).collect()
}

/// Eight MiB go through a follower to the leader, into the log and to all nodes; they come back in one
/// read; and a node that was away catches up on them.
// G9 T3
#[tokio::test(flavor = "multi_thread")]
async fn largest_transactions_pass_and_larger_ones_are_refused() -> anyhow::Result<()> {
    const KEYS: usize = 4096;
    let cluster = Cluster::start_three().await?;
    let (leader, follower) = (cluster.leader().await?, cluster.follower().await?);
    let both = Raw::on_leader_and_follower(&cluster).await?;
    let away = (0..3).find(|index| ![leader, follower].contains(index)).context("three nodes")?;
    cluster.kill(away);
    for mut raw in both {
        let before = raw.revision().await?;
        let answer = raw.commit(vec![], eight_values(8 * MIB + 1)).await;
        let fields = [("field", "bytes"), ("actual", "8388609"), ("allowed", "8388608")];
        refused(answer, Code::ResourceExhausted, "TRANSACTION_TOO_LARGE", &fields)?;
        let keys = |count: usize| (0..count).map(|key| absent(format!("k{key}").as_bytes()));
        let fields = [("field", "keys"), ("actual", "4097"), ("allowed", "4096")];
        let answer = raw.commit(keys(KEYS + 1).collect(), vec![]).await;
        refused(answer, Code::ResourceExhausted, "TRANSACTION_TOO_LARGE", &fields)?;
        ensure!(raw.revision().await? == before, "a refused commit changed something");

        let writes = eight_values(8 * MIB);
        committed(&raw.commit(vec![], writes.clone()).await?).context("8 MiB")?;
        let nths: Vec<[u8; 1]> = (0..8).map(|nth| [nth]).collect();
        let asked: Vec<&[u8]> = nths.iter().map(<[u8; 1]>::as_slice).collect();
        let found = raw.variables(&asked).await.context("read 8 MiB")?;
        let is_same = |(one, write): (&v1::Variable, &v1::VariableWrite)| one.value == write.value;
        ensure!(found.variables.iter().zip(&writes).all(is_same), "other values came back");

        let written = (0..KEYS).map(|key| put(format!("k{key}").as_bytes(), "1")).collect();
        committed(&raw.commit(keys(KEYS).collect(), written).await?).context("4,096 keys")?;
        // And now none of these comparisons holds.
        let lost = raw.commit(keys(KEYS).collect(), vec![]).await?;
        ensure!(!lost.committed && lost.conflicts_total as usize == KEYS, "{:?}", lost.header);
        ensure!(lost.conflicts.len() == 256 && lost.conflicts.iter().all(|one| one.has_value));
        let deleted = (0..KEYS).map(|key| delete(format!("k{key}").as_bytes())).collect();
        committed(&raw.commit(vec![], deleted).await?)?;
        // The present values of a conflict go as far as 1 MiB.
        let lost = raw.commit(asked.iter().copied().map(absent).collect(), vec![]).await?;
        let has: Vec<bool> = lost.conflicts.iter().map(|conflict| conflict.has_value).collect();
        ensure!(has == [true, false, false, false, false, false, false, false], "{has:?}");
        ensure!(
            lost.conflicts
                .iter()
                .all(|one| one.variable.as_ref().is_some_and(|one| one.version > 0))
        );
    }
    cluster.start_node(away)?;
    cluster.same_state().await.context("the node that was away")?;
    cluster.finish().await
}

/// A commit that is sent again, on another node, under its number, finds what came of it the first time:
/// also a conflict, when what it compares would hold by now.
// G4
#[tokio::test(flavor = "multi_thread")]
async fn commit_sent_again_is_carried_out_once() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let mut both = Raw::on_leader_and_follower(&cluster).await?;
    let mut other = both.pop().context("two")?;
    let mut raw = both.pop().context("two")?;
    let again = |context: &Option<v1::WriteContext>| {
        context.map(|c| v1::WriteContext { resent: true, ..c })
    };
    other.session = raw.session;
    for _ in 0..2 {
        let context = raw.context();
        let first = raw.commit_in(context, vec![], vec![put(b"count", "1")]).await?;
        let repeated = other.commit_in(again(&context), vec![], vec![put(b"count", "1")]).await?;
        ensure!(committed(&first)? == committed(&repeated)?, "{first:?}, {repeated:?}");
    }
    ensure!(raw.variables(&[b"count"]).await?.variables[0].version == 2, "one came twice");

    // Only what goes through the log is remembered, as all that is sent again does.
    let context = again(&raw.context());
    let lost = raw.commit_in(context, vec![absent(b"count")], vec![put(b"count", "3")]).await?;
    ensure!(!lost.committed, "{lost:?}");
    let mut deleter = Raw::on_leader_and_follower(&cluster).await?.pop().context("two")?;
    committed(&deleter.commit(vec![], vec![delete(b"count")]).await?)?;
    let repeated =
        other.commit_in(context, vec![absent(b"count")], vec![put(b"count", "3")]).await?;
    ensure!(!repeated.committed && repeated.conflicts_total == 1, "{repeated:?}");
    let told = repeated.conflicts[0].variable.clone().unwrap_or_default();
    ensure!(told.version == 0, "what is there now is nothing: {told:?}");
    ensure!(raw.variables(&[b"count"]).await?.variables[0].version == 0, "it was carried out");
    cluster.finish().await
}

/// Whoever loses a race for a variable is told so without a log entry, also while the writes of others are
/// on their way, as they always are to a variable that many want. Who wins pays for one.
// T2
#[tokio::test(flavor = "multi_thread")]
async fn conflicts_cost_no_log_entries() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let mut both = Raw::on_leader_and_follower(&cluster).await?;
    let mut winner = Raw::on_leader_and_follower(&cluster).await?.remove(0);
    let first =
        committed(&winner.commit(vec![], vec![put(b"hot", "0"), put(b"still", "0")]).await?)?;
    committed(&winner.commit(vec![], vec![put(b"hot", "1")]).await?)?;
    let leader = cluster.leader().await?;
    let before = cluster.status(leader).await?.requests_proposed;
    let over = Arc::new(AtomicBool::new(false));
    let wins = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            let mut wins = 0_u64;
            while !over.load(Ordering::Relaxed) {
                committed(&winner.commit(vec![], vec![put(b"hot", wins.to_string())]).await?)?;
                wins += 1;
            }
            Ok::<u64, anyhow::Error>(wins)
        }
    });
    let losses = 2 * scale(1000, 200);
    for raw in &mut both {
        for _ in 0..losses / 2 {
            let lost = raw.commit(vec![is(b"hot", 1, first)], vec![put(b"hot", "lost")]).await?;
            ensure!(!lost.committed, "{lost:?}");
            committed(&raw.commit(vec![is(b"still", 1, first)], vec![]).await?)?;
        }
    }
    over.store(true, Ordering::Relaxed);
    let wins = wins.await??;
    let proposed = cluster.status(leader).await?.requests_proposed - before;
    report(
        "commits that lose to others on their way",
        format!("{losses} conflicts beside {wins} commits: {proposed} requests in the log"),
    );
    ensure!(wins > 10, "nobody was in the way");
    ensure!(proposed == wins, "{} of {losses} losers went through the log", proposed - wins);
    cluster.finish().await
}

/// A commit that is sent behind another one of its session, without waiting for its answer, takes effect
/// behind it, although the state from which it could be answered at once says otherwise.
// T2
#[tokio::test(flavor = "multi_thread")]
async fn commits_of_one_session_that_overlap_keep_their_order() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let mut raw = Raw::on_leader_and_follower(&cluster).await?.remove(0);
    let leader = cluster.leader().await?;
    let followers: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    committed(&raw.commit(vec![], vec![put(b"x", "1")]).await?)?;
    let send = |mut stm: StmClient<Channel>, request: v1::CommitRequest| {
        tokio::spawn(async move { stm.commit(request).await })
    };
    for round in 0..10 {
        let before = cluster.status(leader).await?.requests_proposed;
        // Nothing is committed until they are back.
        for index in &followers {
            cluster.pause(*index)?;
        }
        let (first, second) = (raw.context(), raw.context());
        let first_incomplete = first.context("a number")?.seq;
        let second = second.map(|context| v1::WriteContext { first_incomplete, ..context });
        let (context, writes) = (first, vec![delete(b"x")]);
        let request = v1::CommitRequest { context, writes, ..Default::default() };
        let deletes = send(raw.stm.clone(), request);
        cluster
            .wait("the delete is on its way", || async {
                let now = cluster.status(leader).await.ok()?.requests_proposed;
                (now > before).then_some(())
            })
            .await?;
        let (context, comparisons) = (second, vec![absent(b"x")]);
        let writes = vec![put(b"x", "2")];
        let request = v1::CommitRequest { context, comparisons, writes, ..Default::default() };
        let creates = send(raw.stm.clone(), request);
        for index in &followers {
            cluster.resume(*index)?;
        }
        committed(deletes.await??.get_ref())?;
        let created = creates.await??.into_inner();
        ensure!(created.committed, "round {round}: it was answered as if nothing came before");
    }
    cluster.finish().await
}

async fn list(
    raw: &mut Raw,
    key_prefix: &[u8],
) -> Result<Streaming<v1::ListVariablesResponse>, Status> {
    let request =
        v1::ListVariablesRequest { key_prefix: key_prefix.to_vec(), ..Default::default() };
    Ok(raw.stm.list_variables(request).await?.into_inner())
}

/// All of a listing, and the revision that all of its responses name.
async fn read(
    mut responses: Streaming<v1::ListVariablesResponse>,
) -> anyhow::Result<(Vec<v1::Variable>, u64)> {
    let (mut variables, mut at) = (Vec::new(), None);
    while let Some(response) = responses.message().await? {
        let this = revision(response.header.as_ref())?;
        ensure!(*at.get_or_insert(this) == this, "{this} behind {at:?}");
        variables.extend(response.variables);
        if response.is_last {
            ensure!(responses.message().await?.is_none(), "more behind the last");
            return Ok((variables, at.context("a revision")?));
        }
    }
    bail!("it ended without its last response")
}

/// Every commit moves a unit from one variable to another; whichever are listed together, the sum is the same.
// T5
#[tokio::test(flavor = "multi_thread")]
async fn listings_are_at_one_revision_while_commits_go_on() -> anyhow::Result<()> {
    const ACCOUNTS: usize = 3000;
    let cluster = Cluster::start_three().await?;
    let mut both = Raw::on_leader_and_follower(&cluster).await?;
    let mut reader = both.pop().context("two")?;
    let mut writer = both.pop().context("two")?;
    let key = |nth: usize| format!("account/{nth:05}").into_bytes();
    // So that a listing takes several responses.
    let value = |amount: u64| format!("{amount:0400}");
    let accounts = (0..ACCOUNTS).map(|nth| put(&key(nth), value(100))).collect();
    committed(&writer.commit(vec![], accounts).await?)?;
    committed(&writer.commit(vec![], vec![put(b"another", "1")]).await?)?;
    let writing = tokio::spawn(async move {
        let mut amounts = vec![100_u64; ACCOUNTS];
        for nth in 0..scale(2000, 300) {
            let (from, to) = (nth % ACCOUNTS, ACCOUNTS - 1 - nth % ACCOUNTS);
            (amounts[from], amounts[to]) = (amounts[from] - 1, amounts[to] + 1);
            let both = [from, to].map(|nth| put(&key(nth), value(amounts[nth])));
            committed(&writer.commit(vec![], both.into()).await?)?;
        }
        Ok::<(), anyhow::Error>(())
    });
    let (mut listings, mut revisions) = (0, std::collections::BTreeSet::new());
    while listings < 3 || !writing.is_finished() {
        let responses = list(&mut reader, b"account/").await?;
        let (variables, at) = read(responses).await?;
        ensure!(variables.len() == ACCOUNTS, "{} variables", variables.len());
        ensure!(variables.is_sorted_by(|one, next| one.key < next.key), "out of order");
        ensure!(variables.iter().all(|one| one.mod_revision <= at), "newer than {at}");
        let amounts = variables.iter().map(|one| {
            std::str::from_utf8(&one.value)?.parse::<u64>().map_err(anyhow::Error::from)
        });
        let sum: u64 = amounts.sum::<anyhow::Result<u64>>()?;
        ensure!(sum == 100 * ACCOUNTS as u64, "{sum} at revision {at}");
        (listings, _) = (listings + 1, revisions.insert(at));
    }
    writing.await??;
    report(
        "listings of 3,000 variables while commits go on",
        format!("{listings} at {} revisions, each with the same sum", revisions.len()),
    );
    ensure!(revisions.len() > 1, "nothing went on meanwhile");
    let request = v1::ListVariablesRequest { only_keys: true, ..Default::default() };
    let (keys, _) = read(reader.stm.list_variables(request).await?.into_inner()).await?;
    ensure!(
        keys.len() == ACCOUNTS + 1 && keys.iter().all(|one| one.value.is_empty()),
        "{}",
        keys.len()
    );
    cluster.finish().await
}

/// More than all windows and buffers on the way hold: a listing that nobody reads ends, and says so to
/// whoever comes back to it.
// G9
#[tokio::test(flavor = "multi_thread")]
async fn listing_that_nobody_reads_is_cut_off() -> anyhow::Result<()> {
    const VALUES: u8 = 40;
    let cluster = Cluster::start(1, Options::default()).await?;
    let endpoint = format!("http://{}", cluster.endpoint(0));
    let channel = Channel::from_shared(endpoint)?.connect().await?;
    let mut raw = Raw::on(channel).await?;
    for nth in 0..VALUES {
        committed(&raw.commit(vec![], vec![put(&[nth], vec![nth; MIB])]).await?)?;
    }
    let (all, _) = read(list(&mut raw, b"").await?).await?;
    ensure!(all.len() == usize::from(VALUES), "{} variables to one that reads", all.len());

    // It is cut off after ten seconds; what was on its way by then still comes, and then the reason. It
    // shows only to one who reads again, which a node that is late must not take for reading in time.
    let mut silence = CUT_OFF_MAX;
    let (told, status) = loop {
        match stop_reading(&mut raw, silence).await? {
            (told, Some(status)) => break (told, status),
            (told, None) if silence >= bound(CUT_OFF_MAX) => {
                bail!("all {told} variables came after {silence:?}: nobody was cut off")
            }
            (_, None) => silence *= 2,
        }
    };
    report(
        "a listing of 40 MiB that nobody reads",
        format!("cut off with {told} MiB on their way"),
    );
    ensure!(told < usize::from(VALUES), "{told}");
    refused(Err::<(), _>(status), Code::ResourceExhausted, "SLOW_READER", &[])?;
    cluster.finish().await
}

/// Opens a listing, leaves it lying, and then reads what comes: how many variables, and what ended it early.
async fn stop_reading(raw: &mut Raw, silence: Duration) -> anyhow::Result<(usize, Option<Status>)> {
    let mut unread = list(raw, b"").await?;
    tokio::time::sleep(silence).await;
    let mut told = 0;
    loop {
        match unread.message().await {
            Ok(Some(response)) => told += response.variables.len(),
            Ok(None) => return Ok((told, None)),
            Err(status) => return Ok((told, Some(status))),
        }
    }
}

// T4 W1
#[tokio::test(flavor = "multi_thread")]
async fn watches_tell_of_the_variables_that_they_ask_for() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let mut raw = Raw::on_leader_and_follower(&cluster).await?.pop().context("two")?;
    let filters = vec![WatchFilter::Variable(b"a/".to_vec())];
    let options = WatchOptions { filters, ..WatchOptions::default() };
    let mut watch = cluster.client().watch(options).await?;
    let first = committed(
        &raw.commit(vec![], vec![put(b"b/x", "1"), put(b"a/y", "1"), put(b"a/x", "1")]).await?,
    )?;
    let lost = raw.commit(vec![absent(b"a/x")], vec![put(b"a/x", "2")]).await?;
    ensure!(!lost.committed, "{lost:?}");
    let second = committed(
        &raw.commit(vec![is(b"a/x", 1, first)], vec![put(b"a/x", "2"), delete(b"a/y")]).await?,
    )?;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let change = tokio::time::timeout(WAIT_MAX, watch.next()).await??;
        let Event::Variable { key, version } = change.event else { bail!("{change:?}") };
        seen.push((change.revision, key, version));
    }
    let expected = [
        (first, b"a/x".to_vec(), Some(1)),
        (first, b"a/y".to_vec(), Some(1)),
        (second, b"a/x".to_vec(), Some(2)),
        (second, b"a/y".to_vec(), None),
    ];
    ensure!(seen == expected, "{seen:?}");
    cluster.finish().await
}
