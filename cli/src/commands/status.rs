//! `holdfast status`: one screen, one verdict.

use std::io::IsTerminal as _;
use std::time::Duration;

use holdfast_network::Rules;
use serde_json::{Value, json};

use crate::args::StatusArgs;
use crate::codes::Exit;
use crate::endpoints;
use crate::errors::{Failure, Outcome};
use crate::local::network;
use crate::local::network::text::condition;
use crate::names::node_name;
use crate::output::{Format, Output, print_line};
use crate::probe::Probe;
use crate::roles::{self, can_fail, counted};
use crate::status::{Assessment, NodeView, Verdict, look};
use crate::units::{clock_time, millis};

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Moves to the upper left corner and clears the screen (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Prints the verdict, once or until it is interrupted.
pub(crate) async fn run(args: &StatusArgs, output: Output) -> Outcome<Exit> {
    let probe = Probe::new(&endpoints::resolve(&args.cluster)?);
    if args.watch {
        return watch(&probe, output).await;
    }
    let (assessment, rules) = tokio::join!(look(&probe), network_rules(args));
    let condition = rules.as_ref().and_then(condition);
    match (output.format, assessment.failure()) {
        (Format::Text, Some(failure)) => Err(with_condition(failure, condition)),
        _ => {
            let lines = [Some(text(&assessment)), condition.map(|c| format!("network  {c}"))];
            let lines: Vec<String> = lines.into_iter().flatten().collect();
            output.answer(&lines.join("\n"), || with_network(json(&assessment), rules.as_ref()));
            Ok(assessment.verdict.exit())
        }
    }
}

/// What is cut between the nodes of a local cluster; none if it is none, or has no network.
async fn network_rules(args: &StatusArgs) -> Option<Rules> {
    let (places, cluster) = endpoints::local(&args.cluster).ok()??;
    network::rules(&places, &cluster).await
}

/// A cluster that cannot write because somebody cut it is to be mended in another way.
fn with_condition(failure: Failure, condition: Option<String>) -> Failure {
    let Some(condition) = condition else { return failure };
    let cause = failure.cause.clone().unwrap_or_default();
    failure
        .cause(format!("{cause}\nthe local network is not whole: {condition}"))
        .help("holdfast local heal mends the network; holdfast ps lists nodes that do not run")
}

fn with_network(mut json: Value, rules: Option<&Rules>) -> Value {
    json["network"] = rules.map_or(Value::Null, network::text::json);
    json
}

async fn watch(probe: &Probe, output: Output) -> Outcome<Exit> {
    let redraws = output.format == Format::Text && std::io::stdout().is_terminal();
    loop {
        let assessment = look(probe).await;
        match output.format {
            Format::Text => {
                let text = match assessment.failure() {
                    Some(failure) => failure.to_text(),
                    None => text(&assessment),
                };
                print_line(&format!("{}{text}", if redraws { CLEAR } else { "" }));
            }
            // A stream is one object a line, whichever JSON was asked for.
            Format::Json | Format::Jsonl => print_line(&json(&assessment).to_string()),
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// The verdict for people, while writes work.
pub(crate) fn text(assessment: &Assessment) -> String {
    let spare = can_fail(assessment.can_lose, " more");
    let mut lines = vec![match assessment.verdict {
        Verdict::Healthy => format!("Healthy. {spare}"),
        Verdict::Degraded | Verdict::NoQuorum | Verdict::Unreachable => {
            format!("Degraded: {}. {spare}", assessment.troubles())
        }
    }];
    lines.push(summary(assessment));
    for (node, alarm) in &assessment.alarms {
        lines.push(format!("alarm {}: {alarm}", node_name(*node)));
    }
    lines.join("\n")
}

/// "leader n2 since 18:31:04 (term 7) · 3 of 3 voters · …"
fn summary(assessment: &Assessment) -> String {
    let mut parts = Vec::new();
    if let (Some(leader), Some(known)) = (assessment.leader, &assessment.reference) {
        let since = match leader_since(assessment) {
            0 => String::new(),
            since => format!(" since {}", clock_time(since)),
        };
        parts.push(format!("leader {}{since} (term {})", node_name(leader), known.header.term));
    }
    let voters = assessment.voters().count();
    parts.push(format!("{} of {voters} voters", assessment.voters_answering()));
    let learners = assessment.nodes.len() - voters;
    if learners > 0 {
        parts.push(counted(learners, "learner"));
    }
    if let Some(known) = &assessment.reference {
        let (owned, all) = (known.change_sources_owned, known.change_sources);
        parts.push(format!("change sources {owned} of {all} owned"));
        parts.push(format!("masters {} alive", known.masters_alive));
    }
    parts.join(" · ")
}

/// As the leader has it, else as any node has it; 0 if none does.
fn leader_since(assessment: &Assessment) -> u64 {
    let told = |node: &NodeView| node.status.as_ref().map(|s| s.leader_since_unix_ms);
    let by_leader = assessment.nodes.iter().find(|n| n.id == assessment.leader).and_then(told);
    let by_any = || assessment.nodes.iter().filter_map(told).find(|since| *since != 0);
    by_leader.filter(|since| *since != 0).or_else(by_any).unwrap_or(0)
}

/// The verdict for scripts.
pub(crate) fn json(assessment: &Assessment) -> Value {
    let known = assessment.reference.as_ref();
    let error = assessment.failure().map(|failure| failure.to_json());
    json!({
        "schema": "holdfast.status/v1",
        "verdict": assessment.verdict.name(),
        "can_lose": assessment.can_lose,
        "cluster_id": known.map(|k| &k.header.cluster_id),
        "leader": assessment.leader.map(node_name),
        "leader_since_unix_ms": assessment.leader.map(|_| leader_since(assessment).to_string()),
        "term": known.map(|k| k.header.term.to_string()),
        "voters": assessment.voters().count(),
        "voters_answering": assessment.voters_answering(),
        "changesources": known.map(|k| k.change_sources),
        "changesources_owned": known.map(|k| k.change_sources_owned),
        "masters_alive": known.map(|k| k.masters_alive),
        "alarms": assessment.alarms.iter().map(|(node, text)| {
            json!({ "node": node_name(*node), "text": text })
        }).collect::<Vec<_>>(),
        "nodes": assessment.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "error": error,
    })
}

fn node_json(node: &NodeView) -> Value {
    let status = node.status.as_ref();
    json!({
        "node": node.id.map(node_name),
        "endpoint": node.endpoint,
        "voter": node.voter,
        "answers": status.is_some(),
        "role": status.map(roles::of_status),
        "ready": status.map(|s| s.ready),
        "applied": status.map(|s| s.applied_index.to_string()),
        "revision": status.map(|s| s.header.revision.to_string()),
        "version": status.map(|s| &s.version),
        "reason": node.reason,
        "silent_ms": node.silent.map(millis),
    })
}

#[cfg(test)]
mod tests {
    //! What scripts and people read, to the letter.
    use super::*;
    use std::collections::BTreeMap;

    use crate::probe::Seen;
    use crate::status::assess;
    use crate::testing::{member, node_status};

    fn seen(answering: &[u64]) -> BTreeMap<String, Seen> {
        let members: Vec<_> = (1..=3).map(|id| member(id, true)).collect();
        members
            .iter()
            .map(|m| {
                let answer = match answering.contains(&m.node_id) {
                    true => Ok(node_status(m.node_id, 2, &members)),
                    false => Err("connection refused".to_owned()),
                };
                (m.client_endpoint.clone(), answer)
            })
            .collect()
    }

    #[test]
    fn healthy() {
        let text = text(&assess(&seen(&[1, 2, 3])));
        assert_eq!(
            text,
            "Healthy. One more node can fail.\nleader n2 (term 7) · 3 of 3 voters · change sources \
             14 of 14 owned · masters 3 alive"
        );
    }

    #[test]
    fn degraded_names_who_is_away() {
        let text = text(&assess(&seen(&[2, 3])));
        assert_eq!(
            text,
            "Degraded: n1 unreachable. No more node can fail.\nleader n2 (term 7) · 2 of 3 voters · \
             change sources 14 of 14 owned · masters 3 alive"
        );
    }

    #[test]
    fn the_time_of_the_election_is_told_if_it_is_known() {
        let mut seen = seen(&[1, 2, 3]);
        for status in seen.values_mut().flatten() {
            status.leader_since_unix_ms = 1_000;
        }
        assert!(text(&assess(&seen)).contains("leader n2 since 1970-01-01 "));
    }

    #[test]
    fn json_has_verdict_and_can_lose() {
        let json = json(&assess(&seen(&[1, 2, 3])));
        assert_eq!(json["schema"], "holdfast.status/v1");
        assert_eq!(json["verdict"], "healthy");
        assert_eq!(json["can_lose"], 1);
        assert_eq!(json["leader"], "n2");
        assert_eq!(json["term"], "7");
        assert_eq!(
            json["nodes"][0].to_string(),
            "{\"answers\":true,\"applied\":\"50\",\"endpoint\":\"127.0.0.1:7480\",\"node\":\"n1\",\
             \"ready\":true,\"reason\":null,\"revision\":\"40\",\"role\":\"follower\",\
             \"silent_ms\":null,\"version\":\"0.1.0\",\"voter\":true}"
        );
    }

    #[test]
    fn a_network_that_is_cut_is_told() {
        let failure = Failure::new(crate::codes::Code::NoQuorum, "no").cause("n1 is away");
        let told = with_condition(failure.clone(), Some("cut: n1 | n2".to_owned()));
        let cause = "n1 is away\nthe local network is not whole: cut: n1 | n2";
        assert_eq!(told.cause.as_deref(), Some(cause));
        assert_eq!(with_condition(failure.clone(), None), failure);
        let mut rules = Rules::default();
        rules.cut(&[1].into(), &[2].into());
        let whole = assess(&seen(&[1, 2, 3]));
        assert_eq!(with_network(json(&whole), Some(&rules))["network"]["cuts"][0]["from"], "n1");
        assert_eq!(with_network(json(&whole), None)["network"], Value::Null);
    }

    #[test]
    fn json_of_a_dead_cluster_holds_the_error() {
        let json = json(&assess(&seen(&[])));
        assert_eq!(json["verdict"], "unreachable");
        assert_eq!(json["error"]["code"], "unreachable");
        assert_eq!(json["leader"], Value::Null);
    }
}
