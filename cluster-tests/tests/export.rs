//! Export and import: all rows of one cluster come into an empty one under the same ids, whatever they hold; a
//! file that is not whole changes nothing.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use holdfast_client::{Claimed, Client, Instance, OpenedLease, Row};
use holdfast_cluster_tests::{Cluster, Options, holdfast, report, scale};
use tokio::time::Instant;

const OBJECTS: usize = 10;
const NAMED: usize = 50;
/// Writes on their way at a time.
const IN_FLIGHT: usize = 64;
const LONG: Duration = Duration::from_secs(3600);

// S7 G11
#[tokio::test(flavor = "multi_thread")]
async fn rows_come_into_an_empty_cluster_under_their_ids() -> anyhow::Result<()> {
    let values = scale(100_000, 10_000);
    let from = Cluster::start_three().await?;
    let to = Cluster::start(1, Options::default()).await?;
    fill(&from.client(), values).await?;
    let dir = from.dir();
    let [there, here, again] = ["there", "here", "again"].map(|name| dir.join(name));

    let began = Instant::now();
    ok(&run(&from, &["export", path(&there)]).await?)?;
    let export = began.elapsed();
    let began = Instant::now();
    let imported = ok(&run(&to, &["import", path(&there)]).await?)?;
    let import = began.elapsed();
    let all = values + OBJECTS + 2 * NAMED + 2;
    ensure!(imported.contains(&format!("imported  {all} rows, 0 were there")), "{imported}");
    ok(&run(&to, &["export", path(&here)]).await?)?;
    let rows = body(&there)?;
    ensure!(rows == body(&here)?, "the rows differ");
    report(
        "export and import of rows, ids too",
        format!(
            "{all} rows equal; exported in {:.1} s, imported into one node in {:.1} s, {} KiB",
            export.as_secs_f64(),
            import.as_secs_f64(),
            rows.len() >> 10
        ),
    );

    // Once more changes nothing, also from stdin.
    let repeated = ok(&run(&to, &["import", path(&there)]).await?)?;
    ensure!(repeated.contains(&format!("imported  0 rows, {all} were there")), "{repeated}");
    let piped = format!("cat {} | $0 state import - $1 $2", path(&there));
    let endpoints = to.endpoints().join(",");
    let piped = tokio::process::Command::new("sh")
        .args(["-c", &piped])
        .args([holdfast()?.as_os_str(), "--endpoints".as_ref(), endpoints.as_ref()])
        .output();
    ok(&piped.await.context("run sh")?)?;
    ok(&run(&to, &["export", path(&again)]).await?)?;
    ensure!(body(&again)? == rows, "a repeated import changed something");

    ids_go_on_above(&from.client(), &to.client()).await?;
    from.finish().await?;
    to.finish().await
}

// S7 G11
#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_contradicting_files_are_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Options::default()).await?;
    fill(&cluster.client(), 100).await?;
    let file = cluster.dir().join("rows");
    ok(&run(&cluster, &["export", path(&file)]).await?)?;
    let whole = std::fs::read(&file)?;
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();

    let elsewhere = ["import", path(&file), "--namespace", "elsewhere"];
    let mut flipped = whole.clone();
    let middle = whole.len() / 2;
    // A digit of a name or a value, so that only the checksum can tell.
    let place = middle + whole[middle..].iter().position(u8::is_ascii_digit).context("a digit")?;
    flipped[place] ^= 1;
    std::fs::write(&file, &flipped)?;
    refused(&run(&cluster, &elsewhere).await?, 8, &["error[bad-export]: line "])?;
    std::fs::write(&file, &whole[..middle])?;
    let cut = whole[..middle].iter().filter(|byte| **byte == b'\n').count() + 1;
    let named = format!("error[bad-export]: line {cut} of ");
    refused(&run(&cluster, &elsewhere).await?, 8, &[&named, "cut short"])?;
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').context("lines")?;
    std::fs::write(&file, &whole[..=last])?;
    let named = format!("error[bad-export]: line {lines} of ");
    refused(&run(&cluster, &elsewhere).await?, 8, &[&named, "cut short"])?;
    let other = cluster.client().with_namespace("elsewhere");
    ensure!(other.state().list_objects().await?.is_empty(), "something was imported");

    // Another value stands where the file has one.
    std::fs::write(&file, &whole)?;
    let state = cluster.client().state();
    let object = state.find_object_id("object-3", "Test").await?.context("it was filled")?;
    state.set(object, "value-13", "\"mine\"").await?;
    let text = String::from_utf8(whole)?;
    let line = text.lines().position(|line| line.contains("\"value-13\"")).context("a line")? + 1;
    let named = format!("error[import-conflict]: line {line} of ");
    let output = run(&cluster, &["import", path(&file)]).await?;
    refused(&output, 5, &[&named, "the file has", "the cluster has", "\"mine\""])?;
    let stands = state.get(object, "value-13").await?.context("it is there")?;
    ensure!(stands.bytes == b"\"mine\"", "{stands:?}");
    cluster.finish().await
}

