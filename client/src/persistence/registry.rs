//! Which kind of store a URI stands for.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use super::cluster::ClusterStore;
use super::error::Error;
use super::file::FilesystemStore;
use super::store::Store;
use super::uri::{self, Uri};

/// Makes a store from its URI.
pub type Constructor = dyn Fn(&Uri) -> Result<Arc<dyn Store>, Error> + Send + Sync;

// A std lock: held to look up or replace a pointer.
static CONSTRUCTORS: LazyLock<RwLock<BTreeMap<String, Arc<Constructor>>>> = LazyLock::new(|| {
    let file: Arc<Constructor> = Arc::new(|uri| Ok(Arc::new(FilesystemStore::from_uri(uri)?)));
    let cluster: Arc<Constructor> = Arc::new(|uri| Ok(Arc::new(ClusterStore::from_uri(uri)?)));
    RwLock::new(BTreeMap::from([("file".to_owned(), file), ("holdfast".to_owned(), cluster)]))
});

/// The store that a URI names.
///
/// - `holdfast://HOST:PORT[,HOST:PORT…]/NAMESPACE`: a cluster, see [`ClusterStore::from_uri`]
/// - `file:///PATH`, or a bare path: a directory, see [`FilesystemStore`]
/// - whatever was registered with [`register`]
///
/// Does no IO: what cannot be reached is found out by the first call.
///
/// # Errors
/// [`Error::UnknownScheme`], which lists the schemes there are; [`Error::BadUri`].
pub fn make_store(uri: &str) -> Result<Arc<dyn Store>, Error> {
    let uri = Uri::parse(uri)?;
    let constructors = CONSTRUCTORS.read().unwrap_or_else(PoisonError::into_inner);
    let Some(constructor) = constructors.get(&uri.scheme).cloned() else {
        let known = constructors.keys().cloned().collect();
        return Err(Error::UnknownScheme {
            scheme: uri.scheme.clone(),
            uri: uri.to_string(),
            known,
        });
    };
    // A constructor may make other stores.
    drop(constructors);
    constructor(&uri)
}

/// Lets [`make_store`] make stores of a scheme by this constructor, in place of the one it had.
///
/// # Errors
/// [`Error::BadUri`] if it is no scheme: letters, digits, `+`, `-` and `.`, a letter first.
pub fn register(
    scheme: &str,
    constructor: impl Fn(&Uri) -> Result<Arc<dyn Store>, Error> + Send + Sync + 'static,
) -> Result<(), Error> {
    if !uri::is_scheme(scheme) {
        let reason = "a scheme is letters, digits, +, - and ., a letter first".to_owned();
        return Err(Error::BadUri { uri: scheme.to_owned(), reason });
    }
    let mut constructors = CONSTRUCTORS.write().unwrap_or_else(PoisonError::into_inner);
    constructors.insert(scheme.to_ascii_lowercase(), Arc::new(constructor));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(uri: &str) -> Error {
        make_store(uri).expect_err("it names no store")
    }

    // P5
    #[test]
    fn bare_path_means_a_file() {
        for (uri, name) in [
            ("/var/lib/jobs", "file:///var/lib/jobs"),
            ("jobs", "file://jobs"),
            ("file:///a%20b", "file:///a b"),
            ("file://localhost/a", "file:///a"),
        ] {
            assert_eq!(make_store(uri).unwrap().name(), name, "{uri}");
        }
        for uri in ["file://host/a", "file://", "file:///a?x=1"] {
            assert!(matches!(error(uri), Error::BadUri { .. }), "{uri}");
        }
    }

    // P5
    #[test]
    fn unknown_scheme_lists_those_that_are_known() {
        let said = error("nope://x").to_string();
        assert!(said.starts_with("unknown scheme \"nope\" in \"nope://x\"; known are: "), "{said}");
        assert!(said.contains("known are: file, holdfast"), "{said}");
    }

    // P5
    #[test]
    fn registered_constructor_makes_the_stores_of_its_scheme() {
        let made = |path: &'static str| {
            move |uri: &Uri| -> Result<Arc<dyn Store>, Error> {
                assert_eq!((uri.scheme.as_str(), uri.authority.as_str()), ("test+own", "x"));
                Ok(Arc::new(FilesystemStore::new(path)))
            }
        };
        register("Test+own", made("first")).unwrap();
        assert_eq!(make_store("test+own://x").unwrap().name(), "file://first");
        // Silently, as upstream does.
        register("test+own", made("second")).unwrap();
        assert_eq!(make_store("TEST+OWN://x").unwrap().name(), "file://second");
        assert!(matches!(register("a b", made("third")), Err(Error::BadUri { .. })));
    }
}
