//! `holdfast local partition`, `heal` and `slow`.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_network::rules::DELAY_MAX;

use super::control::{self, Order};
use super::text;
use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::local::places::Places;
use crate::local::signals;
use crate::local::state_file::{Links, LocalCluster};
use crate::names::NodeRef;
use crate::output::Output;

/// Cuts the links between groups of nodes: `n1 / n2,n3`. One group alone is cut off from all others.
pub(crate) async fn partition(
    places: &Places,
    groups: &[String],
    one_way: bool,
    output: Output,
) -> Outcome<()> {
    let cluster = with_network(places)?;
    let mut resolved = Vec::new();
    for group in parse(groups)? {
        let mut nodes = BTreeSet::new();
        for node in group {
            nodes.insert(resolve(&cluster, node).await?);
        }
        resolved.push(nodes);
    }
    if resolved.len() == 1 {
        let all = cluster.nodes.iter().map(|node| node.id);
        resolved.push(all.filter(|id| !resolved[0].contains(id)).collect());
    }
    check(&resolved, one_way)?;
    let order = match (one_way, resolved.as_slice()) {
        (true, [from, to]) => Order::Cut(from.clone(), to.clone()),
        _ => Order::Partition(resolved),
    };
    give(places, &order, output).await
}

/// Lets everything pass at once again.
pub(crate) async fn heal(places: &Places, output: Output) -> Outcome<()> {
    with_network(places)?;
    give(places, &Order::Heal, output).await
}

/// Delays all that a node sends and is sent.
pub(crate) async fn slow(
    places: &Places,
    node: NodeRef,
    by: Duration,
    output: Output,
) -> Outcome<()> {
    let cluster = with_network(places)?;
    if by > DELAY_MAX {
        let max = DELAY_MAX.as_secs();
        return Err(Failure::new(
            Code::Usage,
            format!("a delay of {} ms, at most {max} s are allowed", by.as_millis()),
        )
        .help("a node that is further away is away: holdfast local partition NODE"));
    }
    let node = resolve(&cluster, node).await?;
    give(places, &Order::Slow(node, crate::units::millis(by)), output).await
}

async fn give(places: &Places, order: &Order, output: Output) -> Outcome<()> {
    let rules = control::ask(places, order).await?;
    let text = match text::condition(&rules) {
        Some(condition) => {
            let flag = places.name_flag();
            format!(
                "network  {condition}\n\n  Look    holdfast ps{flag}\n  Mend    holdfast local heal{flag}"
            )
        }
        None => "network  whole".to_owned(),
    };
    output.answer(&text, || text::json(&rules));
    Ok(())
}

fn with_network(places: &Places) -> Outcome<LocalCluster> {
    let cluster = LocalCluster::require(places)?;
    if cluster.links == Links::Direct {
        let flag = places.name_flag();
        return Err(Failure::new(
            Code::NoNetwork,
            format!("the nodes of the local cluster {} reach each other directly", places.name),
        )
        .cause("it was started with --direct")
        .help(format!("holdfast down{flag} && holdfast up{flag}")));
    }
    Ok(cluster)
}

async fn resolve(cluster: &LocalCluster, node: NodeRef) -> Outcome<u64> {
    match node {
        NodeRef::Id(id) => cluster.node(id).map(|node| node.id),
        NodeRef::Leader => signals::leader(cluster).await,
    }
}

/// Groups as they are written: words, with commas within a group and slashes between groups.
fn parse(words: &[String]) -> Outcome<Vec<Vec<NodeRef>>> {
    let text = words.join(" ");
    let group = |group: &str| -> Outcome<Vec<NodeRef>> {
        let names = group.split([',', ' ']).filter(|name| !name.is_empty());
        let nodes = names.map(|name| {
            name.parse::<NodeRef>().map_err(|why| wrong(format!("{name:?} is no node")).cause(why))
        });
        nodes.collect()
    };
    text.split('/').map(group).collect()
}

fn check(groups: &[BTreeSet<u64>], one_way: bool) -> Outcome<()> {
    if groups.iter().any(BTreeSet::is_empty) {
        return Err(wrong("a group without nodes".to_owned()));
    }
    let count: usize = groups.iter().map(BTreeSet::len).sum();
    if groups.iter().flatten().collect::<BTreeSet<_>>().len() < count {
        return Err(wrong("a node that is in two groups".to_owned()));
    }
    if one_way && groups.len() != 2 {
        return Err(wrong(format!("--one-way with {} groups", groups.len())));
    }
    Ok(())
}

fn wrong(what: String) -> Failure {
    Failure::new(Code::Usage, what).help(
        "write groups with a slash between them: holdfast local partition n1 / n2,n3; or \
         holdfast local partition leader",
    )
}

#[cfg(test)]
mod tests {
    //! How groups are written, and which make no sense.
    use super::*;

    fn parsed(line: &str) -> Outcome<Vec<Vec<NodeRef>>> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn groups_are_separated_by_slashes() {
        use NodeRef::{Id, Leader};
        let expected = vec![vec![Id(1)], vec![Id(2), Id(3)]];
        for line in ["n1 / n2,n3", "n1/n2,n3", "1 /2, 3"] {
            assert_eq!(parsed(line).unwrap(), expected, "{line}");
        }
        assert_eq!(parsed("leader").unwrap(), [vec![Leader]]);
        assert_eq!(parsed("n1 / n2 / n3").unwrap().len(), 3);
        assert_eq!(parsed("n1 / all").unwrap_err().code, Code::Usage);
    }

    #[test]
    fn groups_that_make_no_sense_are_refused() {
        assert!(check(&[[1].into(), [2, 3].into()], true).is_ok());
        for (groups, one_way) in [
            (vec![BTreeSet::from([1]), [].into()], false),
            (vec![[1, 2].into(), [2, 3].into()], false),
            (vec![[1].into(), [2].into(), [3].into()], true),
        ] {
            assert_eq!(check(&groups, one_way).unwrap_err().code, Code::Usage, "{groups:?}");
        }
    }
}
