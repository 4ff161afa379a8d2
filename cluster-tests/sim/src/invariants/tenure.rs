//! Rights that one client at a time may take itself to have, each under a token of its own.

use std::time::Duration;

/// From when to when a client took itself to have a right.
pub(super) struct Tenure {
    pub(super) client: usize,
    pub(super) token: u64,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// What is wrong with the tenures of one right, of which no two with different tokens may overlap:
/// `right` is what it is a right to, `holders` what those who have it are.
pub(super) fn overlaps(right: &str, holders: &str, tenures: &[Tenure]) -> Vec<String> {
    let mut broken = Vec::new();
    for (at, one) in tenures.iter().enumerate() {
        for other in &tenures[..at] {
            if one.token != other.token && one.from < other.until && other.from < one.until {
                broken.push(format!("{right} had two {holders} at once: {one}, and {other}"));
            }
        }
    }
    broken
}

impl std::fmt::Display for Tenure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tenure { client, token, from, until } = self;
        write!(f, "c{client} under {token} from {from:?} to {until:?}")
    }
}
