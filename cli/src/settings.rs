//! Every setting of a node that a configuration file can hold: the one list.
//!
//! What a setting means, and which flag and variable set it, stands in the definition of the command
//! line; what it may be, in [`Config::validate`]. This list joins them to the settled value. The
//! known keys of a file, `config show` and the example configuration follow from it, and tests hold
//! it, the command line and the file to the same keys.

use std::fmt::{Display, Write as _};

use clap::{Arg, CommandFactory as _};
use holdfast_node::config::{Config, Start};

use crate::args::Args;

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// As the file spells it; its flag has dashes instead of underscores.
    pub(crate) key: &'static str,
    /// What it must be, beyond its type; empty if that is all.
    bound: &'static str,
    /// What the example file shows if there is no default.
    example: &'static str,
    /// Its value as the file would have it; none if it is not set.
    pub(crate) value: fn(&Config) -> Option<String>,
}

/// All of them, in the order of the command line.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: "data_dir",
        bound: "one process at a time",
        example: "\"/var/lib/holdfast\"",
        value: |config| Some(quoted(config.data_dir.display())),
    },
    Setting {
        key: "client_addr",
        bound: "",
        example: "",
        value: |config| Some(quoted(config.client_addr)),
    },
    Setting {
        key: "peer_addr",
        bound: "",
        example: "",
        value: |config| Some(quoted(config.peer_addr)),
    },
    Setting {
        key: "advertise_client",
        bound: "needed if client_addr listens everywhere",
        example: "\"node1.example:7480\"",
        value: |config| config.advertise_client.as_ref().map(quoted),
    },
    Setting {
        key: "advertise_peer",
        bound: "needed if peer_addr listens everywhere",
        example: "\"node1.example:7481\"",
        value: |config| config.advertise_peer.as_ref().map(quoted),
    },
    Setting {
        key: "peer_source_addr",
        bound: "an address of this machine",
        example: "\"192.0.2.1\"",
        value: |config| config.peer_source_addr.map(quoted),
    },
    Setting {
        key: "node_id",
        bound: "1 or more",
        example: "1",
        value: |config| config.node_id.map(|id| id.to_string()),
    },
    Setting {
        key: "join",
        bound: "",
        example: "[\"node2.example:7480\", \"node3.example:7480\"]",
        value: |config| match &config.start {
            Start::Join(endpoints) => {
                let quoted: Vec<String> = endpoints.iter().map(quoted).collect();
                Some(format!("[{}]", quoted.join(", ")))
            }
            Start::Existing | Start::Form => None,
        },
    },
    Setting {
        key: "heartbeat_ms",
        bound: "1 or more",
        example: "",
        value: |config| Some(config.heartbeat_ms.to_string()),
    },
    Setting {
        key: "election_min_ms",
        bound: "more than twice heartbeat_ms",
        example: "",
        value: |config| Some(config.election_min_ms.to_string()),
    },
    Setting {
        key: "election_max_ms",
        bound: "more than election_min_ms",
        example: "",
        value: |config| Some(config.election_max_ms.to_string()),
    },
    Setting {
        key: "snapshot_every_entries",
        bound: "1 or more",
        example: "",
        value: |config| Some(config.snapshot_every_entries.to_string()),
    },
    Setting {
        key: "log_keep_entries",
        bound: "",
        example: "",
        value: |config| Some(config.log_keep_entries.to_string()),
    },
    Setting {
        key: "quota_bytes",
        bound: "1048576 or more",
        example: "",
        value: |config| Some(config.quota_bytes.to_string()),
    },
    Setting {
        key: "disk_floor_bytes",
        bound: "67108864 or more, or 0 for none",
        example: "",
        value: |config| Some(config.disk_floor_bytes.to_string()),
    },
    Setting {
        key: "log_format",
        bound: "text or json",
        example: "",
        value: |config| Some(quoted(config.log_format.name())),
    },
];

/// The keys of a configuration file.
pub(crate) fn keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.key)
}

