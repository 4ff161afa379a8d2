//! What every store promises, whatever it keeps its objects in.
//!
//! Each check is given a way to open stores: the same place twice is the same objects, as two processes
//! would see them, and another place is an empty store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures::future::{self, BoxFuture};
use futures::{FutureExt as _, TryStreamExt as _};
use holdfast_client::persistence::{
    EncodeError, Error, Filter, Id, Identity, Object, Persistable, Store, Tree,
};

/// Opens the store of a place.
pub(crate) type Open<'a> = &'a (dyn Fn(&str) -> Arc<dyn Store> + Sync);

type Check = for<'a> fn(Open<'a>) -> BoxFuture<'a, ()>;

/// All checks, by their names.
const CHECKS: [(&str, Check); 16] = [
    ("objects come back as they were", |open| comes_back(open).boxed()),
    ("an unknown id is a load error", |open| unknown_id(open).boxed()),
    ("an object keeps its id", |open| keeps_its_id(open).boxed()),
    ("replace stores a copy", |open| replace(open).boxed()),
    ("remove is silent, and its ids are gone", |open| remove(open).boxed()),
    ("ids that were not given out are refused", |open| unissued(open).boxed()),
    ("children are stored on their own", |open| children(open).boxed()),
    ("a missing child is a load error", |open| missing_child(open).boxed()),
    ("a tree of many objects", |open| many(open).boxed()),
    ("a deep tree", |open| deep(open).boxed()),
    ("objects that refer to each other", |open| circle(open).boxed()),
    ("lists are filtered and in order", |open| lists(open).boxed()),
    ("bodies of all sizes", |open| sizes(open).boxed()),
    ("too large is refused and nothing is stored", |open| too_large(open).boxed()),
    ("ids of stores that save together differ", |open| together(open).boxed()),
    ("a tree is seen whole", |open| whole(open).boxed()),
];

/// Makes all checks, one after the other.
pub(crate) async fn all(open: Open<'_>) {
    for (name, check) in CHECKS {
        eprintln!("contract: {name}");
        check(open).await;
    }
}

fn object(class_name: &str, body: impl Into<Vec<u8>>) -> Object {
    Object::new(class_name, body)
}

fn with_metadata(class_name: &str, body: &str, metadata: &[(&str, &str)]) -> Object {
    let mut object = object(class_name, body);
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    object.metadata = metadata.iter().map(own).collect();
    object
}

fn parent(body: &str, children: &[&Arc<Object>]) -> Arc<Object> {
    let mut object = object("Parent", body);
    object.children = children.iter().copied().cloned().collect();
    Arc::new(object)
}

fn of_class(name: &str) -> Filter {
    Filter { class_name: Some(name.to_owned()), metadata: BTreeMap::new() }
}

fn bodies(tree: &Tree) -> Vec<String> {
    tree.objects().map(|object| String::from_utf8(object.body.clone()).unwrap()).collect()
}

// P1 P2
async fn comes_back(open: Open<'_>) {
    let store = open("comes back");
    let bytes: Vec<u8> = (0..=255).collect();
    let plain = object("Bytes", bytes.clone());
    let id = store.save(&plain).await.unwrap();
    assert_eq!((plain.id(), id.to_string().len()), (Some(id), 16));
    let empty = with_metadata("Émpty", "", &[("state", "NEW"), ("ö", "")]);
    let empty_id = store.save(&empty).await.unwrap();
    assert!(empty_id != id);
    // Another handle sees the same.
    for store in [&store, &open("comes back")] {
        let found = store.load(id).await.unwrap().into_root();
        assert_eq!((found.id, found.class_name.as_str(), found.body), (id, "Bytes", bytes.clone()));
        assert!(found.metadata.is_empty() && found.children.is_empty());
        let found = store.load(empty_id).await.unwrap().into_root();
        assert_eq!((found.class_name, found.body.len()), (empty.class_name.clone(), 0));
        assert_eq!(found.metadata, empty.metadata);
    }
}

