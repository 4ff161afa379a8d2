//! The wire API of Holdfast: what clients send to a node, and what nodes send to each other.
//!
//! The definitions under `proto/` are the contract; this crate holds the Rust generated from them.
//! It knows nothing of Raft, of storage or of commands: the API and the log are separate formats,
//! and they meet in the node's service files only.

/// What clients call: one service a connector, and `Cluster` for sessions and members.
pub mod v1 {
    #![expect(missing_docs, reason = "generated from documented definitions")]
    tonic::include_proto!("holdfast.v1");

    /// The compiled definitions, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/holdfast.v1.bin"));
}

/// What nodes say to each other; never offered to clients, and free to change between releases
/// as long as two neighbouring ones understand each other.
pub mod peer {
    #![expect(missing_docs, reason = "generated from documented definitions")]
    tonic::include_proto!("holdfast.peer.v1");
}
