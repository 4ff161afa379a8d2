//! `holdfast state create --exclusive --exec CMD`: a command makes the value, in one place of the cluster at a
//! time.
//!
//! The command is run by `sh`. What it writes to its standard output is the value; it finds the token of its
//! right in `HOLDFAST_TOKEN`. If the right is lost it is told to end (SIGTERM), and killed when it does not.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use holdfast_client::{Created, Creator, ExclusiveError, ExclusiveOptions};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::args::ExclusiveArgs;
use crate::codes::Code;
use crate::commands::state::{STDIN_MAX, check_value};
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::units::human;

/// How long a command may take to end when it is told to.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Why the command made no value.
enum Unmade {
    /// What people see.
    Failed(Failure),
    /// The right to create was lost meanwhile.
    Lost,
}

/// The value of a key, or if there is none the one that the command makes.
pub(crate) async fn create(
    connection: &Connection,
    (object, key): (i64, &str),
    command: &str,
    args: &ExclusiveArgs,
    raw: bool,
) -> Outcome<Created> {
    let state = connection.client.state();
    let options = ExclusiveOptions { ttl: args.ttl, wait: args.wait };
    let create = |creator| make(command, creator, raw);
    let lost = match state.create_exclusive(object, key, options, create).await {
        Ok(created) => return Ok(created),
        Err(ExclusiveError::Waited(wait)) => return Err(waited(key, wait)),
        Err(ExclusiveError::Callback(Unmade::Failed(failure))) => return Err(failure),
        Err(ExclusiveError::Callback(Unmade::Lost)) => None,
        Err(ExclusiveError::Call(error)) if error.reason() == Some("CREATION_LOST") => Some(error),
        Err(ExclusiveError::Call(error)) => return connection.ok(Err(error)).await,
    };
    // Mostly because somebody else has written the value.
    if let Some(value) = connection.call(state.get(object, key)).await? {
        let (value, mod_revision, revision) = (value.bytes, value.mod_revision, value.revision);
        return Ok(Created { created: false, value, mod_revision, revision });
    }
    Err(Failure::new(Code::CreationLost, format!("the right to create {key} was lost"))
        .cause(lost.map_or("it was not renewed in time".to_owned(), |error| error.to_string()))
        .help("nothing was written by this command; run it again"))
}

fn waited(key: &str, wait: Duration) -> Failure {
    let what = format!("others were still creating {key} after {}", human(wait));
    Failure::new(Code::BeingCreated, what).help("wait longer with --wait")
}

/// Runs the command, for as long as the right lasts.
async fn make(command: &str, creator: Creator, raw: bool) -> Result<Vec<u8>, Unmade> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("HOLDFAST_TOKEN", creator.token().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("cannot run sh".to_owned(), error.to_string()))?;
    let ended = tokio::select! {
        ended = run(&mut child) => Some(ended),
        _ = creator.lost() => None,
    };
    let Some(ended) = ended else {
        end(&mut child).await;
        return Err(Unmade::Lost);
    };
    let (mut bytes, status) = ended
        .map_err(|error| failed("cannot read from the command".to_owned(), error.to_string()))?;
    if !status.success() {
        return Err(failed(format!("the command failed: {command}"), status.to_string()));
    }
    // What a shell's echo adds is no part of the value.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    check_value(&bytes, raw).map_err(Unmade::Failed)?;
    Ok(bytes)
}

async fn run(child: &mut Child) -> std::io::Result<(Vec<u8>, ExitStatus)> {
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // Beyond that the command finds nobody who reads.
        stdout.take(STDIN_MAX).read_to_end(&mut bytes).await?;
    }
    Ok((bytes, child.wait().await?))
}

/// Tells a command to end, and waits until it has.
async fn end(child: &mut Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Our own child that has not been waited for; an error says that it has ended.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(END_WITHIN, child.wait()).await.is_err() {
        // The same.
        let _ = child.kill().await;
    }
}

fn failed(what: String, cause: String) -> Unmade {
    let failure = Failure::new(Code::CommandFailed, what);
    Unmade::Failed(failure.cause(cause).help("nothing was created; the next in line may try"))
}