// P2
async fn unknown_id(open: Open<'_>) {
    let store = open("unknown id");
    let error = store.load(Id::LOWEST).await.expect_err("there is nothing");
    assert!(error.is_load_error() && !error.is_unavailable(), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(&Id::LOWEST.to_string()) && said.contains(&store.name()), "{said}");
}

// P1
async fn keeps_its_id(open: Open<'_>) {
    let store = open("keeps its id");
    let mut job = object("Job", "one");
    let id = store.save(&job).await.unwrap();
    job.body = b"two".to_vec();
    job.class_name = "Other".to_owned();
    assert_eq!(store.save(&job).await.unwrap(), id);
    let found = store.load(id).await.unwrap().into_root();
    assert_eq!((found.class_name.as_str(), found.body.as_slice()), ("Other", &b"two"[..]));
    // Also one that was made from what was loaded.
    let copy = object("Job", "three").with_id(id);
    assert_eq!(store.save(&copy).await.unwrap(), id);
    assert_eq!(store.load(id).await.unwrap().root().body, b"three");
    assert_eq!(store.list(&Filter::default()).await.unwrap(), [id]);
}

// P2
async fn replace(open: Open<'_>) {
    let store = open("replace");
    let (first, second) = (object("Job", "first"), object("Job", "second"));
    let id = store.save(&first).await.unwrap();
    let own = store.save(&second).await.unwrap();
    store.replace(id, &second).await.unwrap();
    let found = store.load(id).await.unwrap().into_root();
    assert_eq!((found.id, found.body.as_slice()), (id, &b"second"[..]));
    assert_eq!(second.id(), Some(own), "its own id stays");
    // An object without an id gets none by this, and what refers to it is stored as it should be.
    let child = parent("child", &[]);
    let nameless = parent("nameless", &[&child]);
    store.replace(id, &*nameless).await.unwrap();
    assert_eq!(nameless.id(), None);
    let tree = store.load(id).await.unwrap();
    assert_eq!(tree.root().children, [child.id().unwrap()]);
    // Also where there is nothing any more.
    store.remove(id).await.unwrap();
    store.replace(id, &first).await.unwrap();
    assert_eq!(store.load(id).await.unwrap().root().body, b"first");
}

// P1 P2
async fn remove(open: Open<'_>) {
    let store = open("remove");
    store.remove(Id::LOWEST).await.unwrap();
    let mut gone = BTreeSet::new();
    for round in 0..5 {
        let job = object("Job", format!("round {round}"));
        let id = store.save(&job).await.unwrap();
        for _ in 0..2 {
            store.remove(id).await.unwrap();
            assert!(store.load(id).await.expect_err("it is removed").is_load_error());
        }
        assert!(gone.insert(id), "{id} was given out twice");
        assert!(gone.insert(open("remove").save(&object("Job", "kept")).await.unwrap()));
    }
    assert_eq!(store.list(&Filter::default()).await.unwrap().len(), 5);
}

// P1
async fn unissued(open: Open<'_>) {
    let store = open("unissued");
    let job = object("Job", "body");
    store.save(&job).await.unwrap();
    let far = Id::HIGHEST;
    let refused = store.save(&object("Job", "body").with_id(far)).await;
    assert!(matches!(refused, Err(Error::UnissuedId { id, .. }) if id == far), "{refused:?}");
    let refused = store.replace(far, &job).await;
    assert!(matches!(refused, Err(Error::UnissuedId { .. })), "{refused:?}");
    // Nothing of a tree is stored either.
    let child = Arc::new(object("Job", "child").with_id(far));
    let refused = store.save(&*parent("root", &[&child])).await;
    assert!(matches!(refused, Err(Error::UnissuedId { .. })), "{refused:?}");
    assert_eq!(store.list(&Filter::default()).await.unwrap(), [job.id().unwrap()]);
}

