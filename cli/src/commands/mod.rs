//! One file for each noun and verb of the command line that talks to a cluster.

mod buildbot_sql;
pub(crate) mod changesource;
pub(crate) mod config;
mod exclusive;
mod group;
pub(crate) mod help;
pub(crate) mod master;
pub(crate) mod members;
pub(crate) mod object;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod stm;
mod transfer;
pub(crate) mod watch;