impl Setting {
    /// Its flag, with help and variable, as `serve` has it.
    pub(crate) fn arg(&self) -> Option<Arg> {
        let command = Args::command();
        let serve = command.find_subcommand("serve")?;
        serve.get_arguments().find(|arg| arg.get_id() == self.key).cloned()
    }

    /// The variable of the environment that sets it.
    pub(crate) fn variable(&self) -> Option<String> {
        let arg = self.arg()?;
        arg.get_env().map(|name| name.to_string_lossy().into_owned())
    }
}

/// A commented configuration file with every setting: what it means, its unit, its default and what
/// it must be. Nothing in it is set: each line shows the default, or an example if there is none.
pub(crate) fn example() -> String {
    let defaults = Config::new("");
    let mut text = "# Settings of a Holdfast node: holdfast serve --config FILE.\n\
                    # Every line is the default, or an example where there is none; to set one, take \
                    away its #.\n\
                    # A flag beats the variable of the environment, which beats this file.\n\
                    # Written by holdfast config example.\n"
        .to_owned();
    for setting in SETTINGS {
        let arg = setting.arg();
        let help = arg.as_ref().and_then(Arg::get_help).map(ToString::to_string);
        let mut names = vec![format!("--{}", setting.key.replace('_', "-"))];
        names.extend(setting.variable());
        let bound = match setting.bound {
            "" => String::new(),
            bound => format!("; {bound}"),
        };
        let default = Some(setting.example.to_owned()).filter(|example| !example.is_empty());
        let shown = default.or_else(|| (setting.value)(&defaults)).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n# {}{bound}.\n# {}\n#{} = {shown}\n",
            help.unwrap_or_default(),
            names.join(", "),
            setting.key,
        );
    }
    text
}

/// A string as toml writes it.
fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

#[cfg(test)]
mod tests {
    //! One list: the command line, the file and the example have the same settings.
    use super::*;
    use crate::config_file::ConfigFile;

    /// Acts of the moment, and where the file itself is; they stay on the command line.
    const NOT_IN_FILE: &[&str] = &["config", "form", "moved", "help", "output"];

    #[test]
    fn every_flag_of_serve_is_a_setting_or_an_act() {
        let command = Args::command();
        let serve = command.find_subcommand("serve").unwrap();
        let flags = serve.get_arguments().filter(|arg| !arg.is_hide_set());
        let flags: Vec<&str> = flags.map(|arg| arg.get_id().as_str()).collect();
        let expected: Vec<&str> = keys().collect();
        let in_file: Vec<&str> =
            flags.into_iter().filter(|flag| !NOT_IN_FILE.contains(flag)).collect();
        assert_eq!(in_file, expected, "add what is missing to SETTINGS");
        for setting in SETTINGS {
            assert!(setting.variable().is_some(), "{} has no variable", setting.key);
        }
    }

    /// The example with every line set.
    fn all_set() -> String {
        let set = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
            _ => line.to_owned(),
        };
        example().lines().map(set).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_parses_as_it_is_and_with_every_line_set() {
        assert_eq!(toml::from_str::<ConfigFile>(&example()).unwrap(), ConfigFile::default());
        let file: ConfigFile = toml::from_str(&all_set()).unwrap();
        let set: Vec<String> = file.keys().into_iter().collect();
        let mut expected: Vec<&str> = keys().collect();
        expected.sort_unstable();
        assert_eq!(set, expected);
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let file: ConfigFile = toml::from_str(&all_set()).unwrap();
        let defaults = Config::new("/var/lib/holdfast");
        let settled = crate::serve::settle(&crate::args::ServeArgs::default(), file).unwrap();
        for setting in SETTINGS.iter().filter(|setting| setting.example.is_empty()) {
            assert_eq!((setting.value)(&settled), (setting.value)(&defaults), "{}", setting.key);
        }
    }

    #[test]
    fn the_example_in_the_documentation_is_this_one() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/holdfast.toml");
        if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            std::fs::write(&path, example()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written, example(), "holdfast config example > docs/holdfast.toml");
    }
}