// P3
async fn children(open: Open<'_>) {
    let store = open("children");
    let shared = parent("shared", &[]);
    let (left, right) = (parent("left", &[&shared]), parent("right", &[&shared, &shared]));
    let root = parent("root", &[&left, &right]);
    let id = store.save(&*root).await.unwrap();
    let ids = [&shared, &left, &right].map(|object| object.id().unwrap());
    assert_eq!(store.list(&Filter::default()).await.unwrap().len(), 4, "each once");
    let tree = store.load(id).await.unwrap();
    assert_eq!((tree.len(), tree.root().children.as_slice()), (4, &ids[1..]));
    let right = tree.get(ids[2]).unwrap();
    assert_eq!(
        (right.body.as_slice(), right.children.as_slice()),
        (&b"right"[..], &[ids[0]; 2][..])
    );
    assert!(right.metadata.is_empty(), "what is ours is not shown");
    // A child is an object like any other.
    assert_eq!(bodies(&store.load(ids[0]).await.unwrap()), ["shared"]);
    // Removing a parent leaves it.
    store.remove(id).await.unwrap();
    assert_eq!(store.load(ids[2]).await.unwrap().len(), 2);
}

// P2 P3
async fn missing_child(open: Open<'_>) {
    let store = open("missing child");
    let child = parent("child", &[]);
    let root = parent("root", &[&child]);
    let id = store.save(&*root).await.unwrap();
    let child = child.id().unwrap();
    store.remove(child).await.unwrap();
    let error = store.load(id).await.expect_err("a child is missing");
    let is_named = matches!(error, Error::Load { id: missing, parent, .. }
        if missing == child && parent == Some(id));
    assert!(is_named, "{error:?}");
}

// P3
async fn many(open: Open<'_>) {
    let store = open("many");
    let leaves: Vec<Arc<Object>> =
        (0..1500).map(|nth| Arc::new(object("Leaf", format!("leaf {nth}")))).collect();
    let root = parent("root", &leaves.iter().collect::<Vec<_>>());
    let id = store.save(&*root).await.unwrap();
    let tree = store.load(id).await.unwrap();
    let expected: Vec<Id> = leaves.iter().map(|leaf| leaf.id().unwrap()).collect();
    assert_eq!((tree.len(), &tree.root().children), (1501, &expected));
    let body = |id: Id| tree.get(id).unwrap().body.as_slice();
    assert!(leaves.iter().all(|leaf| body(leaf.id().unwrap()) == leaf.body));
    assert_eq!(store.list(&of_class("Leaf")).await.unwrap(), expected, "in order");
}

// P3
async fn deep(open: Open<'_>) {
    let store = open("deep");
    let mut chain = parent("0", &[]);
    for depth in 1..300 {
        chain = parent(&depth.to_string(), &[&chain]);
    }
    let id = store.save(&*chain).await.unwrap();
    let tree = store.load(id).await.unwrap();
    let depth = tree.build(|stored, below: Vec<Arc<usize>>| {
        let depth = below.first().map_or(0, |below| **below + 1);
        assert_eq!(stored.body, depth.to_string().as_bytes());
        Ok::<_, Error>(depth)
    });
    assert_eq!((tree.len(), *depth.unwrap()), (300, 299));
}

// P3
async fn circle(open: Open<'_>) {
    let store = open("circle");
    let (here, there) = (Arc::new(Knot::default()), Arc::new(Knot::default()));
    here.children.lock().unwrap().extend([there.clone(), here.clone()]);
    *there.children.lock().unwrap() = vec![here.clone()];
    let ids = [store.save(&*here).await.unwrap(), there.identity().get().unwrap()];
    for id in ids {
        let tree = store.load(id).await.unwrap();
        let children = ids.map(|id| tree.get(id).unwrap().children.clone());
        assert_eq!(children, [vec![ids[1], ids[0]], vec![ids[0]]]);
        let built = tree.build(|_, _: Vec<Arc<()>>| Ok::<_, Error>(()));
        assert!(matches!(built, Err(Error::Cycle { .. })), "{built:?}");
    }
    // So that the memory is freed.
    here.children.lock().unwrap().clear();
}

