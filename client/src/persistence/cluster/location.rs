//! Where a cluster is, as a URI says it.

use std::time::Duration;

use super::WAIT;
use crate::config::{CALL_TIMEOUT_MAX, ClientConfig};
use crate::persistence::error::Error;
use crate::persistence::uri::Uri;

/// The port of a node that is named without one.
const PORT: u16 = 7480;

pub(super) fn config_of(uri: &Uri) -> Result<ClientConfig, Error> {
    let mut endpoints = hosts(uri, &uri.authority)?;
    if endpoints.is_empty() {
        return Err(uri.bad("it names no node: holdfast://HOST:PORT/NAMESPACE"));
    }
    let mut wait = WAIT;
    for (name, value) in &uri.query {
        match name.as_str() {
            "peers" => endpoints.extend(hosts(uri, value)?),
            "timeout_s" => wait = seconds(uri, value)?,
            unknown => {
                let known = "there are peers and timeout_s";
                return Err(uri.bad(format!("there is no parameter {unknown:?}; {known}")));
            }
        }
    }
    let mut config = ClientConfig::new(endpoints);
    let namespace = uri.path.strip_prefix('/').unwrap_or(&uri.path);
    if !namespace.is_empty() {
        config.namespace = namespace.to_owned();
    }
    config.call_timeout = wait;
    // A write may take half of it.
    config.session_idle = config.session_idle.max(wait.saturating_mul(2));
    Ok(config)
}

/// The URI of a store on a cluster, without its parameters.
pub(super) fn name_of(config: &ClientConfig) -> String {
    format!("holdfast://{}/{}", config.endpoints.join(","), config.namespace)
}

fn hosts(uri: &Uri, text: &str) -> Result<Vec<String>, Error> {
    let hosts = text.split(',').filter(|host| !host.is_empty());
    hosts
        .map(|host| with_port(host).ok_or_else(|| uri.bad(format!("{host:?} is no node"))))
        .collect()
}

/// `host:port`, if it is something like that.
fn with_port(host: &str) -> Option<String> {
    // An address of IPv6 has colons of its own, and brackets around it.
    let behind = host.rfind(']').map_or(0, |bracket| bracket + 1);
    let colon = host[behind..].find(':').map(|at| behind + at);
    let (name, port) = match colon {
        Some(colon) => (&host[..colon], host[colon + 1..].parse().ok()?),
        None => (host, PORT),
    };
    let is_bracketed = behind == 0 || (name.starts_with('[') && behind == name.len());
    let is_name = !name.is_empty() && !name.contains(['@', '/', ' ']) && is_bracketed;
    (is_name && port != 0).then(|| format!("{name}:{port}"))
}

fn seconds(uri: &Uri, text: &str) -> Result<Duration, Error> {
    let wait = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let allowed = Duration::from_millis(1)..=CALL_TIMEOUT_MAX / 2;
    wait.filter(|wait| allowed.contains(wait)).ok_or_else(|| {
        let most = allowed.end().as_secs();
        uri.bad(format!("timeout_s is a number of seconds, 0.001 to {most}, and not {text:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(uri: &str) -> Result<ClientConfig, Error> {
        config_of(&Uri::parse(uri).unwrap())
    }

    // P5
    #[test]
    fn uri_says_where_the_cluster_is() {
        let made = config("holdfast://a:1,b/site?peers=c:3,[::1]:4&timeout_s=2.5").unwrap();
        assert_eq!(made.endpoints, ["a:1", "b:7480", "c:3", "[::1]:4"]);
        assert_eq!(
            (made.namespace.as_str(), made.call_timeout),
            ("site", Duration::from_millis(2500))
        );
        assert_eq!(name_of(&made), "holdfast://a:1,b:7480,c:3,[::1]:4/site");
        for plain in ["holdfast://a:1", "holdfast://a:1/"] {
            let made = config(plain).unwrap();
            assert_eq!((made.namespace.as_str(), made.call_timeout), ("default", WAIT));
        }
        // Writes get all of the time that they are given.
        let long = config("holdfast://a:1/n?timeout_s=3600").unwrap();
        assert_eq!(long.session_idle, Duration::from_secs(7200));
    }

    // P5 G11
    #[test]
    fn what_is_wrong_is_named() {
        for (uri, said) in [
            ("holdfast:///site", "names no node"),
            ("holdfast://a:x/site", "\"a:x\" is no node"),
            ("holdfast://a:0/site", "\"a:0\" is no node"),
            ("holdfast://:1/site", "\":1\" is no node"),
            ("holdfast://u@a:1/site", "\"u@a:1\" is no node"),
            ("holdfast://[::1/site", "is no node"),
            ("holdfast://a:1/n?time=3", "no parameter \"time\"; there are peers and timeout_s"),
            ("holdfast://a:1/n?timeout_s=0", "not \"0\""),
            ("holdfast://a:1/n?timeout_s=1min", "not \"1min\""),
            ("holdfast://a:1/n?timeout_s=NaN", "not \"NaN\""),
        ] {
            let error = config(uri).expect_err(uri);
            assert!(matches!(error, Error::BadUri { .. }), "{error:?}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
