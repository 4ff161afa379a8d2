//! Waiting for a condition, never for a time.

use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks at a condition until it gives something; each look may wait by itself.
///
/// # Errors
/// Once `within` has passed, naming what was waited for.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let looked = tokio::time::timeout_at(deadline, condition()).await;
        if let Ok(Some(value)) = looked {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {within:?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
