//! All tests against clusters of real processes, in one binary; one file a property.

mod bad_frames;
mod bad_input;
mod bad_start;
mod bench;
mod catch_up;
mod counter;
mod failover;
mod groups;
mod headers;
mod history;
mod identity;
mod late_copies;
mod leases;
mod local_cluster;
mod metrics;
mod million;
mod partition;
mod power_cut;
mod queue;
mod quiet;
mod races;
mod raw;
mod ready;
mod status;
mod sync_count;
mod watch;
