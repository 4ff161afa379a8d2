//! What a probe or a scraper does: one HTTP/1.1 request on a connection of its own.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a page may take. Far above what it takes: it ends a test that hangs.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The answer to a request.
#[derive(Debug)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The header `content-type`.
    pub kind: String,
    /// What follows the headers.
    pub body: String,
}

/// Asks `endpoint` (host:port) for a page, and reads until the other end closes the connection.
///
/// # Errors
/// If it does not answer and close within 10 s.
pub async fn ask(endpoint: &str, method: &str, path: &str) -> anyhow::Result<Page> {
    let asked = async {
        let mut stream = TcpStream::connect(endpoint).await?;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {endpoint}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER_MAX, asked).await;
    let answer = answer.with_context(|| format!("{method} {path}: not closed in time"))??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    Ok(Page { status, kind: kind.unwrap_or_default().to_owned(), body: body.to_owned() })
}

/// As [`ask`] with the method `GET`.
///
/// # Errors
/// As [`ask`].
pub async fn get(endpoint: &str, path: &str) -> anyhow::Result<Page> {
    ask(endpoint, "GET", path).await
}
