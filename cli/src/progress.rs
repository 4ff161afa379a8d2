//! A sign of life for what takes long.
//!
//! On a terminal a spinner appears after half a second, or a bar where it is known how much there is to do;
//! elsewhere one plain line comes after two seconds and then one every ten. Nothing is shown for what is quick, and nothing with `-o json`.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::output::{Format, Output};
use crate::units::human;

const SPINNER_AFTER: Duration = Duration::from_millis(500);
const LINE_AFTER: Duration = Duration::from_secs(2);
const LINE_EVERY: Duration = Duration::from_secs(10);
/// A transfer of which it is known how large it is.
const BAR: &str = "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes} ({eta} left)";

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
        Self::show(output, move || what.clone(), |bar, what| bar.set_message(what()))
    }

    /// Begins to wait for a transfer, for instance "loading", of which `how_far` says how many bytes are
    /// done and how many there are; none as long as that is not known. Needs the async runtime.
    pub(crate) fn bytes(
        output: Output,
        doing: &'static str,
        how_far: impl Fn() -> (u64, u64) + Clone + Send + 'static,
    ) -> Self {
        let line = {
            let how_far = how_far.clone();
            move || match how_far() {
                (_, 0) => "waiting for the cluster".to_owned(),
                (done, total) => format!("{doing}: {} of {}", mib(done), mib(total)),
            }
        };
        Self::show(output, line, move |bar, line| {
            let (done, total) = how_far();
            if total > 0 && bar.length().is_none() {
                // What is not understood leaves the spinner as it is.
                if let Ok(style) = ProgressStyle::with_template(BAR) {
                    bar.set_style(style);
                }
            }
            if total > 0 {
                bar.set_length(total);
            }
            bar.set_position(done);
            bar.set_message(if total > 0 { doing.to_owned() } else { line() });
        })
    }

    fn show<L: Fn() -> String + Send + 'static>(
        output: Output,
        line: L,
        draw: impl Fn(&ProgressBar, &L) + Send + 'static,
    ) -> Self {
        if output.format != Format::Text {
            return Self { task: None, bar: None };
        }
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !std::io::stderr().is_terminal() || dumb {
            return Self { task: Some(tokio::spawn(print_lines(line))), bar: None };
        }
        let bar = ProgressBar::new_spinner();
        let spinning = spin(bar.clone(), move |bar| draw(bar, &line));
        Self { task: Some(tokio::spawn(spinning)), bar: Some(bar) }
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

async fn spin(bar: ProgressBar, draw: impl Fn(&ProgressBar)) {
    tokio::time::sleep(SPINNER_AFTER).await;
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    while !bar.is_finished() {
        draw(&bar);
        bar.tick();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn print_lines(line: impl Fn() -> String) {
    let begin = Instant::now();
    tokio::time::sleep(LINE_AFTER).await;
    loop {
        let _gone = writeln!(anstream::stderr(), "{} ({})", line(), human(begin.elapsed()));
        tokio::time::sleep(LINE_EVERY).await;
    }
}

/// Bytes for people.
fn mib(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
