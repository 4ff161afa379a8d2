//! `holdfast serve`: one node in the foreground.
//!
//! Settings come from flags, then the environment, then the configuration file, then the default.
//! The node logs to stderr: our own crates from INFO on, libraries from WARN on, openraft from
//! ERROR on because it warns of a node that is away twenty times a second, unless `HOLDFAST_LOG`
//! says otherwise. SIGTERM and SIGINT stop it in good order; a second one at once.

use std::env;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_node::ServeError;
use holdfast_node::config::{Config, LogFormat, Start};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::ServeArgs;
use crate::codes::{Code, Exit};
use crate::config_file::{self, ConfigFile};
use crate::errors::{Failure, Outcome};
use crate::memory;

/// What is logged unless `HOLDFAST_LOG` says otherwise.
const LOG_DEFAULT: &str = "warn,openraft=error,holdfast=info";
/// How long threads that still block are waited for once the node has stopped.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(1);

/// Runs a node until it is told to stop.
pub(crate) fn run(args: &ServeArgs) -> Outcome<Exit> {
    if args.own_session {
        // Fails only if we lead a session already, which is what we want.
        let _leads = rustix::process::setsid();
    }
    let file = match &args.config {
        Some(path) => config_file::load(path)?,
        None => ConfigFile::default(),
    };
    let config = settle(args, file)?;
    start_log(config.log_format)?;
    if let Err(error) = memory::give_back() {
        tracing::warn!(%error, "memory that was used once is kept");
    }
    tracing::info!(
        "holdfast {} starts with its data in {}; look at it: holdfast status --endpoints {}",
        env!("CARGO_PKG_VERSION"),
        config.data_dir.display(),
        config.advertise_client.clone().unwrap_or_else(|| config.client_addr.to_string()),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::bug(format!("cannot start the runtime: {error}")))?;
    let served = runtime.block_on(async {
        let stop = stop_signal()?;
        holdfast_node::serve(config, Box::pin(stop)).await.map_err(|error| failure(&error))
    });
    // Whatever still blocks a thread must not hold up a supervisor.
    runtime.shutdown_timeout(SHUTDOWN_WITHIN);
    served.map(|()| Exit::Done)
}

/// The settings of the node, from wherever they come.
pub(crate) fn settle(args: &ServeArgs, file: ConfigFile) -> Outcome<Config> {
    let data_dir = match args.data_dir.clone().or(file.data_dir) {
        Some(dir) => dir,
        None => default_data_dir()?,
    };
    let data_dir =
        std::path::absolute(&data_dir).map_err(|error| Failure::file("use", &data_dir, &error))?;
    let mut config = Config::new(data_dir);
    let set = |to: &mut u64, flag: Option<u64>, file: Option<u64>| {
        *to = flag.or(file).unwrap_or(*to);
    };
    config.client_addr = args.client_addr.or(file.client_addr).unwrap_or(config.client_addr);
    config.peer_addr = args.peer_addr.or(file.peer_addr).unwrap_or(config.peer_addr);
    config.advertise_client = args.advertise_client.clone().or(file.advertise_client);
    config.advertise_peer = args.advertise_peer.clone().or(file.advertise_peer);
    config.peer_source_addr = args.peer_source_addr.or(file.peer_source_addr);
    config.node_id = args.node_id.or(file.node_id);
    let join = match args.join.is_empty() {
        true => file.join.unwrap_or_default(),
        false => args.join.clone(),
    };
    config.start = match (args.form, join.is_empty()) {
        (true, _) => Start::Form,
        (false, false) => Start::Join(join),
        (false, true) => Start::Existing,
    };
    config.moved = args.moved;
    set(&mut config.heartbeat_ms, args.heartbeat_ms, file.heartbeat_ms);
    set(&mut config.election_min_ms, args.election_min_ms, file.election_min_ms);
    set(&mut config.election_max_ms, args.election_max_ms, file.election_max_ms);
    set(
        &mut config.snapshot_every_entries,
        args.snapshot_every_entries,
        file.snapshot_every_entries,
    );
    set(&mut config.log_keep_entries, args.log_keep_entries, file.log_keep_entries);
    set(&mut config.quota_bytes, args.quota_bytes, file.quota_bytes);
    set(&mut config.disk_floor_bytes, args.disk_floor_bytes, file.disk_floor_bytes);
    config.log_format = args.log_format.or(file.log_format).unwrap_or(config.log_format);
    config.unsafe_no_sync = args.unsafe_no_sync;
    check(&config)?;
    Ok(config)
}

fn check(config: &Config) -> Outcome<()> {
    config.validate().map_err(|error| {
        Failure::new(Code::BadConfig, error.to_string())
            .help("correct the flag, the variable or the line of the configuration file")
    })?;
    let everywhere = [
        (config.client_addr, &config.advertise_client, "client"),
        (config.peer_addr, &config.advertise_peer, "peer"),
    ];
    for (addr, advertised, which) in everywhere {
        if addr.ip().is_unspecified() && advertised.is_none() {
            return Err(Failure::new(
                Code::BadConfig,
                format!("--{which}-addr {addr} listens everywhere, and nobody can connect to that"),
            )
            .cause("others are told one address of this node, and it cannot be guessed")
            .help(format!("say which: --advertise-{which} HOST:{}", addr.port())));
        }
    }
    Ok(())
}