/// Masters, change sources, objects and so many values, of all sorts; some of it leased and claimed.
async fn fill(client: &Client, values: usize) -> anyhow::Result<()> {
    let (state, sources) = (client.state(), client.change_sources());
    for nth in 0..NAMED {
        client.masters().find_id(&format!("master-{nth}")).await?;
        let source = sources.find_id(&format!("source-{nth}")).await?;
        if nth % 5 == 0 {
            sources.set_group(source, Some("project")).await?;
        }
    }
    let opened = client.masters().open_lease("leased", &Instance::random(), LONG).await?;
    let OpenedLease::Granted(lease) = opened else { anyhow::bail!("{opened:?}") };
    let claimed = sources.find_id("claimed").await?;
    let granted = sources.claim(lease.id, claimed).await?;
    ensure!(matches!(granted, Claimed::Granted { .. }), "{granted:?}");
    let mut objects = Vec::new();
    for nth in 0..OBJECTS {
        objects.push(state.get_object_id(&format!("object-{nth}"), "Test").await?);
    }
    let writes = (0..values).map(|nth| {
        let (state, object) = (&state, objects[nth % OBJECTS]);
        async move { state.set(object, &format!("value-{nth}"), value(nth)).await.map(drop) }
    });
    futures::stream::iter(writes).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
    Ok(())
}

fn value(nth: usize) -> Vec<u8> {
    match nth % 100 {
        0 => Vec::new(),
        1 => vec![0xff, 0, 0x80, b'\n'],
        2 => "{\"text\": \"\\ud800 \u{1f600} \u{0}\n\"}".into(),
        // The largest, but only a few.
        3 if nth < 400 => vec![0x01; 1 << 20],
        _ => format!("{{\"rev\": {nth}, \"pad\": \"{}\"}}", "x".repeat(150)).into_bytes(),
    }
}

/// S7 S1: whatever is made later gets ids above all that were imported.
async fn ids_go_on_above(from: &Client, to: &Client) -> anyhow::Result<()> {
    let mut highest = [0; 3];
    let mut export = from.state().export().await?;
    while let Some(rows) = export.next().await? {
        for row in rows {
            let (kind, id) = match row {
                Row::Master { id, .. } => (0, id),
                Row::ChangeSource { id, .. } => (1, id),
                Row::Object { id, .. } => (2, id),
                Row::Value { .. } => continue,
            };
            highest[kind] = highest[kind].max(id);
        }
    }
    let given = [
        to.masters().find_id("a new one").await?,
        to.change_sources().find_id("a new one").await?,
        to.state().get_object_id("a new one", "Test").await?,
    ];
    ensure!(highest.iter().zip(&given).all(|(old, new)| new > old), "{given:?} after {highest:?}");
    let (old, new) = (from.state(), to.state());
    for nth in 0..OBJECTS {
        let name = format!("object-{nth}");
        let id = old.find_object_id(&name, "Test").await?;
        ensure!(id.is_some() && id == new.find_object_id(&name, "Test").await?, "{name}: {id:?}");
    }
    let masters = to.masters().list().await?;
    ensure!(masters.iter().all(|master| !master.active), "rights are not imported");
    Ok(())
}

/// The lines between the first, which says where they are from, and the last, which sums them up.
fn body(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file)?;
    let (_, rest) = text.split_once('\n').context("a first line")?;
    let (rows, _) = rest.trim_end().rsplit_once('\n').context("a last line")?;
    Ok(rows.to_owned())
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

async fn run(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Output> {
    let endpoints = cluster.endpoints().join(",");
    let output = tokio::process::Command::new(holdfast()?)
        .arg("state")
        .args(args)
        .args(["--endpoints", &endpoints])
        .stdin(Stdio::null())
        .output();
    output.await.context("run holdfast")
}

fn ok(output: &Output) -> anyhow::Result<String> {
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn refused(output: &Output, code: i32, says: &[&str]) -> anyhow::Result<()> {
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{output:?}");
    ensure!(says.iter().all(|text| told.contains(text)), "{told} does not say {says:?}");
    Ok(())
}
