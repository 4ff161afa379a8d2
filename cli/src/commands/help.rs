//! `holdfast help`, `completions` and `version`: what needs no cluster at all.

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use crate::args::Args;
use crate::codes::{Code, Exit};
use crate::errors::{Failure, Outcome};
use crate::output::Output;
use crate::runbook;

/// Explains a command or a code, or with nothing named the whole.
pub(crate) fn help(topic: &[String], output: Output) -> Outcome<Exit> {
    let text = match topic {
        [] => Args::command().render_long_help().ansi().to_string(),
        [code] if Code::from_name(code).is_some() => {
            let code = Code::from_name(code).unwrap_or(Code::Bug);
            runbook::section(code).unwrap_or_default().to_owned()
        }
        words => of_command(words)?,
    };
    output.answer(&text, || {
        let plain = anstream::adapter::strip_str(&text).to_string();
        json!({ "schema": "holdfast.help/v1", "topic": topic.join(" "), "text": plain })
    });
    Ok(Exit::Done)
}

fn of_command(words: &[String]) -> Outcome<String> {
    let mut root = Args::command();
    root.build();
    let mut command = &mut root;
    for word in words {
        match command.find_subcommand_mut(word) {
            Some(found) => command = found,
            None => return Err(unknown_topic(words)),
        }
    }
    Ok(command.render_long_help().ansi().to_string())
}

fn unknown_topic(words: &[String]) -> Failure {
    let topic = words.join(" ");
    let command = Args::command();
    let names = command.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name());
    let known = names.chain(Code::ALL.iter().map(|code| code.name()));
    let failure = Failure::new(Code::Usage, format!("there is no help on {topic}"))
        .cause("it is neither a command nor the code of an error");
    match runbook::nearest(&topic, known) {
        Some(near) => failure.help(format!("did you mean: holdfast help {near}")),
        None => failure.help("holdfast help lists the commands"),
    }
}

/// Prints a completion script.
pub(crate) fn completions(shell: Shell, output: Output) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "holdfast", &mut script);
    let script = String::from_utf8_lossy(&script).trim_end().to_owned();
    output.answer(&script, || {
        json!({
            "schema": "holdfast.completions/v1",
            "shell": shell.to_string(),
            "script": script,
        })
    });
    Exit::Done
}

/// Prints the version.
pub(crate) fn version(output: Output) -> Exit {
    let version = env!("CARGO_PKG_VERSION");
    output.answer(
        &format!("holdfast {version}"),
        || json!({ "schema": "holdfast.version/v1", "version": version }),
    );
    Exit::Done
}

#[cfg(test)]
mod tests {
    //! Help on commands and codes, and on neither.
    use super::*;

    #[test]
    fn commands_at_any_depth_are_explained() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let text = of_command(&words("local kill")).unwrap();
        assert!(text.contains("SIGKILL"), "{text}");
        let failure = of_command(&words("no-qorum")).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert_eq!(failure.help.unwrap(), "did you mean: holdfast help no-quorum");
    }
}
