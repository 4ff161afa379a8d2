//! Compiles the protobuf definitions with protox, so that no machine needs protoc.

use std::path::Path;

use prost::Message as _;

const API: [&str; 8] = [
    "holdfast/v1/state.proto",
    "holdfast/v1/masters.proto",
    "holdfast/v1/changesources.proto",
    "holdfast/v1/cluster.proto",
    "holdfast/v1/watch.proto",
    "holdfast/v1/pipeline.proto",
    "holdfast/v1/stm.proto",
    "holdfast/v1/objects.proto",
];
const PEER: [&str; 1] = ["holdfast/peer/v1/peer.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = std::env::var("OUT_DIR")?;
    let api = protox::compile(API, ["proto"])?;
    std::fs::write(Path::new(&out).join("holdfast.v1.bin"), api.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(api)?;
    let peer = protox::compile(PEER, ["proto"])?;
    tonic_prost_build::configure().bytes(".holdfast.peer.v1").compile_fds(peer)?;
    Ok(())
}
