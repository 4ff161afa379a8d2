//! What is said of a command line that does not parse: clap's findings, in our three parts.

use clap::error::{ContextKind, ErrorKind};

use crate::codes::{Code, Exit};
use crate::errors::Failure;
use crate::output::{Output, print_line};

/// Prints what clap has to say, be it an error or the help that was asked for.
pub(crate) fn report(error: &clap::Error, output: Output) -> Exit {
    let kind = error.kind();
    if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        print_line(error.render().ansi().to_string().trim_end());
        return Exit::Done;
    }
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output.note(error.render().ansi().to_string().trim_end());
    } else {
        output.failure(&failure(error));
    }
    Exit::Usage
}

/// An error of the command line as people see it.
fn failure(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let what = first.strip_prefix("error: ").unwrap_or(first);
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    let tips: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).collect();
    let mut failure = Failure::new(Code::Usage, what);
    if !tips.is_empty() {
        failure.cause = Some(tips.join("; "));
    }
    let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    let usage = usage.trim().strip_prefix("Usage: ").unwrap_or("holdfast help").to_owned();
    let words: Vec<&str> = usage.split_whitespace().collect();
    let is_verb = |word: &&&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    let verbs: Vec<&str> = words.iter().skip(1).take_while(is_verb).copied().collect();
    let topic = ["holdfast", "help"].into_iter().chain(verbs).collect::<Vec<_>>().join(" ");
    failure.help(format!("{}; all of it: {topic}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    //! Wrong command lines are answered in three parts, and with exit code 2.
    use super::*;
    use clap::Parser as _;

    fn said(line: &str) -> String {
        let error = crate::args::Args::try_parse_from(line.split(' ')).unwrap_err();
        anstream::adapter::strip_str(&failure(&error).to_text()).to_string()
    }

    #[test]
    fn a_mistyped_verb() {
        assert_eq!(
            said("holdfast memberss"),
            "error[usage]: unrecognized subcommand 'memberss'\n  cause: a similar subcommand exists: \
             'members'\n   help: holdfast [OPTIONS] <COMMAND>; all of it: holdfast help"
        );
    }

    #[test]
    fn a_missing_argument() {
        let said = said("holdfast local kill");
        assert!(said.starts_with("error[usage]: the following required arguments"), "{said}");
        assert!(said.contains("all of it: holdfast help local kill"), "{said}");
    }

    #[test]
    fn a_bad_value() {
        let said = said("holdfast local kill nobody");
        assert!(said.contains("write a node as n2, or leader"), "{said}");
    }
}
