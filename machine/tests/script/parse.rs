//! From the words of a script to commands of the state machine.

use std::collections::BTreeMap;
use std::str::FromStr;

use goldenscript::Argument;
use holdfast_machine::changesources::{self, Fence};
use holdfast_machine::objects::{self, Body, Record, Small, Staged};
use holdfast_machine::{
    Bytes, Command, Hash, creators, import, limits, masters, sessions, state, stm,
};

use super::Result;

/// The arguments of a command, in its nth repetition.
pub(super) struct Args {
    words: Vec<String>,
    keys: Vec<(String, String)>,
}

impl Args {
    pub(super) fn new(command: &goldenscript::Command, nth: u64) -> Self {
        let mut args = Args { words: vec![], keys: vec![] };
        for argument in &command.args {
            match argument {
                Argument::Positional(word) => args.words.push(expand(word, nth)),
                Argument::KeyValue(key, value) => {
                    args.keys.push((key.clone(), expand(value, nth)));
                }
                other => panic!("what is argument {other}?"),
            }
        }
        args
    }

    pub(super) fn at(&self, place: usize) -> Result<&str> {
        let missing = || format!("argument {} is missing", place + 1);
        Ok(self.words.get(place).ok_or_else(missing)?)
    }

    pub(super) fn key(&self, name: &str) -> Option<&str> {
        self.keys.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.key(name).map(str::parse).transpose()?)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        Ok(self.key(name).map(str::parse).transpose()?)
    }

    pub(super) fn namespace(&self) -> String {
        self.key("ns").unwrap_or("default").to_owned()
    }

    fn parse<T: FromStr<Err: std::error::Error + 'static>>(&self, place: usize) -> Result<T> {
        Ok(self.at(place)?.parse()?)
    }

    fn text(&self, place: usize) -> Result<String> {
        Ok(self.at(place)?.to_owned())
    }

    fn fence(&self) -> Result<Option<Fence>> {
        let Some(fence) = self.key("fence") else { return Ok(None) };
        let (changesource, token) = fence.split_once('/').ok_or("a fence is SOURCE/TOKEN")?;
        Ok(Some(Fence { changesource: changesource.parse()?, token: token.parse()? }))
    }
}

/// `x.5` is a text of five letters, `_n` is the number of the repetition.
fn expand(word: &str, nth: u64) -> String {
    match word.strip_prefix("x.").and_then(|len| len.parse().ok()) {
        Some(len) => "x".repeat(len),
        None => word.replace("_n", &nth.to_string()),
    }
}

/// The command that a line stands for.
pub(super) fn command(name: &str, args: &Args, session: u64) -> Result<Command> {
    let namespace = args.namespace();
    Ok(match name {
        "open" => Command::Session(sessions::Command::Open {
            idle_ms: args.number("idle")?.unwrap_or(limits::SESSION_IDLE_MS_DEFAULT),
        }),
        "keep" => Command::Session(sessions::Command::Keep {
            session: args.number("session")?.unwrap_or(session),
        }),
        "close" => Command::Session(sessions::Command::Close {
            session: args.number("session")?.unwrap_or(session),
        }),
        "object" | "set" | "create" | "delete" => Command::State(object_state(name, args)?),
        "import" => Command::Import(import::Command { namespace, rows: rows(args)? }),
        "lease_ids" | "save" | "remove" | "upload" | "stage_chunk" | "stage" | "commit_upload"
        | "abandon_upload" => Command::Objects(stored(name, args)?),
        "transact" => Command::Stm(transaction(args)?),
        "ask" | "keep_creating" | "abandon" => Command::Creators(creation(name, args)?),
        "master" | "set_active" | "lease" | "keep_alive" | "keep_within_grace" | "close_lease"
        | "shrink" => Command::Masters(master(name, args)?),
        "source" => Command::ChangeSources(changesources::Command::FindId {
            namespace,
            name: args.text(0)?,
        }),
        "set_master" => Command::ChangeSources(changesources::Command::SetMaster {
            namespace,
            changesource: args.parse(0)?,
            master: if args.at(1)? == "none" { None } else { Some(args.parse(1)?) },
        }),
        "claim" => Command::ChangeSources(changesources::Command::Claim {
            namespace,
            changesource: args.parse(0)?,
            lease: args.parse(1)?,
        }),
        "release" => Command::ChangeSources(changesources::Command::Release {
            namespace,
            changesource: args.parse(0)?,
            token: args.parse(1)?,
        }),
        "await" => Command::ChangeSources(changesources::Command::Await {
            namespace,
            changesource: args.parse(0)?,
            lease: args.parse(1)?,
        }),
        "group" => Command::ChangeSources(changesources::Command::SetGroup {
            namespace,
            changesource: args.parse(0)?,
            group: if args.at(1)? == "none" { None } else { Some(args.text(1)?) },
        }),
        "stop_awaiting" => Command::ChangeSources(changesources::Command::StopAwaiting {
            namespace,
            changesource: args.parse(0)?,
            lease: args.parse(1)?,
        }),
        _ => return Err(format!("there is no command {name}").into()),
    })
}