/// An object that may refer to itself.
#[derive(Default)]
struct Knot {
    children: Mutex<Vec<Arc<Knot>>>,
    identity: Identity,
}

impl Persistable for Knot {
    fn class_name(&self) -> &'static str {
        "Knot"
    }
    fn children(&self) -> Vec<Arc<dyn Persistable>> {
        let children = self.children.lock().unwrap();
        children.iter().map(|child| child.clone() as Arc<dyn Persistable>).collect()
    }
    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        Ok(Vec::new())
    }
    fn identity(&self) -> &Identity {
        &self.identity
    }
}

// P2
async fn lists(open: Open<'_>) {
    let store = open("lists");
    assert!(store.list(&Filter::default()).await.unwrap().is_empty());
    let mut ids = Vec::new();
    for nth in 0..6 {
        let state = if nth % 2 == 0 { "NEW" } else { "DONE" };
        let class_name = if nth < 3 { "Job" } else { "Task" };
        let size = nth.to_string();
        let object = with_metadata(class_name, "body", &[("state", state), ("size", &size)]);
        ids.push(store.save(&object).await.unwrap());
    }
    assert!(ids.is_sorted(), "{ids:?}");
    let filter = |class_name: Option<&str>, metadata: &[(&str, &str)]| Filter {
        class_name: class_name.map(str::to_owned),
        metadata: with_metadata("", "", metadata).metadata.clone(),
    };
    let cases = [
        (filter(None, &[]), vec![0, 1, 2, 3, 4, 5]),
        (filter(Some("Job"), &[]), vec![0, 1, 2]),
        (filter(None, &[("state", "NEW")]), vec![0, 2, 4]),
        (filter(Some("Task"), &[("state", "NEW")]), vec![4]),
        (filter(None, &[("state", "NEW"), ("size", "2")]), vec![2]),
        (filter(None, &[("state", "new")]), vec![]),
        (filter(Some("Jo"), &[]), vec![]),
        (filter(Some(""), &[]), vec![]),
        (filter(None, &[("none", "")]), vec![]),
    ];
    for (filter, expected) in cases {
        let expected: Vec<Id> = expected.into_iter().map(|nth: usize| ids[nth]).collect();
        assert_eq!(store.list(&filter).await.unwrap(), expected, "{filter:?}");
        let streamed: Vec<Id> = store.ids(filter).try_collect().await.unwrap();
        assert_eq!(streamed, expected);
    }
    let root = parent("root", &[&Arc::new(object("Leaf", "leaf"))]);
    store.save(&*root).await.unwrap();
    let records: Vec<_> = store.records(of_class("Parent")).try_collect().await.unwrap();
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((record.id, record.body_bytes), (root.id().unwrap(), 8 + 4));
    assert!(record.metadata.is_empty());
    let records: Vec<_> =
        store.records(filter(None, &[("size", "3")])).try_collect().await.unwrap();
    assert_eq!(
        (records[0].class_name.as_str(), records[0].metadata["state"].as_str()),
        ("Task", "DONE")
    );
}

// P3
async fn sizes(open: Open<'_>) {
    const KIB: usize = 1 << 10;
    let store = open("sizes");
    let mut all = Vec::new();
    for size in [1, 512 * KIB - 1, 512 * KIB, 512 * KIB + 1, 1024 * KIB, 3072 * KIB + 7] {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let big = Arc::new(object("Big", body));
        let id = store.save(&*big).await.unwrap();
        assert!(store.load(id).await.unwrap().root().body == big.body, "{size}");
        all.push(big);
    }
    // All together are far more than one message holds.
    let root = parent("root", &all.iter().collect::<Vec<_>>());
    let id = store.save(&*root).await.unwrap();
    let tree = open("sizes").load(id).await.unwrap();
    assert!(all.iter().all(|big| tree.get(big.id().unwrap()).unwrap().body == big.body));
}

