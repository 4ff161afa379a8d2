//! Objects in files: what every store promises, and what is special about a directory.

use std::path::Path;
use std::sync::Arc;

use futures::FutureExt as _;
use holdfast_client::persistence::{Error, FilesystemStore, Filter, Object, Store, make_store};

#[path = "../contract/mod.rs"]
pub(crate) mod contract;

type TestResult = Result<(), Box<dyn std::error::Error>>;

#[tokio::test(flavor = "multi_thread")]
async fn files_keep_the_contract() -> TestResult {
    let dir = tempfile::tempdir()?;
    let open = |place: &str| -> Arc<dyn Store> {
        let path = dir.path().join(place);
        make_store(path.to_str().expect("temporary directories have plain names"))
            .expect("a path names a store")
    };
    contract::all(&open).await;
    Ok(())
}

// P5
#[tokio::test]
async fn nothing_is_made_before_the_first_save() -> TestResult {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("below/jobs");
    let store = FilesystemStore::new(&path);
    assert!(store.list(&Filter::default()).await?.is_empty());
    store.remove(holdfast_client::persistence::Id::LOWEST).await?;
    assert!(!path.exists());
    let id = store.save(&Object::new("Job", b"body".to_vec())).await?;
    assert_eq!(files(&path)?, [id.to_string(), "aside".into(), "lock".into(), "next-id".into()]);
    Ok(())
}

// P2 G11
#[tokio::test]
async fn damaged_file_is_no_load_error_and_names_itself() -> TestResult {
    let dir = tempfile::tempdir()?;
    let store = FilesystemStore::new(dir.path());
    let id = store.save(&Object::new("Job", b"body".to_vec())).await?;
    let path = dir.path().join(id.to_string());
    std::fs::write(&path, b"hfobject and then nothing")?;
    for error in [
        store.load(id).await.expect_err("it is damaged"),
        store
            .list(&Filter { class_name: Some("Job".to_owned()), ..Filter::default() })
            .await
            .expect_err("it is damaged"),
    ] {
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    // It can be mended, and removed.
    store.replace(id, &Object::new("Job", b"new".to_vec())).await?;
    assert_eq!(store.load(id).await?.root().body, b"new");
    Ok(())
}

// P3: a save that is given up in the middle leaves all of the tree, or nothing.
#[tokio::test]
async fn dropped_save_leaves_no_part() -> TestResult {
    let dir = tempfile::tempdir()?;
    let store = FilesystemStore::new(dir.path());
    let tree = |body: &str| {
        let mut root = Object::new("Root", body);
        root.children = (0..20).map(|_| Arc::new(Object::new("Leaf", body))).collect();
        root
    };
    let whole = tree("whole");
    store.save(&whole).await?;
    for round in 0..20_u32 {
        let given_up = tree(&format!("round {round}"));
        // Polled a few times, and then dropped.
        let mut save = store.save(&given_up);
        for _ in 0..round % 4 {
            if save.as_mut().now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(save);
    }
    // Whatever goes on in the background is done before this.
    store.save(&whole).await?;
    let leaves = Filter { class_name: Some("Leaf".to_owned()), ..Filter::default() };
    let roots = Filter { class_name: Some("Root".to_owned()), ..Filter::default() };
    for id in store.list(&roots).await? {
        assert_eq!(store.load(id).await?.len(), 21);
    }
    assert_eq!(store.list(&leaves).await?.len() % 20, 0);
    Ok(())
}

fn files(path: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
