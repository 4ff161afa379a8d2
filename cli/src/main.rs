//! `holdfast`: the one binary, for people and scripts.
//!
//! `args` the command line · `codes` exit codes and error codes · `errors` and `output` what is
//! printed · `runbook` what is known about each error · `endpoints`, `connect` and `probe` reaching
//! a cluster · `status` the verdict over it · `commands` the nouns · `export_file` rows as a file ·
//! `serve`, `settings`, `config_file` and `memory` one node · `local` a cluster on this machine · `bench` how
//! fast one is · `demo` all of it in ten seconds.
//!
//! Invariants: stdout carries the answer and stderr everything else; every error has a code, the
//! code has a section of the runbook and decides the exit code; an answer that is no exits with 1.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod codes;
mod commands;
mod config_file;
mod connect;
mod demo;
mod endpoints;
mod errors;
mod export_file;
mod local;
mod memory;
mod names;
mod output;
mod probe;
mod progress;
mod roles;
mod runbook;
mod serve;
mod settings;
mod status;
#[cfg(test)]
mod testing;
mod units;
mod usage;

use std::panic;
use std::process::{self, ExitCode};

use clap::Parser as _;

use args::{Args, Command};
use codes::Exit;
use commands::{changesource, help, master, members, object, state, stm};
use errors::{Failure, Outcome};
use local::places::Places;
use local::state_file::Links;
use local::up::Wish;
use local::{down, failover, logs, ps, up};
use output::{Format, Output};

fn main() -> ExitCode {
    let raw: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    end_on_panic(Output { format: Format::guess(&raw) });
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let output = Output { format: Format::guess(&raw) };
            return ExitCode::from(usage::report(&error, output).number());
        }
    };
    let output = Output { format: args.output };
    let exit = match run(&args.command, output) {
        Ok(exit) => exit,
        Err(failure) => {
            output.failure(&failure);
            failure.code.exit()
        }
    };
    ExitCode::from(exit.number())
}

fn run(command: &Command, output: Output) -> Outcome<Exit> {
    match command {
        // A node brings a runtime of its own.
        Command::Serve(args) => serve::run(args),
        Command::Config(args) => commands::config::run(args, output),
        // Many clients in one process: all processors are theirs.
        Command::Bench(args) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::bug(format!("cannot start the runtime: {error}")))?
            .block_on(bench::run(args, output)),
        Command::Completions { shell } => Ok(help::completions(*shell, output)),
        Command::Help { topic } => help::help(topic, output),
        Command::Version => Ok(help::version(output)),
        Command::Up(_)
        | Command::Down(_)
        | Command::Ps(_)
        | Command::Logs(_)
        | Command::Local(_)
        | Command::Demo(_)
        | Command::Status(_)
        | Command::Members(_)
        | Command::State(_)
        | Command::Changesource(_)
        | Command::Master(_)
        | Command::Stm(_)
        | Command::Object(_)
        | Command::Watch(_)
        | Command::StandIn(_)
        | Command::Network(_) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::bug(format!("cannot start the runtime: {error}")))?
            .block_on(run_async(command, output)),
    }
}

async fn run_async(command: &Command, output: Output) -> Outcome<Exit> {
    match command {
        Command::Up(args) => {
            let wish = Wish {
                nodes: args.nodes,
                base_port: args.base_port,
                data_dir: args.data_dir.clone(),
                links: if args.direct { Links::Direct } else { Links::Network },
                timeout: args.timeout,
            };
            let report = up::up(&Places::of(&args.local.name)?, &wish, output).await?;
            report.print(output);
            Ok(Exit::Done)
        }
        Command::Down(args) => {
            down::run(&Places::of(&args.local.name)?, args.purge, output).await.map(|()| Exit::Done)
        }
        Command::Ps(args) => ps::run(&Places::of(&args.name)?, output).await.map(|()| Exit::Done),
        Command::Logs(args) => {
            let places = Places::of(&args.local.name)?;
            logs::run(&places, args.node, args.follow, output).await.map(|()| Exit::Done)
        }
        Command::Local(args) => local::run(args, output).await,
        Command::Demo(args) => demo::run(args, output).await,
        Command::Status(args) => commands::status::run(args, output).await,
        Command::Members(args) => members::run(args, output).await,
        Command::State(args) => state::run(args, output).await,
        Command::Changesource(args) => changesource::run(args, output).await,
        Command::Master(args) => master::run(args, output).await,
        Command::Stm(args) => stm::run(args, output).await,
        Command::Object(args) => object::run(args, output).await,
        Command::Watch(args) => commands::watch::run(args, output).await,
        Command::StandIn(args) => failover::stand_in(args).await,
        Command::Network(args) => local::network::process::run(args).await,
        Command::Serve(_)
        | Command::Config(_)
        | Command::Bench(_)
        | Command::Completions { .. }
        | Command::Help { .. }
        | Command::Version => Err(Failure::bug("this command needs no runtime")),
    }
}

/// A panic is a bug of ours, is said to be one, and ends the process with exit code 70.
fn end_on_panic(output: Output) {
    panic::set_hook(Box::new(move |found| {
        let place = found.location().map(ToString::to_string).unwrap_or_default();
        let what = found.payload_as_str().unwrap_or("it panicked");
        output.failure(&Failure::bug(what).cause(format!("at {place}")));
        process::exit(Exit::Bug.number().into());
    }));
}
