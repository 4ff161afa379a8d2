//! How much a test does, and what it found.
//!
//! At full scale the counts and bounds are the ones that the project promises, for a machine that
//! does nothing else. CI machines are shared and slow, and time is short: there the counts are
//! small and the time bounds five times as long. What must *never* happen is the same at both.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

/// How much longer everything may take at CI scale.
const CI_SLACK: u32 = 5;

/// Whether the full counts are asked for.
#[must_use]
pub fn is_full() -> bool {
    std::env::var("HOLDFAST_SCALE").is_ok_and(|scale| scale == "full")
}

/// `full` at full scale, else `ci`.
pub fn scale<T>(full: T, ci: T) -> T {
    if is_full() { full } else { ci }
}

/// A time bound: as given at full scale, five times as long at CI scale.
#[must_use]
pub fn bound(full: Duration) -> Duration {
    scale(full, full * CI_SLACK)
}

/// Shorthand for milliseconds.
#[must_use]
pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Notes a figure: prints it, and appends `name<tab>value` to the file that `HOLDFAST_FIGURES`
/// names, if it does.
///
/// # Panics
/// If that file cannot be written.
pub fn report(name: &str, value: impl std::fmt::Display) {
    println!("figure: {name}: {value}");
    let Some(path) = std::env::var_os("HOLDFAST_FIGURES") else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    // One write, so that tests that run at the same time do not mix their lines.
    file.write_all(format!("{name}\t{value}\n").as_bytes()).unwrap();
}

/// Durations, to be summed up in a line.
#[derive(Debug, Clone, Default)]
pub struct Percentiles {
    sorted: Vec<Duration>,
}

impl Percentiles {
    /// Of these durations, in any order.
    #[must_use]
    pub fn of(durations: impl IntoIterator<Item = Duration>) -> Percentiles {
        let mut sorted: Vec<Duration> = durations.into_iter().collect();
        sorted.sort_unstable();
        Percentiles { sorted }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The one in the middle; zero if there is none.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.sorted.get(self.sorted.len() / 2).copied().unwrap_or_default()
    }

    /// The longest; zero if there is none.
    #[must_use]
    pub fn worst(&self) -> Duration {
        self.sorted.last().copied().unwrap_or_default()
    }

    /// The shortest; zero if there is none.
    #[must_use]
    pub fn best(&self) -> Duration {
        self.sorted.first().copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        write!(
            f,
            "median {:.1} ms, worst {:.1} ms, best {:.1} ms, n = {}",
            ms(self.median()),
            ms(self.worst()),
            ms(self.best()),
            self.count()
        )
    }
}
