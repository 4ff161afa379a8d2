//! `holdfast config`: what a node would be told with these flags, this environment and this file,
//! and where each setting comes from.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _};
use holdfast_node::config::Config;
use serde_json::{Value, json};

use crate::args::{Args, ConfigArgs, ConfigVerb, ServeArgs};
use crate::codes::Exit;
use crate::config_file::{self, ConfigFile};
use crate::errors::{Failure, Outcome};
use crate::output::{Output, print_line};
use crate::serve::settle;
use crate::settings::{self, SETTINGS, Setting};

/// Carries out `holdfast config …`.
pub(crate) fn run(args: &ConfigArgs, output: Output) -> Outcome<Exit> {
    match &args.verb {
        ConfigVerb::Example => print_line(settings::example().trim_end()),
        ConfigVerb::Show { serve, origin } => {
            let shown = shown(serve, std::env::args_os().collect())?;
            let lines: Vec<String> = shown.iter().map(|line| line.text(*origin)).collect();
            output.answer(&lines.join("\n"), || {
                json!({
                    "schema": "holdfast.config/v1",
                    "settings": shown.iter().map(Shown::json).collect::<Vec<_>>(),
                })
            });
        }
    }
    Ok(Exit::Done)
}

/// Where a setting comes from, the strongest first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Flag,
    /// The variable.
    Environment(String),
    /// The file.
    File(String),
    Default,
}

/// A setting with its value.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    key: &'static str,
    /// None if it is not set and has no default.
    value: Option<String>,
    origin: Origin,
}

/// All settings of a node that is started with these flags.
fn shown(serve: &ServeArgs, words: Vec<OsString>) -> Outcome<Vec<Shown>> {
    let file = match &serve.config {
        Some(path) => config_file::load(path)?,
        None => ConfigFile::default(),
    };
    let file_keys = file.keys();
    let config = settle(serve, file)?;
    // The same words have been parsed before; only clap knows from where each value came.
    let matches = Args::command()
        .try_get_matches_from(words)
        .map_err(|error| Failure::bug(format!("the command line does not parse: {error}")))?;
    let matches = matches.subcommand().and_then(|(_, config)| config.subcommand());
    let (_, matches) = matches.ok_or_else(|| Failure::bug("config show is no subcommand"))?;
    let path = serve.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    Ok(SETTINGS.iter().map(|setting| show(setting, &config, matches, &file_keys, &path)).collect())
}

fn show(
    setting: &Setting,
    config: &Config,
    matches: &ArgMatches,
    file_keys: &BTreeSet<String>,
    path: &str,
) -> Shown {
    let origin = match matches.value_source(setting.key) {
        Some(ValueSource::CommandLine) => Origin::Flag,
        Some(ValueSource::EnvVariable) => {
            Origin::Environment(setting.variable().unwrap_or_default())
        }
        _ if file_keys.contains(setting.key) => Origin::File(path.to_owned()),
        _ => Origin::Default,
    };
    Shown { key: setting.key, value: (setting.value)(config), origin }
}

impl Shown {
    /// A line of a configuration file.
    fn text(&self, with_origin: bool) -> String {
        let line = match &self.value {
            Some(value) => format!("{} = {value}", self.key),
            None => format!("#{} is not set", self.key),
        };
        match with_origin {
            false => line,
            true => format!("{line:<48} # {}", self.origin.text()),
        }
    }

    fn json(&self) -> Value {
        let (origin, source) = match &self.origin {
            Origin::Flag => ("flag", Some(format!("--{}", self.key.replace('_', "-")))),
            Origin::Environment(variable) => ("environment", Some(variable.clone())),
            Origin::File(path) => ("file", Some(path.clone())),
            Origin::Default => ("default", None),
        };
        let value = self.value.as_deref().map(value_json);
        json!({ "key": self.key, "value": value, "origin": origin, "source": source })
    }
}

/// A value as JSON has it; 64-bit numbers are strings there.
fn value_json(value: &str) -> Value {
    let line = toml::from_str::<toml::Table>(&format!("value = {value}"));
    let parsed = line.ok().and_then(|mut line| line.remove("value"));
    match parsed.map(serde_json::to_value) {
        Some(Ok(Value::Number(number))) => json!(number.to_string()),
        Some(Ok(value)) => value,
        Some(Err(_)) | None => json!(value),
    }
}

impl Origin {
    fn text(&self) -> String {
        match self {
            Self::Flag => "flag".to_owned(),
            Self::Environment(variable) => format!("environment, {variable}"),
            Self::File(path) => format!("file, {path}"),
            Self::Default => "default".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Where settings are said to come from, and that what is shown is a file again.
    use super::*;
    use clap::Parser as _;

    fn shown_for(line: &str) -> Vec<Shown> {
        let words: Vec<&str> = line.split(' ').collect();
        let args = Args::try_parse_from(&words).unwrap();
        let crate::args::Command::Config(config) = args.command else { panic!("{line}") };
        let ConfigVerb::Show { serve, .. } = config.verb else { panic!("{line}") };
        shown(&serve, words.iter().map(OsString::from).collect()).unwrap()
    }

    fn origin(shown: &[Shown], key: &str) -> Origin {
        shown.iter().find(|shown| shown.key == key).unwrap().origin.clone()
    }

    #[test]
    fn each_setting_says_where_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("holdfast.toml");
        std::fs::write(&path, "heartbeat_ms = 60\nelection_min_ms = 200\n").unwrap();
        let path = path.display();
        let shown = shown_for(&format!(
            "holdfast config show --origin --config {path} --data-dir /d --heartbeat-ms 70"
        ));
        assert_eq!(origin(&shown, "data_dir"), Origin::Flag);
        assert_eq!(origin(&shown, "heartbeat_ms"), Origin::Flag, "it beats the file");
        assert_eq!(origin(&shown, "election_min_ms"), Origin::File(path.to_string()));
        assert_eq!(origin(&shown, "election_max_ms"), Origin::Default);
        let text: Vec<String> = shown.iter().map(|line| line.text(true)).collect();
        let text = text.join("\n");
        let line = format!("election_min_ms = 200{}# file, {path}", " ".repeat(28));
        assert!(text.contains(&line), "{text}");
        assert!(text.contains("heartbeat_ms = 70"), "{text}");
        assert!(text.contains("#node_id is not set"), "{text}");
        let again: ConfigFile = toml::from_str(&text).unwrap();
        assert_eq!(again.heartbeat_ms, Some(70));
    }

    #[test]
    fn json_names_the_source() {
        let shown = shown_for("holdfast config show --data-dir /d");
        assert_eq!(
            shown[0].json().to_string(),
            r#"{"key":"data_dir","origin":"flag","source":"--data-dir","value":"/d"}"#
        );
        let heartbeat = shown.iter().find(|shown| shown.key == "heartbeat_ms").unwrap().json();
        assert_eq!((&heartbeat["value"], &heartbeat["source"]), (&json!("50"), &Value::Null));
        assert_eq!(value_json("[\"a:1\"]"), json!(["a:1"]));
        let by_variable = Shown {
            key: "node_id",
            value: Some("2".to_owned()),
            origin: Origin::Environment("HOLDFAST_NODE_ID".to_owned()),
        };
        assert_eq!(by_variable.json()["source"], "HOLDFAST_NODE_ID");
        assert!(by_variable.text(true).ends_with("# environment, HOLDFAST_NODE_ID"));
    }
}
