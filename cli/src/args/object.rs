//! Flags of `holdfast object`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use holdfast_client::persistence::Id;

use super::CallArgs;

/// `holdfast object`.
#[derive(Debug, Args)]
pub(crate) struct ObjectArgs {
    /// Which cluster, how long and in which namespace.
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: ObjectVerb,
}

/// What can be done to stored objects.
#[derive(Debug, Subcommand)]
pub(crate) enum ObjectVerb {
    /// Save a file as a new object, and print its id
    Save {
        /// The file, at most 64 MiB; - reads stdin
        file: PathBuf,
        /// What it is.
        #[command(flatten)]
        about: AboutArgs,
    },
    /// Write the bytes of an object to stdout; exit 1 if there is none
    Load {
        /// The object
        id: Id,
    },
    /// Save a file in place of an object, or of one that was removed
    Replace {
        /// The object
        id: Id,
        /// The file, at most 64 MiB; - reads stdin
        file: PathBuf,
        /// What it is.
        #[command(flatten)]
        about: AboutArgs,
    },
    /// Remove objects; no error if there are none
    Remove {
        /// The objects
        #[arg(required = true, value_name = "ID")]
        ids: Vec<Id>,
    },
    /// List the objects
    List {
        /// Only those of this class
        #[arg(long)]
        class: Option<String>,
        /// Only those with this metadata; may be given more than once
        #[arg(long = "meta", value_name = "NAME=VALUE")]
        metadata: Vec<Entry>,
    },
}

/// What an object is, without its bytes.
#[derive(Debug, Args)]
pub(crate) struct AboutArgs {
    /// Its class
    #[arg(long, default_value = "file")]
    pub(crate) class: String,
    /// What it can be found by; may be given more than once
    #[arg(long = "meta", value_name = "NAME=VALUE")]
    pub(crate) metadata: Vec<Entry>,
}

/// An entry of metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What stands before the first `=`.
    pub(crate) name: String,
    /// What stands behind it.
    pub(crate) value: String,
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err("write metadata as NAME=VALUE".to_owned()),
        }
    }
}
