//! A caller of an exclusive create in a process of its own (`src/bin/creator.rs`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use crate::programs;

/// Longest wait for something that it is to say. Far above what it takes: it ends a test that hangs.
const SAY_MAX: Duration = Duration::from_secs(30);

/// A caller's process. Dropping it kills it and waits for it.
#[derive(Debug)]
pub struct CreatorProcess {
    child: Child,
    stdin: ChildStdin,
    said: mpsc::UnboundedReceiver<String>,
}

impl CreatorProcess {
    /// Starts one. A stubborn one goes on when it has lost its right.
    ///
    /// # Errors
    /// If it has not been built.
    pub fn start(
        endpoints: &[String],
        object: i64,
        key: &str,
        ttl: Duration,
        is_stubborn: bool,
    ) -> anyhow::Result<CreatorProcess> {
        let program = programs::creator()?;
        let mut child = Command::new(&program)
            .args([&endpoints.join(","), &object.to_string(), key])
            .arg(ttl.as_millis().to_string())
            .arg(if is_stubborn { "stubborn" } else { "polite" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let stdin = child.stdin.take().context("its input is a pipe")?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let (send, said) = mpsc::unbounded_channel();
        // Ends with the process, as its output is closed then.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(CreatorProcess { child, stdin, said })
    }

    /// The rest of the next line, which must begin so.
    ///
    /// # Errors
    /// If it says something else, ends, or says nothing for 30 s.
    pub async fn says(&mut self, beginning: &str) -> anyhow::Result<String> {
        let said = tokio::time::timeout(SAY_MAX, self.said.recv()).await;
        let line = said.with_context(|| format!("it never said {beginning:?}"))?;
        let line = line.with_context(|| format!("it ended without saying {beginning:?}"))?;
        match line.strip_prefix(beginning) {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => bail!("it said {line:?} and not {beginning:?}"),
        }
    }

    /// Lets its callback go on.
    ///
    /// # Errors
    /// If it is gone.
    pub fn go_on(&mut self) -> anyhow::Result<()> {
        writeln!(self.stdin, "go").and_then(|()| self.stdin.flush()).context("tell it to go on")
    }

    /// SIGKILL; returns when it is gone, and says what it had still said.
    pub async fn kill(&mut self) -> Vec<String> {
        // An error says that it is gone already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut rest = Vec::new();
        while let Some(line) = self.said.recv().await {
            rest.push(line);
        }
        rest
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// If it is gone.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it is gone.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // Our own child that has not been waited for, so the number is still its.
        kill_process(Pid::from_child(&self.child), signal).context("signal the creator")
    }

    /// Whether it has said nothing that was not asked for.
    ///
    /// # Errors
    /// If it has.
    pub fn is_silent(&mut self) -> anyhow::Result<()> {
        let said = self.said.try_recv();
        ensure!(said.is_err(), "it said {said:?}");
        Ok(())
    }
}

impl Drop for CreatorProcess {
    fn drop(&mut self) {
        // Gone already, or gone now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
