//! One process of the program under test.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::programs;

/// How often a process that is to end is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A node's process, and how to start it again. Dropping it kills the process and waits for it.
#[derive(Debug)]
pub struct NodeProcess {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl NodeProcess {
    /// One that is yet to be started: `holdfast` with these arguments and variables, writing what
    /// it says to the end of `log`. It sees no `HOLDFAST_*` variable but those in `env`.
    ///
    /// # Errors
    /// If there is no program.
    pub fn new(
        args: Vec<String>,
        env: Vec<(String, String)>,
        log: &Path,
    ) -> anyhow::Result<NodeProcess> {
        let program = programs::holdfast()?;
        Ok(NodeProcess { program, args, env, log: log.to_owned(), child: None })
    }

    /// Starts it, with these arguments behind the ones that it always has.
    ///
    /// # Errors
    /// If it runs already, or cannot be started.
    pub fn start_with(&mut self, more_args: &[String]) -> anyhow::Result<()> {
        if self.child.is_some() {
            bail!("it runs already: {}", self.log.display());
        }
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        writeln!(log, "--- holdfast {} {}", self.args.join(" "), more_args.join(" "))?;
        let mut command = command(&self.program, &self.env);
        command.args(&self.args).args(more_args);
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts it.
    ///
    /// # Errors
    /// As [`NodeProcess::start_with`].
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_with(&[])
    }

    /// Other arguments from its next start on.
    pub fn set_args(&mut self, args: Vec<String>) {
        self.args = args;
    }

    /// Its process id; none while it does not run.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it was started and has not been seen to end.
    ///
    /// # Errors
    /// If it has ended by itself: with its status, and what it said last.
    pub fn check(&mut self) -> anyhow::Result<bool> {
        let Some(child) = &mut self.child else { return Ok(false) };
        match child.try_wait()? {
            None => Ok(true),
            Some(status) => {
                self.child = None;
                bail!("{} ended by itself ({status}):\n{}", self.log.display(), self.tail(20))
            }
        }
    }

    /// Ends it at once (SIGKILL) and waits until it is gone. Nothing if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error says that it is gone already, which is what we want.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        // Our own child that has not been waited for, so the number is still its.
        kill_process(Pid::from_child(child), signal).context("send a signal")
    }

    /// Waits until it has ended by itself; for after a SIGTERM.
    ///
    /// # Errors
    /// If it has not ended within this time, or does not run.
    pub fn wait_end(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let child = self.child.as_mut().context("it does not run")?;
        let status = wait_end(child, within)
            .with_context(|| format!("waiting for the end of {}", self.log.display()))?;
        self.child = None;
        Ok(status)
    }

    /// Takes note of an end, if there was one; for polling after a SIGTERM.
    ///
    /// # Errors
    /// If it does not run.
    pub fn try_end(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("it does not run")?;
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// The file with all that it has said.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines that it said.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process that was expected to end did so.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it said on standard output.
    pub stdout: String,
    /// What it said on standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// Runs `holdfast` with these arguments and variables until it ends by itself. Blocks.
///
/// # Errors
/// If it has not ended within this time; it is killed then.
pub fn serve_until_end(
    args: &[&str],
    env: &[(&str, &str)],
    within: Duration,
) -> anyhow::Result<Ended> {
    let program = programs::holdfast()?;
    let env: Vec<(String, String)> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let dir = tempfile::tempdir()?;
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let started = Instant::now();
    let mut child = command(&program, &env)
        .args(args)
        .stdout(File::create(&out)?)
        .stderr(File::create(&err)?)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let ended = wait_end(&mut child, within);
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let took = started.elapsed();
    let text = |path| std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
    let (stdout, stderr) = (text(&out)?, text(&err)?);
    let status =
        ended.with_context(|| format!("holdfast {}: it said\n{stdout}{stderr}", args.join(" ")))?;
    Ok(Ended { code: status.code(), stdout, stderr, took })
}

fn command(program: &Path, env: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOLDFAST_") {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn wait_end(child: &mut Child, within: Duration) -> anyhow::Result<ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            bail!("it has not ended within {within:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn tail(path: &Path, lines: usize) -> std::io::Result<String> {
    const BYTES: u64 = 64 * 1024;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}
