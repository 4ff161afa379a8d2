//! Where the cluster is, if nobody says so.
//!
//! In this order: `--endpoints`, the local cluster of `--name`, `HOLDFAST_ENDPOINTS`, the local
//! cluster of `HOLDFAST_NAME` or else of the name `default` if there is one, 127.0.0.1:7480.

use std::env;

use crate::args::ClusterArgs;
use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::local::places::Places;
use crate::local::state_file::LocalCluster;
use crate::names::LocalName;

/// What is asked when nothing is known.
const DEFAULT: &str = "127.0.0.1:7480";

/// The endpoints that a command works with, at least one.
pub(crate) fn resolve(args: &ClusterArgs) -> Outcome<Vec<String>> {
    if let Some(endpoints) = named(args)? {
        return Ok(endpoints);
    }
    match local(args)? {
        Some((_, cluster)) => Ok(cluster.endpoints()),
        None => Ok(vec![DEFAULT.to_owned()]),
    }
}

/// The endpoints that somebody named, if somebody did.
fn named(args: &ClusterArgs) -> Outcome<Option<Vec<String>>> {
    if !args.endpoints.is_empty() {
        return checked(args.endpoints.clone(), "--endpoints").map(Some);
    }
    match variable("HOLDFAST_ENDPOINTS") {
        Some(text) if args.name.is_none() => {
            let endpoints = text.split(',').map(str::to_owned).collect();
            checked(endpoints, "HOLDFAST_ENDPOINTS").map(Some)
        }
        Some(_) | None => Ok(None),
    }
}

/// The local cluster that a command works with, if it is one.
pub(crate) fn local(args: &ClusterArgs) -> Outcome<Option<(Places, LocalCluster)>> {
    if named(args)?.is_some() {
        return Ok(None);
    }
    if let Some(name) = &args.name {
        return required(name).map(Some);
    }
    if let Some(text) = variable("HOLDFAST_NAME") {
        let name = text.parse::<LocalName>().map_err(|why| {
            Failure::new(Code::Usage, format!("HOLDFAST_NAME is {text:?}")).cause(why)
        })?;
        return required(&name).map(Some);
    }
    // Without a home there is no local cluster either.
    let Ok(places) = Places::of(&LocalName::default_name()) else { return Ok(None) };
    Ok(LocalCluster::load(&places)?.map(|cluster| (places, cluster)))
}

fn required(name: &LocalName) -> Outcome<(Places, LocalCluster)> {
    let places = Places::of(name)?;
    let cluster = LocalCluster::require(&places)?;
    Ok((places, cluster))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

fn checked(endpoints: Vec<String>, origin: &str) -> Outcome<Vec<String>> {
    let endpoints: Vec<String> = endpoints.iter().map(|e| e.trim().to_owned()).collect();
    match endpoints.iter().find(|endpoint| !is_endpoint(endpoint)) {
        None => Ok(endpoints),
        Some(wrong) => Err(Failure::new(
            Code::Usage,
            format!("{origin} holds {wrong:?}, which is no endpoint"),
        )
        .help("write host:port, several with commas between: 127.0.0.1:7480,127.0.0.1:7490")),
    }
}

fn is_endpoint(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    //! Endpoints are host:port, and what is not is refused before anything is sent.
    use super::*;

    #[test]
    fn endpoints_are_host_and_port() {
        for right in ["127.0.0.1:7480", "node-1.example:7480", "[::1]:7480"] {
            assert!(is_endpoint(right), "{right}");
        }
        for wrong in ["", "7480", ":7480", "host:", "host:0", "host:70000", "http://host:1"] {
            assert!(!is_endpoint(wrong), "{wrong}");
        }
    }

    #[test]
    fn named_endpoints_come_first() {
        let args = ClusterArgs { endpoints: vec!["a:1".into(), " b:2".into()], name: None };
        assert_eq!(resolve(&args).unwrap(), ["a:1", "b:2"]);
        let args = ClusterArgs { endpoints: vec!["nonsense".into()], name: None };
        assert_eq!(resolve(&args).unwrap_err().code, Code::Usage);
    }
}
