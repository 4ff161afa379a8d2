//! The Rust of README.md as a program, so that it compiles; a test of the cluster sees to it that both are the
//! same. It needs a cluster at these endpoints: `holdfast up`.

#![expect(clippy::print_stdout, reason = "it shows what came of it")]

#[tokio::main]
async fn main() -> Result<(), holdfast_client::Error> {
    // README.md from here
    use holdfast_client::{Client, ClientConfig};

    let client = Client::connect(ClientConfig::new(["127.0.0.1:7480", "127.0.0.1:7490"]));
    let state = client.state();
    let id = state.get_object_id("poller", "buildbot.GitPoller").await?;
    let made = state.atomic_create(id, "last_rev", || b"\"f00\"".to_vec()).await?;
    println!("created: {}, value: {:?}", made.created, made.value);
    // to here
    Ok(())
}
