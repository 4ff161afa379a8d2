//! Clients that share variables through optimistic transactions: they move amounts between two accounts,
//! and go on call and off again so that one of two always is. Each compares all that it has read (T2).

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_machine::stm::{self, Codec, Comparison, Write};
use holdfast_machine::{Command, State};
use rand::RngExt as _;

use super::{Client, NAMESPACE};
use crate::history::Together;

/// What is in both accounts together.
pub(crate) const TOTAL: u64 = 1000;
/// The accounts.
pub(crate) const ACCOUNTS: [&str; 2] = ["account-0", "account-1"];
/// 1 for who is on call, else 0.
pub(crate) const ON_CALL: [&str; 2] = ["on-call-0", "on-call-1"];
const PAUSE: Duration = Duration::from_millis(70);

/// What all transactions begin with.
pub(crate) fn first() -> Command {
    let accounts = ACCOUNTS.map(|key| put(key, TOTAL / 2));
    let on_call = ON_CALL.map(|key| put(key, 1));
    commit(Vec::new(), accounts.into_iter().chain(on_call).collect())
}

/// What all variables are in a state; no values before they are created.
pub(crate) fn values(state: &State) -> BTreeMap<String, u64> {
    let found = ACCOUNTS.into_iter().chain(ON_CALL).filter_map(|key| {
        let found = stm::get(state, NAMESPACE, key.as_bytes()).unwrap()?;
        Some((key.to_owned(), std::str::from_utf8(found.value).unwrap().parse().unwrap()))
    });
    found.collect()
}

pub(super) async fn share(mut client: Client) {
    while client.goes_on() {
        let node = client.any_node();
        // A state that is behind leads to a conflict, and to nothing worse.
        let is_local = client.random.random_bool(0.3);
        let timeout = Duration::from_millis(client.random.random_range(200..3000));
        if let Ok(state) = client.shared.world.read(node, is_local, timeout).await {
            let (values, revision) = (values(&state), state.header().revision);
            if !values.is_empty() {
                let together = Together { client: client.number, revision, values: values.clone() };
                client.shared.recorder.lock().together.push(together);
                let command = match client.random.random_bool(0.6) {
                    true => transfer(&mut client, &state, &values),
                    false => go_on_or_off_call(&mut client, &state, &values),
                };
                // The history has what came of it.
                let _ = client.write(command).await;
            }
        }
        let pause = if client.random.random_bool(0.1) { 20 * PAUSE } else { PAUSE };
        client.pause(pause).await;
    }
}

fn transfer(client: &mut Client, state: &State, values: &BTreeMap<String, u64>) -> Command {
    let [from, to] = in_some_order(client, ACCOUNTS);
    let amount = client.random.random_range(0..=values[from]);
    let compared = in_some_order(client, ACCOUNTS).map(|key| as_read(state, key));
    let written = [put(from, values[from] - amount), put(to, values[to] + amount)];
    commit(compared.into(), written.into())
}

/// Writes one of the variables that it has read: what the other one is by then counts all the same.
fn go_on_or_off_call(
    client: &mut Client,
    state: &State,
    values: &BTreeMap<String, u64>,
) -> Command {
    let [own, other] = in_some_order(client, ON_CALL);
    let stays_covered = values[own] == 1 && values[other] == 1;
    let compared = [own, other].map(|key| as_read(state, key));
    commit(compared.into(), vec![put(own, u64::from(!stays_covered))])
}

fn in_some_order(client: &mut Client, [one, other]: [&'static str; 2]) -> [&'static str; 2] {
    if client.random.random_bool(0.5) { [one, other] } else { [other, one] }
}

fn as_read(state: &State, key: &str) -> Comparison {
    let found = stm::get(state, NAMESPACE, key.as_bytes()).unwrap().unwrap();
    let (version, mod_revision) = (found.version, Some(found.mod_revision));
    Comparison { key: key.as_bytes().into(), version, mod_revision }
}

fn put(key: &str, value: u64) -> Write {
    let value = value.to_string().into_bytes().into();
    Write::Put { key: key.as_bytes().into(), codec: Codec::Json, value }
}

fn commit(comparisons: Vec<Comparison>, writes: Vec<Write>) -> Command {
    Command::Stm(stm::Command { namespace: NAMESPACE.to_owned(), comparisons, writes })
}
