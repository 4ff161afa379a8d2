//! The client against nodes that do what a test tells them to: one file for each promise.

mod commits;
mod failover;
mod fake;
mod leases;
mod listings;
mod outcomes;
mod persistence;
mod pipeline;
mod sessions;
mod shelf;
mod uploads;
