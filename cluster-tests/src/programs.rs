//! Where the programs are that tests start.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// The program under test.
///
/// # Errors
/// If it has not been built.
pub fn holdfast() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("HOLDFAST_BIN") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("HOLDFAST_BIN names {}, which is not a file", path.display());
        }
        return Ok(path);
    }
    beside_the_tests("holdfast", "cargo build --release -p holdfast-cli")
}

/// The stand-in master of this crate.
///
/// # Errors
/// If it has not been built.
pub fn stand_in() -> anyhow::Result<PathBuf> {
    beside_the_tests("holdfast-stand-in", "cargo build --release -p holdfast-cluster-tests --bins")
}

/// The caller of an exclusive create of this crate.
///
/// # Errors
/// If it has not been built.
pub fn creator() -> anyhow::Result<PathBuf> {
    beside_the_tests("holdfast-creator", "cargo build --release -p holdfast-cluster-tests --bins")
}

/// The saver of trees of this crate.
///
/// # Errors
/// If it has not been built.
pub fn saver() -> anyhow::Result<PathBuf> {
    beside_the_tests("holdfast-saver", "cargo build --release -p holdfast-cluster-tests --bins")
}

/// Test executables are in `deps` of the directory where cargo puts programs.
fn beside_the_tests(name: &str, how_to_build: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find our own program")?;
    let dirs = own.ancestors().skip(1).take(2);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("there is no {name} near {}; build it: {how_to_build}", own.display())
    })
}
