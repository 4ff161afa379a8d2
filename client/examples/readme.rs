//! The Rust of README.md as a program, so that it compiles; a test of the cluster sees to it that both are the
//! same. It needs a cluster at these endpoints: `holdfast up`.

#![expect(clippy::print_stdout, reason = "it shows what came of it")]

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // README.md from here
    use holdfast_client::{Client, ClientConfig};

    let client = Client::connect(ClientConfig::new(["127.0.0.1:7480", "127.0.0.1:7490"]));
    let state = client.state();
    let id = state.get_object_id("poller", "buildbot.GitPoller").await?;
    let made = state.atomic_create(id, "last_rev", || b"\"f00\"".to_vec()).await?;
    println!("created: {}, value: {:?}", made.created, made.value);

    // A function, run until what it did could be applied at once.
    use holdfast_client::stm::{Interrupt, Key};
    let (alice, account) = (&Key::new("alice")?, &Key::new(("account", 7))?);
    let store = client.stm();
    let moving = store.transact(|transaction| async move {
        let left = transaction.get::<i64>(alice).await?.unwrap_or(0) - 10;
        let grown = transaction.get::<i64>(account).await?.unwrap_or(0) + 10;
        transaction.put(alice, &left)?;
        transaction.put(account, &grown)?;
        Ok::<_, Interrupt>(left)
    });
    println!("alice has {} left", moving.await?);
    // to here
    Ok(())
}
