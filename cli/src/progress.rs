//! A sign of life for what takes long.
//!
//! On a terminal a spinner appears after half a second; elsewhere one plain line comes after two
//! seconds and then one every ten. Nothing is shown for what is quick, and nothing with `-o json`.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::output::{Format, Output};
use crate::units::human;

const SPINNER_AFTER: Duration = Duration::from_millis(500);
const LINE_AFTER: Duration = Duration::from_secs(2);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows that we wait, until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    task: Option<JoinHandle<()>>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// As [`Progress::start`], on a terminal; elsewhere nothing is shown.
    pub(crate) fn on_terminal(output: Output, what: impl Into<String>) -> Self {
        match std::io::stderr().is_terminal() {
            true => Self::start(output, what),
            false => Self { task: None, bar: None },
        }
    }

    /// Begins to wait for `what`, for instance "waiting for 3 nodes". Needs the async runtime.
    pub(crate) fn start(output: Output, what: impl Into<String>) -> Self {
        let what = what.into();
        if output.format != Format::Text {
            return Self { task: None, bar: None };
        }
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !std::io::stderr().is_terminal() || dumb {
            return Self { task: Some(tokio::spawn(print_lines(what))), bar: None };
        }
        let bar = ProgressBar::new_spinner();
        Self { task: Some(tokio::spawn(spin(bar.clone(), what))), bar: Some(bar) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

async fn spin(bar: ProgressBar, what: String) {
    tokio::time::sleep(SPINNER_AFTER).await;
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.set_message(what);
    while !bar.is_finished() {
        bar.tick();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn print_lines(what: String) {
    let begin = Instant::now();
    tokio::time::sleep(LINE_AFTER).await;
    loop {
        let _gone = writeln!(anstream::stderr(), "{what} ({})", human(begin.elapsed()));
        tokio::time::sleep(LINE_EVERY).await;
    }
}
