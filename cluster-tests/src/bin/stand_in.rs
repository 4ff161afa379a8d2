//! A master for tests: opens a lease, claims change sources, writes under its fence, and prints
//! what happens to it, one JSON object a line. It goes on until its standard input is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use holdfast_client::{
    BootTime, Claimed, Client, ClientConfig, Error, Fence, Instance, LeaseHolder, Opened,
};
use holdfast_cluster_tests::Event;
use tokio::sync::watch;

/// How often the end of the lease is looked at, to see renewals.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Pause between two writes.
const WRITE_EVERY: Duration = Duration::from_millis(20);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // When the test that started us is gone, so are we.
    std::thread::spawn(|| {
        let mut nothing = Vec::new();
        let _ended = std::io::stdin().read_to_end(&mut nothing);
        std::process::exit(0);
    });
    if let Err(error) = run().await {
        say(&Event::Failed { message: format!("{error:#}") });
    }
}

async fn run() -> anyhow::Result<()> {
    let args = Args::parse()?;
    let mut config = ClientConfig::new(args.endpoints.clone());
    config.namespace.clone_from(&args.namespace);
    let client = Client::connect(config);
    let instance = Instance::random();
    let holder = loop {
        let (name, ttl, grace) = (&args.name, args.ttl, args.grace);
        match LeaseHolder::open_with_grace(&client, name, &instance, ttl, grace).await? {
            Opened::Granted(holder) => break Arc::new(holder),
            Opened::HeldBy(_) => tokio::time::sleep(args.claim_every).await,
        }
    };
    let lease = holder.lease();
    say(&Event::Opened { lease: lease.id, master: lease.master });
    let (watched, grace) = (holder.clone(), args.grace);
    let renewals = tokio::spawn(async move {
        match grace {
            Duration::ZERO => watch_renewals(watched, lease.ttl).await,
            grace => watch_attachment(&watched, grace).await,
        }
    });
    let (granted, fence) = watch::channel(None);
    let work = async {
        tokio::try_join!(claim_all(&args, &holder, &granted), write(&args, &holder, fence.clone()))
    };
    let loss = tokio::select! {
        biased;
        loss = holder.lost() => loss,
        done = work => { done?; holder.lost().await }
    };
    say(&Event::Lost { loss: format!("{loss:?}"), at_us: now_us() });
    renewals.abort();
    let fence: Option<Fence> = *fence.borrow();
    if let (Some(object), Some(fence)) = (args.write_object, fence) {
        write_after_loss(&args, &client, &holder, object, fence).await;
    }
    // Says nothing more, and lives until it is told to end.
    std::future::pending().await
}

/// The first call after the loss says so; then one with the old fence that goes around the holder.
async fn write_after_loss(
    args: &Args,
    client: &Client,
    holder: &LeaseHolder,
    object: i64,
    fence: Fence,
) {
    let began_us = now_us();
    let result = text_of(holder.set_fenced(object, "work", "after the loss", fence).await);
    say(&Event::Wrote { began_us, at_us: now_us(), result });
    // Until somebody else owns the change source there is nobody to protect.
    loop {
        let source = client.change_sources().get(fence.change_source).await;
        let owner = source.ok().flatten().and_then(|source| source.claimant);
        if owner.is_some_and(|owner| owner.token != fence.token) {
            break;
        }
        tokio::time::sleep(args.claim_every).await;
    }
    let written = client.state().set_fenced(object, "work", "under an old fence", fence).await;
    say(&Event::StaleWrite { result: text_of(written) });
}

