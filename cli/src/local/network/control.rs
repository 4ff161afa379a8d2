//! Orders to the network of a local cluster, and its answers: one line of JSON each, over a socket
//! in the cluster's state directory, which only its owner can open.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_network::{Network, Route, Rules};
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::UnixStream;

use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::local::places::Places;

/// How long an order may take; it takes about a millisecond.
const OBEY_WITHIN: Duration = Duration::from_secs(2);
/// Longest line; the routes of a hundred nodes are 10 KiB.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// The socket's name in its directory.
const SOCKET: &str = "network.sock";

/// What can be asked of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Order {
    /// Lead to these nodes and to no others.
    Routes(Vec<Route>),
    /// Cut the links between these groups in both directions.
    Partition(Vec<BTreeSet<u64>>),
    /// Cut the links from the first to the second.
    Cut(BTreeSet<u64>, BTreeSet<u64>),
    /// Delay all that a node sends and is sent, in milliseconds; 0 ends that.
    Slow(u64, u64),
    /// Let everything pass at once.
    Heal,
    /// Nothing but the answer.
    Show,
}

/// What comes back, once the order is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// The rules in force now.
    rules: Rules,
    /// Why the order was not carried out.
    error: Option<String>,
}

/// Gives an order, and returns the rules in force once it is carried out.
pub(crate) async fn ask(places: &Places, order: &Order) -> Outcome<Rules> {
    let asked = tokio::time::timeout(OBEY_WITHIN, exchange(places, order)).await;
    let silent = |cause: String| {
        Failure::new(Code::NoNetwork, "the network of the local cluster does not answer")
            .cause(cause)
            .help(format!("holdfast up{} starts it again", places.name_flag()))
    };
    match asked {
        Ok(Ok(Answer { rules, error: None })) => Ok(rules),
        Ok(Ok(Answer { error: Some(error), .. })) => Err(refused(order, error)),
        Ok(Err(error)) => Err(silent(error.to_string())),
        Err(_) => Err(silent(format!("no answer within {} s", OBEY_WITHIN.as_secs()))),
    }
}

/// An order that was understood and could not be carried out, or was not understood.
fn refused(order: &Order, error: String) -> Failure {
    match order {
        Order::Routes(_) => {
            Failure::new(Code::PortInUse, "the local network cannot listen for a node")
                .cause(error)
                .help("see who listens there: ss -ltnp; or take other ports: up --base-port 0")
        }
        Order::Partition(_) | Order::Cut(..) | Order::Slow(..) | Order::Heal | Order::Show => {
            Failure::new(Code::NoNetwork, "the local network refuses that")
                .cause(error)
                .help("if it was started by another version: holdfast down, then holdfast up")
        }
    }
}

async fn exchange(places: &Places, order: &Order) -> io::Result<Answer> {
    let (path, _dir) = socket(places)?;
    let (reads, mut writes) = UnixStream::connect(path).await?.into_split();
    writes.write_all(&line(order)?).await?;
    match read_line(&mut BufReader::new(reads)).await? {
        Some(text) => Ok(serde_json::from_str(&text)?),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Serves one connection of somebody who gives orders, until it ends.
pub(super) async fn serve(stream: UnixStream, network: &Network) -> io::Result<()> {
    let (reads, mut writes) = stream.into_split();
    let mut reads = BufReader::new(reads);
    while let Some(text) = read_line(&mut reads).await? {
        let error = match serde_json::from_str(&text) {
            Ok(order) => carry_out(network, order).err(),
            Err(error) => Some(error.to_string()),
        };
        writes.write_all(&line(&Answer { rules: network.rules(), error })?).await?;
    }
    Ok(())
}

fn carry_out(network: &Network, order: Order) -> Result<(), String> {
    match order {
        Order::Routes(routes) => return lead_to(network, &routes),
        Order::Partition(groups) => network.change(|rules| rules.partition(&groups)),
        Order::Cut(from, to) => network.change(|rules| rules.cut(&from, &to)),
        Order::Slow(node, ms) => {
            let slowed = network.change(|rules| rules.slow(node, Duration::from_millis(ms)));
            slowed.map_err(|max| format!("{ms} ms, at most {} ms", max.as_millis()))?;
        }
        Order::Heal => network.change(|rules| *rules = Rules::default()),
        Order::Show => {}
    }
    Ok(())
}

fn lead_to(network: &Network, routes: &[Route]) -> Result<(), String> {
    let open = network.routes();
    for gone in open.iter().filter(|route| !routes.contains(route)) {
        network.close(gone.node).map_err(|error| error.to_string())?;
    }
    for route in routes.iter().filter(|route| !open.contains(route)) {
        network.open(*route).map_err(|error| format!("listen at {}: {error}", route.listen))?;
    }
    Ok(())
}

fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The next line; none at the end, also in the middle of one.
async fn read_line(from: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<Option<String>> {
    let mut text = String::new();
    from.take(LINE_BYTES_MAX).read_line(&mut text).await?;
    Ok(text.ends_with('\n').then_some(text))
}

/// The path of the socket, and the directory that must stay open while it is used: a path to a
/// socket has at most 107 bytes (unix(7)), so that it goes by way of the open directory.
pub(super) fn socket(places: &Places) -> io::Result<(PathBuf, File)> {
    let dir = File::open(&places.state_dir)?;
    Ok((format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()).into(), dir))
}

#[cfg(test)]
mod tests {
    //! Orders are carried out before they are answered.
    use super::*;
    use holdfast_network::Flow;
    use tokio::net::UnixListener;

    async fn asked(order: Order) -> Outcome<Rules> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a-directory-with-a-long-name".repeat(5));
        let places = Places::under(&root);
        std::fs::create_dir_all(&places.state_dir).unwrap();
        let (path, _open) = socket(&places).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        let network = Network::start().unwrap();
        let served = async {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, &network).await.unwrap();
        };
        tokio::join!(ask(&places, &order), served).0
    }

    #[tokio::test]
    async fn the_answer_has_the_rules_in_force() {
        let cut = asked(Order::Cut([1].into(), [2, 3].into())).await.unwrap();
        assert_eq!(cut.flow(1, 3), Flow::Stall);
        assert_eq!(cut.flow(3, 1), Flow::Pass);
        let parted = asked(Order::Partition(vec![[1].into(), [2].into()])).await.unwrap();
        assert_eq!(parted.flow(2, 1), Flow::Stall);
        let slow = asked(Order::Slow(2, 50)).await.unwrap();
        assert_eq!(slow.flow(1, 2), Flow::Delay(Duration::from_millis(50)));
        assert!(asked(Order::Heal).await.unwrap().is_whole());
        assert!(asked(Order::Show).await.unwrap().is_whole());
    }

    #[tokio::test]
    async fn an_order_that_cannot_be_carried_out_says_why() {
        let failure = asked(Order::Slow(2, 10_001)).await.unwrap_err();
        assert_eq!(failure.cause.unwrap(), "10001 ms, at most 10000 ms");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap();
        let route = Route { node: 1, listen, target: listen };
        let failure = asked(Order::Routes(vec![route])).await.unwrap_err();
        assert!(failure.cause.unwrap().starts_with(&format!("listen at {listen}: ")));
    }

    #[tokio::test]
    async fn nobody_there_is_said_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let failure = ask(&Places::under(dir.path()), &Order::Show).await.unwrap_err();
        assert_eq!(failure.code, Code::NoNetwork);
    }
}
