//! The process that is the network: started like a node, so that it outlives the command.

use std::fs::{self, File};
use std::io;
use std::process::{Command, Stdio};

use holdfast_network::Network;
use tokio::net::UnixListener;

use super::control;
use crate::args::NetworkArgs;
use crate::codes::Exit;
use crate::errors::{Failure, Outcome};
use crate::local::places::Places;
use crate::local::process::ProcessId;

/// Starts the process; it answers a moment later.
pub(super) fn spawn(places: &Places) -> Outcome<ProcessId> {
    let path = places.network_log();
    let open = || -> io::Result<(File, File)> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let log = File::create(&path)?;
        Ok((log.try_clone()?, log))
    };
    let (out, err) = open().map_err(|error| Failure::file("open", &path, &error))?;
    let binary = std::env::current_exe()
        .map_err(|error| Failure::bug(format!("cannot find our own binary: {error}")))?;
    let child = Command::new(&binary)
        .args(["__network", "--state-dir"])
        .arg(&places.state_dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .current_dir("/")
        .spawn()
        .map_err(|error| Failure::file("start", &binary, &error))?;
    ProcessId::of(child.id()).ok_or_else(|| {
        Failure::bug("the local network ended at once").cause(format!("see {}", path.display()))
    })
}

/// `holdfast __network`: carries what nodes send each other, and obeys, until it is ended.
pub(crate) async fn run(args: &NetworkArgs) -> Outcome<Exit> {
    // Fails only if we lead a session already, which is what we want.
    let _leads = rustix::process::setsid();
    let places = Places { state_dir: args.state_dir.clone(), ..Places::under(&args.state_dir) };
    let unable = |error: io::Error| Failure::file("listen in", &args.state_dir, &error);
    let network = Network::start().map_err(|e| Failure::bug(format!("cannot start: {e}")))?;
    let (path, _dir) = control::socket(&places).map_err(unable)?;
    // One that is left of a process that was killed; whoever starts us holds the cluster's lock.
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unable(error)),
    }
    let listener = UnixListener::bind(path).map_err(unable)?;
    loop {
        // One command at a time: an order takes microseconds.
        let served = match listener.accept().await {
            Ok((stream, _)) => control::serve(stream, &network).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            eprintln!("network: {error}");
        }
    }
}
