//! Two clerks move money between two accounts, each by another way; what there is in all stays the same.
//! It needs a cluster at these endpoints: `holdfast up`.

#![expect(clippy::print_stdout, reason = "it shows what came of it")]

use std::error::Error;

use holdfast_client::stm::{CommitError, Interrupt, Key, Store};
use holdfast_client::{Client, ClientConfig};

const TRANSFERS: usize = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = ClientConfig::new(["127.0.0.1:7480", "127.0.0.1:7490", "127.0.0.1:7500"]);
    let store = Client::connect(config).stm();
    let [alice, bob] = [Key::new(("account", "alice"))?, Key::new(("account", "bob"))?];

    let mut accounts = store.using([alice.clone(), bob.clone()]).await?;
    for account in accounts.iter_mut() {
        account.set(&1_000)?;
    }
    accounts.commit().await?;

    tokio::try_join!(by_function(&store, &alice, &bob), by_copies(&store, &bob, &alice))?;

    let snapshot = store.read([alice, bob]).await?;
    for account in &snapshot.variables {
        println!("{}: {:?}, written {} times", account.key, account.content, account.version);
    }
    Ok(())
}

/// The function runs again whenever somebody else came between.
async fn by_function(store: &Store, from: &Key, to: &Key) -> Result<(), Box<dyn Error>> {
    for _ in 0..TRANSFERS {
        store
            .transact(|transaction| async move {
                let had = transaction.get::<i64>(from).await?.unwrap_or(0);
                let has = transaction.get::<i64>(to).await?.unwrap_or(0);
                transaction.put(from, &(had - 1))?;
                transaction.put(to, &(has + 1))?;
                Ok::<_, Interrupt>(())
            })
            .await?;
    }
    Ok(())
}

/// The same by hand: copies are taken, worked on and committed.
async fn by_copies(store: &Store, from: &Key, to: &Key) -> Result<(), Box<dyn Error>> {
    for _ in 0..TRANSFERS {
        'anew: loop {
            let mut accounts = store.using([from.clone(), to.clone()]).await?;
            for account in accounts.iter_mut() {
                let change = if account.key() == from { -1 } else { 1 };
                let balance = account.get::<i64>()?.unwrap_or(0);
                account.set(&(balance + change))?;
            }
            loop {
                match accounts.commit().await {
                    Ok(_) => break 'anew,
                    // Somebody else came between: these copies are of no use any more.
                    Err(CommitError::ConcurrentUpdate(_)) => break,
                    // Nothing was written.
                    Err(CommitError::BusyRetry { .. }) => {}
                    // Committing again settles it; it is applied once at most.
                    Err(CommitError::CommitUncertain { .. }) => {}
                    Err(CommitError::Refused(error)) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}
