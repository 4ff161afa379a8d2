//! What is cut and what is slow, in words and as JSON.

use holdfast_network::{Flow, Rules};
use serde_json::{Value, json};

use crate::names::node_name;
use crate::units::millis;

/// One line for all: `cut: n1 | n2, n1 -> n3 · slow: n2 50 ms`; none while everything passes at
/// once. `n1 | n2` is cut in both directions; with `n1 -> n3` n3 does not hear n1.
pub(crate) fn condition(rules: &Rules) -> Option<String> {
    let mut cuts = Vec::new();
    for (from, to) in rules.cuts() {
        let (one, other) = (node_name(*from), node_name(*to));
        match rules.cuts().contains(&(*to, *from)) {
            true if from < to => cuts.push(format!("{one} | {other}")),
            // Told already, the other way round.
            true => {}
            false => cuts.push(format!("{one} -> {other}")),
        }
    }
    let slow = rules.slow_nodes();
    let slow: Vec<String> =
        slow.map(|(node, by)| format!("{} {} ms", node_name(node), by.as_millis())).collect();
    let part = |name, of: &[String]| (!of.is_empty()).then(|| format!("{name}: {}", of.join(", ")));
    let parts: Vec<String> =
        [part("cut", &cuts), part("slow", &slow)].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" · "))
}

/// One node's view: `hears n2, n3 no more · is not heard by n2`, for a list of nodes.
pub(crate) fn of_node(rules: &Rules, node: u64, all: &[u64]) -> String {
    let (to, from) = cut_off(rules, node, all);
    let both: Vec<String> = to.iter().filter(|n| from.contains(n)).cloned().collect();
    let only = |of: &[String]| -> Vec<String> {
        of.iter().filter(|n| !both.contains(n)).cloned().collect()
    };
    let delay = rules.delay_of(node).as_millis();
    let part = |what: &str, nodes: &[String]| {
        (!nodes.is_empty()).then(|| format!("{what} {}", nodes.join(", ")))
    };
    let parts: Vec<String> = [
        part("cut off from", &both),
        part("not heard by", &only(&to)),
        part("deaf to", &only(&from)),
        (delay > 0).then(|| format!("slow {delay} ms")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { "whole".to_owned() } else { parts.join(", ") }
}

/// The nodes that do not hear this one, and those that it does not hear.
fn cut_off(rules: &Rules, node: u64, all: &[u64]) -> (Vec<String>, Vec<String>) {
    let names = |is_cut: &dyn Fn(u64) -> bool| -> Vec<String> {
        all.iter().copied().filter(|other| is_cut(*other)).map(node_name).collect()
    };
    let to = names(&|other| rules.flow(node, other) == Flow::Stall);
    let from = names(&|other| rules.flow(other, node) == Flow::Stall);
    (to, from)
}

/// One node's view for scripts.
pub(crate) fn node_json(rules: &Rules, node: u64, all: &[u64]) -> Value {
    let (to, from) = cut_off(rules, node, all);
    let delay_ms = millis(rules.delay_of(node));
    json!({ "not_heard_by": to, "deaf_to": from, "delay_ms": delay_ms })
}

/// All of it for scripts.
pub(crate) fn json(rules: &Rules) -> Value {
    json!({
        "schema": "holdfast.network/v1",
        "cuts": rules.cuts().iter().map(|(from, to)| {
            json!({ "from": node_name(*from), "to": node_name(*to) })
        }).collect::<Vec<_>>(),
        "slow": rules.slow_nodes().map(|(node, by)| {
            json!({ "node": node_name(node), "delay_ms": millis(by) })
        }).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    //! What people and scripts read of a broken network, to the letter.
    use super::*;
    use std::time::Duration;

    fn rules() -> Rules {
        let mut rules = Rules::default();
        rules.partition(&[[1].into(), [2].into()]);
        rules.cut(&[1].into(), &[3].into());
        rules.slow(2, Duration::from_millis(50)).unwrap();
        rules
    }

    #[test]
    fn one_line_for_all() {
        assert_eq!(condition(&Rules::default()), None);
        assert_eq!(condition(&rules()).unwrap(), "cut: n1 | n2, n1 -> n3 · slow: n2 50 ms");
        assert_eq!(
            json(&rules()).to_string(),
            "{\"cuts\":[{\"from\":\"n1\",\"to\":\"n2\"},{\"from\":\"n1\",\"to\":\"n3\"},\
             {\"from\":\"n2\",\"to\":\"n1\"}],\"schema\":\"holdfast.network/v1\",\
             \"slow\":[{\"delay_ms\":50,\"node\":\"n2\"}]}"
        );
    }

    #[test]
    fn each_node_as_it_is() {
        let all = [1, 2, 3];
        assert_eq!(of_node(&rules(), 1, &all), "cut off from n2, not heard by n3");
        assert_eq!(of_node(&rules(), 2, &all), "cut off from n1, slow 50 ms");
        assert_eq!(of_node(&rules(), 3, &all), "deaf to n1");
        assert_eq!(of_node(&Rules::default(), 3, &all), "whole");
        assert_eq!(
            node_json(&rules(), 1, &all).to_string(),
            r#"{"deaf_to":["n2"],"delay_ms":0,"not_heard_by":["n2","n3"]}"#
        );
    }
}