fn master(name: &str, args: &Args) -> Result<masters::Command> {
    let namespace = args.namespace();
    Ok(match name {
        "master" => masters::Command::FindId { namespace, name: args.text(0)? },
        "set_active" => {
            masters::Command::SetState { namespace, master: args.parse(0)?, active: args.parse(1)? }
        }
        "lease" => masters::Command::OpenLease {
            namespace,
            name: args.text(0)?,
            instance: instance(args.at(1)?),
            ttl_ms: args.parse(2)?,
            grace_ms: args.number("grace")?.unwrap_or(0),
        },
        "keep_alive" => masters::Command::KeepAlive { namespace, lease: args.parse(0)? },
        "keep_within_grace" => {
            masters::Command::KeepWithinGrace { namespace, lease: args.parse(0)? }
        }
        "close_lease" => masters::Command::CloseLease { namespace, lease: args.parse(0)? },
        "shrink" => {
            let (lease, renewal) = (args.parse(0)?, args.parse(1)?);
            masters::Command::ShrinkLease { namespace, lease, renewal }
        }
        _ => return Err(format!("there is no command {name}").into()),
    })
}

fn object_state(name: &str, args: &Args) -> Result<state::Command> {
    let namespace = args.namespace();
    if name == "object" {
        let (name, class_name) = (args.text(0)?, args.text(1)?);
        return Ok(state::Command::GetObjectId { namespace, name, class_name });
    }
    let (object, key, fence) = (args.parse(0)?, args.text(1)?, args.fence()?);
    if name == "delete" {
        return Ok(state::Command::Delete { namespace, object, name: key, fence });
    }
    let value = args.at(2)?.as_bytes().into();
    if name == "create" {
        let token = args.number("token")?;
        return Ok(state::Command::Create { namespace, object, name: key, value, fence, token });
    }
    let (if_revision, noted_revision) = (args.number("if")?, args.number("note")?);
    Ok(state::Command::Set {
        namespace,
        object,
        name: key,
        value,
        if_revision,
        fence,
        noted_revision,
    })
}

fn rows(args: &Args) -> Result<Vec<import::Row>> {
    args.words.iter().map(|word| row(word)).collect()
}

/// `master/1/name`, `source/1/name[/group]`, `object/1/name/class`, `item/1/key/value`.
fn row(word: &str) -> Result<import::Row> {
    let parts: Vec<&str> = word.split('/').collect();
    let (kind, id, name) = match parts[..] {
        [kind, id, name, ..] => (kind, id.parse()?, expand(name, 1)),
        _ => return Err(format!("a row is KIND/ID/NAME, not {word}").into()),
    };
    let last = parts.get(3).map(|text| expand(text, 1));
    let required = || last.clone().ok_or_else(|| format!("{word} has too few parts"));
    Ok(match kind {
        "master" => import::Row::Master { id, name, last_active_ms: 7 },
        "source" => import::Row::ChangeSource { id, name, group: last },
        "object" => import::Row::Object { id, name, class_name: required()? },
        "item" => import::Row::Item { object: id, name, value: required()?.into_bytes().into() },
        _ => return Err(format!("there is no row {kind}").into()),
    })
}

/// `if/KEY/VERSION[/REVISION]`, `put/KEY/VALUE[/CODEC]`, `delete/KEY`.
fn transaction(args: &Args) -> Result<stm::Command> {
    let mut command =
        stm::Command { namespace: args.namespace(), comparisons: Vec::new(), writes: Vec::new() };
    for word in &args.words {
        let parts: Vec<&str> = word.split('/').collect();
        let key = expand(parts.get(1).ok_or("a part of a transaction names a key")?, 1);
        let key = key.into_bytes().into();
        match parts[..] {
            ["if", _, version] => command.comparisons.push(stm::Comparison {
                key,
                version: version.parse()?,
                mod_revision: None,
            }),
            ["if", _, version, revision] => command.comparisons.push(stm::Comparison {
                key,
                version: version.parse()?,
                mod_revision: Some(revision.parse()?),
            }),
            ["put", _, value, ref codec @ ..] => command.writes.push(stm::Write::Put {
                key,
                codec: match codec {
                    [] | ["bytes"] => stm::Codec::Bytes,
                    ["json"] => stm::Codec::Json,
                    ["pickle"] => stm::Codec::Pickle,
                    _ => return Err(format!("there is no codec in {word}").into()),
                },
                value: expand(value, 1).into_bytes().into(),
            }),
            ["delete", _] => command.writes.push(stm::Write::Delete { key }),
            _ => return Err(format!("a transaction has no part {word}").into()),
        }
    }
    Ok(command)
}

