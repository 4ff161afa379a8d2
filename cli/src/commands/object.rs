//! `holdfast object`: files as stored objects, byte for byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use holdfast_client::persistence::{ClusterStore, Error, Filter, Id, Listed, Object, Store as _};
use serde_json::{Value, json};

use crate::args::{AboutArgs, MetadataEntry, ObjectArgs, ObjectVerb};
use crate::codes::{Code, Exit};
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::output::{Format, Output, bytes_json, table};
use crate::progress::Progress;

/// More than any object may have, in bytes: what is read of a file ends here, and is then refused.
const READ_MAX: u64 = (64 << 20) + 1;

/// Carries out `holdfast object …`.
pub(crate) async fn run(args: &ObjectArgs, output: Output) -> Outcome<Exit> {
    let connection = Connection::open(&args.call, output)?;
    let shelf = Shelf { store: ClusterStore::of_client(&connection.client), connection, output };
    let done = shelf.carry_out(&args.verb).await;
    shelf.connection.close().await;
    done
}

struct Shelf {
    store: ClusterStore,
    connection: Connection,
    output: Output,
}

impl Shelf {
    async fn carry_out(&self, verb: &ObjectVerb) -> Outcome<Exit> {
        match verb {
            ObjectVerb::Save { file, about } => self.save(file, about).await,
            ObjectVerb::Load { id } => self.load(*id).await,
            ObjectVerb::Replace { id, file, about } => self.replace(*id, file, about).await,
            ObjectVerb::Remove { ids } => self.remove(ids).await,
            ObjectVerb::List { class, metadata } => {
                let filter = Filter { class_name: class.clone(), metadata: entries(metadata) };
                self.list(&filter).await
            }
        }
    }

    async fn save(&self, file: &Path, about: &AboutArgs) -> Outcome<Exit> {
        let object = read_object(file, about)?;
        let id = self.call("saving", self.store.save(&object)).await?;
        self.output.answer(
            &id.to_string(),
            || json!({ "schema": "holdfast.object.save/v1", "id": id.to_string() }),
        );
        Ok(Exit::Done)
    }

    async fn load(&self, id: Id) -> Outcome<Exit> {
        let object = self.call("loading", self.store.load_alone(id)).await?;
        match self.output.format {
            Format::Text => self.output.bytes(&object.body),
            Format::Json | Format::Jsonl => self.output.answer("", || {
                let children: Vec<String> = object.children.iter().map(Id::to_string).collect();
                json!({
                    "schema": "holdfast.object/v1",
                    "id": id.to_string(),
                    "class": object.class_name,
                    "metadata": object.metadata,
                    "children": children,
                    "body": bytes_json(&object.body),
                })
            }),
        }
        Ok(Exit::Done)
    }

    async fn replace(&self, id: Id, file: &Path, about: &AboutArgs) -> Outcome<Exit> {
        let object = read_object(file, about)?;
        self.call("saving", self.store.replace(id, &object)).await?;
        self.output.answer("replaced", || {
            json!({ "schema": "holdfast.object.replace/v1", "id": id.to_string(), "replaced": true })
        });
        Ok(Exit::Done)
    }

    async fn remove(&self, ids: &[Id]) -> Outcome<Exit> {
        for id in ids {
            self.call("removing", self.store.remove(*id)).await?;
        }
        self.output.answer("removed", || {
            let ids: Vec<String> = ids.iter().map(Id::to_string).collect();
            json!({ "schema": "holdfast.object.remove/v1", "ids": ids })
        });
        Ok(Exit::Done)
    }

    async fn list(&self, filter: &Filter) -> Outcome<Exit> {
        let all = self.call("listing", self.store.list_records(filter)).await?;
        let mut rows = table(&["ID", "CLASS", "BYTES", "METADATA"]);
        for listed in &all {
            let metadata = listed.metadata.iter().map(|(name, value)| format!("{name}={value}"));
            let metadata = metadata.collect::<Vec<_>>().join(" ");
            let bytes = listed.body_bytes.to_string();
            rows.add_row([listed.id.to_string(), listed.class_name.clone(), bytes, metadata]);
        }
        self.output.list("holdfast.stored/v1", "objects", &rows, all.iter().map(row).collect());
        Ok(Exit::Done)
    }

    /// Makes a call; shows how far it is, and returns the answer or what people see instead.
    async fn call<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Outcome<T> {
        let store = self.store.clone();
        let waiting = Progress::bytes(self.output, doing, move || store.progress().bytes());
        let answer = call.await;
        drop(waiting);
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => self.explain(error).await,
        }
    }

    async fn explain<T>(&self, error: Error) -> Outcome<T> {
        let what = error.to_string();
        Err(match error {
            Error::Unavailable { source: Some(source), .. } | Error::Refused { source, .. } => {
                return self.connection.ok(Err(*source)).await;
            }
            Error::Load { id, .. } => {
                Failure::new(Code::Absent, format!("there is no object {id}"))
                    .help("list them: holdfast object list")
            }
            Error::UnissuedId { id, .. } => {
                Failure::new(Code::BadRequest, format!("the id {id} was never given out"))
                    .help("save the file as a new object: holdfast object save FILE")
            }
            Error::TooLarge { .. } | Error::Unstorable { .. } => {
                Failure::new(Code::BadRequest, what)
                    .help("correct what is named, and repeat; nothing was sent")
            }
            Error::Damaged { .. } => Failure::new(Code::BadData, what),
            Error::Unavailable { source: None, .. }
            | Error::BrokenOff { .. }
            | Error::NotImplemented { .. }
            | Error::UnknownScheme { .. }
            | Error::BadUri { .. }
            | Error::Cycle { .. }
            | Error::Unsteady { .. }
            | Error::Io { .. } => Failure::bug(what),
        })
    }
}

fn row(listed: &Listed) -> Value {
    json!({
        "id": listed.id.to_string(),
        "class": listed.class_name,
        "bytes": listed.body_bytes,
        "metadata": listed.metadata,
    })
}

fn entries(entries: &[MetadataEntry]) -> BTreeMap<String, String> {
    let pair = |entry: &MetadataEntry| (entry.name.clone(), entry.value.clone());
    entries.iter().map(pair).collect()
}

fn read_object(file: &Path, about: &AboutArgs) -> Outcome<Object> {
    let failed = |error: io::Error| Failure::file("read", file, &error);
    let mut body = Vec::new();
    match file == Path::new("-") {
        true => io::stdin().lock().take(READ_MAX).read_to_end(&mut body).map_err(|error| {
            Failure::new(Code::Usage, "cannot read stdin").cause(error.to_string())
        })?,
        false => {
            let file = File::open(file).map_err(failed)?;
            file.take(READ_MAX).read_to_end(&mut body).map_err(failed)?
        }
    };
    let mut object = Object::new(about.class.as_str(), body);
    object.metadata = entries(&about.metadata);
    Ok(object)
}
