//! The runbook, carried in the binary, so that `holdfast help CODE` works when nothing else does.

use crate::codes::Code;

/// The whole text; its sections are called by the codes.
const RUNBOOK: &str = include_str!("../../docs/runbook.md");

/// The section of a code, heading included; none if it has none, which a test rules out.
pub(crate) fn section(code: Code) -> Option<&'static str> {
    find(RUNBOOK, code.name())
}

fn find(text: &'static str, name: &str) -> Option<&'static str> {
    let heading = format!("## {name}\n");
    let begin = match text.starts_with(&heading) {
        true => 0,
        false => text.find(&format!("\n{heading}"))? + 1,
    };
    let section = &text[begin..];
    let end = section[heading.len()..].find("\n## ").map_or(section.len(), |e| e + heading.len());
    Some(section[..end].trim_end())
}

/// The known name that is nearest to a mistyped one, if any is near.
pub(crate) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    names
        .map(|name| (distance(word, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// How many letters have to be inserted, deleted or replaced to make one word the other
/// (Levenshtein 1966).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    //! Every code that can be printed is explained, and nothing else is.
    use super::*;

    #[test]
    fn every_code_has_a_section_that_says_what_to_do() {
        for code in Code::ALL {
            let section = section(*code).unwrap_or_else(|| panic!("no section {}", code.name()));
            assert!(section.contains("**What to do.**"), "{}", code.name());
            assert!(section.contains("**What it means.**"), "{}", code.name());
            let exit = format!("Exit code {}.", code.exit().number());
            assert!(section.contains(&exit), "{} does not say {exit}", code.name());
        }
    }

    #[test]
    fn every_section_is_a_code() {
        for name in RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ")) {
            assert!(Code::from_name(name).is_some(), "{name} is no code");
        }
    }

    #[test]
    fn a_section_ends_where_the_next_begins() {
        const TEXT: &str = "# x\n\n## a\none\n\n## ab\ntwo\n";
        assert_eq!(find(TEXT, "a"), Some("## a\none"));
        assert_eq!(find(TEXT, "ab"), Some("## ab\ntwo"));
        assert_eq!(find(TEXT, "b"), None);
    }

    #[test]
    fn mistyped_names_are_recognised() {
        let names = || ["no-quorum", "claimed", "heartbeat_ms"].into_iter();
        assert_eq!(nearest("no-qorum", names()), Some("no-quorum"));
        assert_eq!(nearest("hartbeat_ms", names()), Some("heartbeat_ms"));
        assert_eq!(nearest("something", names()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