fn creation(name: &str, args: &Args) -> Result<creators::Command> {
    let (namespace, object, key) = (args.namespace(), args.parse(0)?, args.text(1)?);
    Ok(match name {
        "ask" => creators::Command::Ask {
            namespace,
            object,
            name: key,
            ttl_ms: args.number("ttl")?.unwrap_or(limits::CREATE_TTL_MS_DEFAULT),
            wait_ms: args.number("wait")?.unwrap_or(limits::CREATE_WAIT_MS_DEFAULT),
        },
        "keep_creating" => {
            creators::Command::Keep { namespace, object, name: key, token: args.parse(2)? }
        }
        _ => creators::Command::Abandon { namespace, object, name: key, token: args.parse(2)? },
    })
}

fn stored(name: &str, args: &Args) -> Result<objects::Command> {
    let namespace = args.namespace();
    if name == "lease_ids" {
        return Ok(objects::Command::LeaseIds { namespace, count: args.parse(0)? });
    }
    if name == "upload" {
        let idle_ms = args.number("idle")?.unwrap_or(limits::UPLOAD_IDLE_MS_DEFAULT);
        return Ok(objects::Command::OpenUpload { namespace, idle_ms });
    }
    if name == "remove" {
        let ids = args.words.iter().map(|word| id(word)).collect::<Result<_>>()?;
        return Ok(objects::Command::Remove { namespace, ids });
    }
    if name == "save" {
        let small = |word: &String| {
            let (record, body) = object(word, args)?;
            Ok(Small { record, body: bytes(&body) })
        };
        let objects = args.words.iter().map(small).collect::<Result<_>>()?;
        return Ok(objects::Command::Save { namespace, objects });
    }
    let upload = args.parse(0)?;
    Ok(match name {
        "stage_chunk" => {
            objects::Command::StageChunk { namespace, upload, bytes: bytes(args.at(1)?) }
        }
        "stage" => {
            let staged = |word: &String| {
                let (record, body) = object(word, args)?;
                let body = match body.strip_prefix('@') {
                    Some(chunks) => Body::Chunks(chunks.split('/').map(hash).collect()),
                    None => Body::Inline(bytes(&body)),
                };
                Ok(Staged { record, body })
            };
            let objects = args.words[1..].iter().map(staged).collect::<Result<_>>()?;
            objects::Command::StageObjects { namespace, upload, objects }
        }
        "commit_upload" => {
            objects::Command::CommitUpload { namespace, upload, objects: args.parse(1)? }
        }
        _ => objects::Command::AbandonUpload { namespace, upload },
    })
}

/// `ID/BODY`, of the class and with the metadata that the arguments name.
fn object(word: &str, args: &Args) -> Result<(Record, String)> {
    let (number, body) = word.split_once('/').ok_or("an object is ID/BODY")?;
    let class_name = args.key("class").map_or("Job".to_owned(), |name| expand(name, 1));
    let metadata = metadata(args).into_iter();
    let metadata = metadata.map(|(name, value)| (expand(&name, 1), expand(&value, 1))).collect();
    Ok((Record { id: id(number)?, class_name, metadata }, body.to_owned()))
}

/// `NAME/VALUE/NAME/VALUE`.
pub(super) fn metadata(args: &Args) -> BTreeMap<String, String> {
    let parts: Vec<_> = args.key("meta").into_iter().flat_map(|text| text.split('/')).collect();
    parts.chunks(2).map(|pair| (pair[0].to_owned(), pair[1..].concat())).collect()
}

/// Ids are written as their distance from the first.
pub(super) fn id(number: &str) -> Result<u64> {
    Ok(limits::OBJECT_ID_FIRST.checked_add_signed(number.parse()?).ok_or("an id is a number")?)
}

fn bytes(text: &str) -> Bytes {
    expand(text, 1).into_bytes().into()
}

/// The hash of a chunk that is written as its bytes.
fn hash(text: &str) -> Hash {
    Hash::of(expand(text, 1).as_bytes())
}

/// What the cluster is told of an instance's secret.
fn instance(name: &str) -> [u8; 32] {
    *blake3::hash(name.as_bytes()).as_bytes()
}