/// `$STATE_DIRECTORY` (systemd.exec(5); the first of several), else the user's data directory.
fn default_data_dir() -> Outcome<PathBuf> {
    let absolute = |name: &str| {
        let first = env::var(name).ok()?.split(':').next()?.to_owned();
        Some(PathBuf::from(first)).filter(|dir| dir.is_absolute())
    };
    absolute("STATE_DIRECTORY")
        .or_else(|| absolute("XDG_DATA_HOME").map(|dir| dir.join("holdfast/node")))
        .or_else(|| absolute("HOME").map(|dir| dir.join(".local/share/holdfast/node")))
        .ok_or_else(|| {
            Failure::new(Code::BadConfig, "there is no place for the data of this node")
                .cause("none of STATE_DIRECTORY, XDG_DATA_HOME and HOME holds an absolute path")
                .help("name one: --data-dir DIR")
        })
}

fn start_log(format: LogFormat) -> Outcome<()> {
    let wanted = env::var("HOLDFAST_LOG").unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&wanted).map_err(|error| {
        Failure::new(Code::BadConfig, format!("HOLDFAST_LOG is {wanted:?}"))
            .cause(error.to_string())
            .help(format!("write levels by crate, such as {LOG_DEFAULT}"))
    })?;
    let colours = std::io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(colours).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).init(),
    }
    Ok(())
}

/// Ends with the first SIGTERM or SIGINT; the second one ends the process.
fn stop_signal() -> Outcome<impl Future<Output = ()>> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::bug(format!("cannot listen for signals: {error}")))
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut stop = Some(stop);
        loop {
            let exit = tokio::select! {
                _ = terminate.recv() => Exit::Terminated,
                _ = interrupt.recv() => Exit::Interrupted,
            };
            match stop.take() {
                // The receiver is gone only when the node has stopped by itself.
                Some(stop) => drop(stop.send(())),
                None => std::process::exit(exit.number().into()),
            }
        }
    });
    Ok(async move {
        // An error would mean that the task above has ended, which it never does.
        let _ended = stopped.await;
    })
}

/// Why a node did not start or did not go on, as people see it.
fn failure(error: &ServeError) -> Failure {
    let code = Code::from_name(error.code()).unwrap_or(Code::Bug);
    let mut failure = Failure::new(code, error.what());
    failure.cause = Some(error.cause().to_owned()).filter(|cause| !cause.is_empty());
    failure.help = Some(error.help().to_owned()).filter(|help| !help.is_empty());
    failure
}

#[cfg(test)]
mod tests {
    //! Where settings come from, and which ones cannot work.
    use super::*;

    fn args() -> ServeArgs {
        ServeArgs { data_dir: Some("/d".into()), ..ServeArgs::default() }
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_the_default() {
        let file = || ConfigFile {
            data_dir: Some("/from-file".into()),
            heartbeat_ms: Some(60),
            election_min_ms: Some(200),
            ..ConfigFile::default()
        };
        let config = settle(&ServeArgs { heartbeat_ms: Some(70), ..args() }, file()).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/d"));
        assert_eq!(config.heartbeat_ms, 70);
        assert_eq!(config.election_min_ms, 200);
        assert_eq!(config.election_max_ms, 300);
        let config = settle(&ServeArgs::default(), file()).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/from-file"));
        assert_eq!(config.start, Start::Existing);
    }

    #[test]
    fn how_a_node_comes_to_its_cluster() {
        let form = settle(&ServeArgs { form: true, ..args() }, ConfigFile::default()).unwrap();
        assert_eq!(form.start, Start::Form);
        let file = ConfigFile { join: Some(vec!["b:1".into()]), ..ConfigFile::default() };
        assert_eq!(settle(&args(), file).unwrap().start, Start::Join(vec!["b:1".into()]));
        let file = ConfigFile { join: Some(vec!["b:1".into()]), ..ConfigFile::default() };
        let join = ServeArgs { join: vec!["a:1".into()], ..args() };
        assert_eq!(settle(&join, file).unwrap().start, Start::Join(vec!["a:1".into()]));
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let slow = ServeArgs { heartbeat_ms: Some(200), ..args() };
        assert_eq!(settle(&slow, ConfigFile::default()).unwrap_err().code, Code::BadConfig);
        let open = ServeArgs { client_addr: "0.0.0.0:7480".parse().ok(), ..args() };
        let failure = settle(&open, ConfigFile::default()).unwrap_err();
        assert_eq!(failure.code, Code::BadConfig);
        assert_eq!(failure.help.unwrap(), "say which: --advertise-client HOST:7480");
        let told = ServeArgs { advertise_client: Some("n1.example:7480".into()), ..open };
        assert!(settle(&told, ConfigFile::default()).is_ok());
    }

    /// The node's sources are searched for its codes, because no type lists them.
    #[test]
    fn every_code_of_the_node_is_ours_too() {
        let node = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/src");
        let mut found = Vec::new();
        for dir in ["serve", "store"] {
            for file in std::fs::read_dir(node.join(dir)).unwrap() {
                let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
                for (at, _) in text.match_indices("ServeError::new(") {
                    let rest = text[at..].trim_start_matches("ServeError::new(").trim_start();
                    found.extend(
                        rest.strip_prefix('"').and_then(|r| r.split('"').next()).map(String::from),
                    );
                }
                for (at, _) in text.match_indices("fn code(&self) -> &'static str {") {
                    let body = text[at..].split("\n    }").next().unwrap();
                    found.extend(body.split('"').skip(1).step_by(2).map(String::from));
                }
            }
        }
        assert!(found.len() > 10, "{found:?}");
        for code in found {
            assert!(Code::from_name(&code).is_some(), "the node prints {code}");
        }
    }
}