// P3 G9
async fn too_large(open: Open<'_>) {
    const MAX: usize = 64 << 20;
    let store = open("too large");
    let huge = Arc::new(object("Huge", vec![0; MAX + 1]));
    let refused = store.save(&*huge).await.expect_err("it is too large");
    let is_named =
        matches!(refused, Error::TooLarge { actual: 67_108_865, allowed: 67_108_864, .. });
    assert!(is_named, "{refused:?}");
    let said = refused.to_string();
    assert!(
        said.contains("67108865") && said.contains("67108864") && said.contains("Huge"),
        "{said}"
    );
    // Also in a tree, of which nothing is stored, and nothing has an id.
    let leaf = parent("leaf", &[]);
    let root = parent("root", &[&leaf, &huge]);
    assert!(matches!(store.save(&*root).await, Err(Error::TooLarge { .. })));
    assert!(store.list(&Filter::default()).await.unwrap().is_empty());
    assert_eq!((root.id(), leaf.id(), huge.id()), (None, None, None));
}

// P1 P4
async fn together(open: Open<'_>) {
    let stores: Vec<Arc<dyn Store>> = (0..4).map(|_| open("together")).collect();
    let saver = |nth: usize| {
        let store = &stores[nth % stores.len()];
        async move {
            let mut saved = Vec::new();
            for round in 0..20 {
                if round == 10 {
                    store.pre_fork();
                    store.post_fork();
                    store.invalidate_cache();
                }
                let body = format!("{nth} {round}");
                let id = store.save(&object("Job", body.as_str())).await.unwrap();
                saved.push((id, body));
            }
            saved
        }
    };
    let saved = future::join_all((0..16).map(saver)).await.concat();
    let ids: BTreeSet<Id> = saved.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), saved.len(), "an id was given out twice");
    for (id, body) in &saved {
        assert_eq!(stores[0].load(*id).await.unwrap().root().body, body.as_bytes());
    }
    assert_eq!(stores[1].list(&Filter::default()).await.unwrap().len(), saved.len());
}

// P3: whoever loads a tree while it is saved anew sees all of it as it was before, or after.
async fn whole(open: Open<'_>) {
    const ROUNDS: usize = 40;
    let (writer, reader) = (open("whole"), open("whole"));
    let tree = |round: usize, ids: Option<[Id; 4]>| {
        let made = |nth: usize| {
            let made = object("Part", round.to_string());
            ids.map_or_else(|| object("Part", round.to_string()), |ids| made.with_id(ids[nth]))
        };
        let leaf = Arc::new(made(0));
        let mut middle = [made(1), made(2)];
        middle.iter_mut().for_each(|part| part.children = vec![leaf.clone()]);
        let mut root = made(3);
        root.children = middle.into_iter().map(Arc::new).collect();
        root
    };
    let first = tree(0, None);
    let id = writer.save(&first).await.unwrap();
    let [left, right] = [0, 1].map(|nth| first.children[nth].id().unwrap());
    let ids = [first.children[0].children[0].id().unwrap(), left, right, id];
    let write = async {
        for round in 1..=ROUNDS {
            writer.save(&tree(round, Some(ids))).await.unwrap();
        }
    };
    let read = async {
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        loop {
            let found = match reader.load(id).await {
                Ok(found) => bodies(&found),
                // It says so rather than show parts of two.
                Err(Error::Unsteady { .. }) => continue,
                Err(error) => panic!("{error}"),
            };
            assert!(found.len() == 4 && found.iter().all(|body| *body == found[0]), "{found:?}");
            let round = found[0].parse().unwrap();
            assert!(seen.last().is_none_or(|last| *last <= round), "it went back: {round}");
            seen.insert(round);
            if round == ROUNDS {
                return;
            }
        }
    };
    future::join(write, read).await;
}
