//! The Rust of README.md about objects, as a program; as in `readme.rs`.

#![expect(clippy::print_stdout, reason = "it shows what came of it")]

#[tokio::main]
async fn main() -> Result<(), holdfast_client::persistence::Error> {
    // README.md from here
    use holdfast_client::persistence::{Object, make_store};

    let store = make_store("holdfast://127.0.0.1:7480,127.0.0.1:7490/jobs")?;
    let mut job = Object::new("Job", b"make test".to_vec());
    job.children.push(Object::new("Input", b"src.tar".to_vec()).into());
    let id = store.save(&job).await?; // both, in one step
    let tree = store.load(id).await?;
    println!("{id}: {} objects, {:?}", tree.len(), tree.root().body);
    // to here
    Ok(())
}