/// The holder counts its lease from the first transmission of a renewal, so its end tells when that
/// was.
async fn watch_renewals(holder: Arc<LeaseHolder>, ttl: Duration) {
    let counted = ttl - ttl / 100 - Duration::from_millis(10);
    let mut last = Duration::ZERO;
    loop {
        let until = holder.lost_at().since_boot();
        if until != last && holder.is_live() {
            last = until;
            say(&Event::Renewed { sent_us: micros(until.saturating_sub(counted)) });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// With a grace the end of the lease tells of its connection: it moves on with every answer.
async fn watch_attachment(holder: &LeaseHolder, grace: Duration) {
    let mut last = None;
    loop {
        let until = holder.lost_at();
        let is_attached = until.since(BootTime::now()) <= grace;
        if is_attached && last.is_some_and(|last| last < until) {
            return say(&Event::Attached);
        }
        last = is_attached.then_some(until);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn claim_all(
    args: &Args,
    holder: &LeaseHolder,
    granted: &watch::Sender<Option<Fence>>,
) -> anyhow::Result<()> {
    let mut wanted: BTreeSet<i64> = args.sources.iter().copied().collect();
    let mut tokens = BTreeMap::new();
    let mut tries = tokio::time::interval(args.claim_every);
    while !wanted.is_empty() {
        tries.tick().await;
        let sent_us = now_us();
        let claims =
            wanted.iter().map(|&source| async move { (source, holder.claim(source).await) });
        let answers = futures::future::join_all(claims).await;
        let at_us = now_us();
        for (source, claimed) in answers {
            match claimed {
                Ok(Claimed::Granted { token }) => {
                    wanted.remove(&source);
                    tokens.insert(source, token);
                    say(&Event::Granted { source, token, sent_us, at_us });
                }
                Ok(Claimed::AlreadyClaimed(_)) | Err(Error::LeaseLost { .. }) => {}
                Err(error) => bail!("claim of {source}: {error}"),
            }
        }
    }
    say(&Event::AllGranted { at_us: now_us() });
    let first = args.sources.first().and_then(|source| tokens.get_key_value(source));
    granted
        .send_replace(first.map(|(source, token)| Fence { change_source: *source, token: *token }));
    Ok(())
}

async fn write(
    args: &Args,
    holder: &LeaseHolder,
    mut fence: watch::Receiver<Option<Fence>>,
) -> anyhow::Result<()> {
    let Some(object) = args.write_object else { return Ok(()) };
    let Some(fence) = *fence.wait_for(Option::is_some).await? else { return Ok(()) };
    for number in 0_u64.. {
        let began_us = now_us();
        let written = holder.set_fenced(object, "work", number.to_string(), fence).await;
        let is_over = matches!(written, Err(Error::LeaseLost { .. }));
        say(&Event::Wrote { began_us, at_us: now_us(), result: text_of(written) });
        if is_over {
            break;
        }
        tokio::time::sleep(WRITE_EVERY).await;
    }
    Ok(())
}

fn text_of<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.reason().map_or_else(|| error.to_string(), str::to_owned),
    }
}

fn now_us() -> u64 {
    micros(BootTime::now().since_boot())
}

fn micros(since_boot: Duration) -> u64 {
    u64::try_from(since_boot.as_micros()).expect("no machine runs that long")
}

fn say(event: &Event) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{}", event.format()).and_then(|()| out.flush());
    if written.is_err() {
        // Nobody listens any more.
        std::process::exit(0);
    }
}

struct Args {
    name: String,
    endpoints: Vec<String>,
    namespace: String,
    ttl: Duration,
    grace: Duration,
    claim_every: Duration,
    sources: Vec<i64>,
    write_object: Option<i64>,
}

impl Args {
    fn parse() -> anyhow::Result<Args> {
        let mut given = BTreeMap::new();
        let mut words = std::env::args().skip(1);
        while let Some(name) = words.next() {
            let value = words.next().with_context(|| format!("{name} needs a value"))?;
            given.insert(name, value);
        }
        let mut take =
            |name: &str| given.remove(name).with_context(|| format!("{name} is missing"));
        let list = |text: String| -> Vec<String> {
            text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let args = Args {
            name: take("--name")?,
            endpoints: list(take("--endpoints")?),
            namespace: take("--namespace")?,
            ttl: Duration::from_millis(take("--ttl-ms")?.parse()?),
            grace: Duration::from_millis(take("--grace-ms")?.parse()?),
            claim_every: Duration::from_millis(take("--claim-every-ms")?.parse()?),
            sources: list(take("--sources")?)
                .iter()
                .map(|source| source.parse())
                .collect::<Result<_, _>>()?,
            write_object: take("--write-object").ok().map(|object| object.parse()).transpose()?,
        };
        match given.into_keys().next() {
            Some(unknown) => bail!("{unknown} is not known"),
            None => Ok(args),
        }
    }
}
