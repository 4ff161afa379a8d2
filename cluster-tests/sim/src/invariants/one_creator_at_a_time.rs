//! S5: of all callers that would create a value, one at a time has the right to, also by its own
//! reckoning: counted from before it last asked, less a hundredth and 10 ms.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_machine::{Command, Reply, creators, state};

use super::tenure::{Tenure, overlaps};
use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    if !history.clocks_are_good {
        return Vec::new();
    }
    let mut items: BTreeMap<&str, Vec<Tenure>> = BTreeMap::new();
    for (call, reply, _) in history.replies() {
        let Command::Creators(
            creators::Command::Ask { name, .. } | creators::Command::Keep { name, .. },
        ) = &call.command
        else {
            continue;
        };
        if let Reply::Creators(creators::Reply::Creating { token, ttl_ms }) = reply {
            let ttl = Duration::from_millis(*ttl_ms);
            let over = call.began + ttl.saturating_sub(ttl / 100 + Duration::from_millis(10));
            let (client, token, from) = (call.client, *token, call.ended);
            let until = over.min(given_up(history, token));
            items.entry(name).or_default().push(Tenure { client, token, from, until });
        }
    }
    let broken = items.iter().map(|(name, creating)| overlaps(name, "creators", creating));
    broken.flatten().collect()
}

/// When whoever had this token began to create the value, or to give the right up.
fn given_up(history: &History, token: u64) -> Duration {
    let ends = history.calls.iter().filter(|call| match &call.command {
        Command::Creators(creators::Command::Abandon { token: given, .. })
        | Command::State(state::Command::Create { token: Some(given), .. }) => *given == token,
        _ => false,
    });
    ends.map(|call| call.began).min().unwrap_or(Duration::MAX)
}
