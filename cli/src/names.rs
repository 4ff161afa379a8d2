//! Names as the command line spells them: nodes, objects, fences, local clusters.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A node: `n2`, `2`, or whoever leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeRef {
    /// The leader at the time of the call.
    Leader,
    /// The node of that id.
    Id(u64),
}

impl FromStr for NodeRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "leader" {
            return Ok(Self::Leader);
        }
        match text.strip_prefix('n').unwrap_or(text).parse() {
            Ok(id) if id > 0 => Ok(Self::Id(id)),
            _ => Err("write a node as n2, or leader".to_owned()),
        }
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("leader"),
            Self::Id(id) => f.write_str(&node_name(*id)),
        }
    }
}

/// A node id as people read it.
pub(crate) fn node_name(id: u64) -> String {
    format!("n{id}")
}

/// An object: `class/name`, or `name` in the class `cli`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectName {
    /// The class; `cli` if it was left out.
    pub(crate) class: String,
    /// The name; may hold further slashes.
    pub(crate) name: String,
}

impl FromStr for ObjectName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (class, name) = text.split_once('/').unwrap_or(("cli", text));
        Ok(Self { class: class.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.class, self.name)
    }
}

/// A claim of a change source: its name and the fence that was granted with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FenceRef {
    /// The change source; may hold colons.
    pub(crate) changesource: String,
    /// The fencing token.
    pub(crate) token: u64,
}

impl FromStr for FenceRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = || "write a fence as git-main:12".to_owned();
        let (changesource, token) = text.rsplit_once(':').ok_or_else(wanted)?;
        let token = token.parse().map_err(|_| wanted())?;
        Ok(Self { changesource: changesource.to_owned(), token })
    }
}

/// The name of a local cluster; a directory is called by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalName(String);

impl LocalName {
    /// Longest name, in bytes; a directory name must stay well below 255.
    const BYTES_MAX: usize = 64;

    /// The name of the cluster that is meant when none is named.
    pub(crate) fn default_name() -> Self {
        Self("default".to_owned())
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the cluster that is meant when none is named.
    pub(crate) fn is_default(&self) -> bool {
        self.0 == "default"
    }
}

impl FromStr for LocalName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > Self::BYTES_MAX {
            return Err(format!("{} bytes, 1 to {} are allowed", text.len(), Self::BYTES_MAX));
        }
        if text.starts_with('.') || !text.chars().all(plain) {
            return Err("use letters, digits, dashes, underscores and inner dots".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LocalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    //! How names are spelt, and what is refused.
    use super::*;

    #[test]
    fn nodes() {
        assert_eq!("leader".parse(), Ok(NodeRef::Leader));
        assert_eq!("n2".parse(), Ok(NodeRef::Id(2)));
        assert_eq!("2".parse(), Ok(NodeRef::Id(2)));
        for wrong in ["", "n", "n0", "nn2", "-1", "follower"] {
            assert!(wrong.parse::<NodeRef>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn objects_have_the_class_cli_if_it_is_left_out() {
        let spelt = |text: &str| text.parse::<ObjectName>().unwrap().to_string();
        assert_eq!(spelt("demo"), "cli/demo");
        assert_eq!(spelt("poller/git-main"), "poller/git-main");
        assert_eq!(spelt("poller/a/b"), "poller/a/b");
    }

    #[test]
    fn fences() {
        let fence = "git:main:12".parse::<FenceRef>().unwrap();
        assert_eq!((fence.changesource.as_str(), fence.token), ("git:main", 12));
        assert!("git-main".parse::<FenceRef>().is_err());
        assert!("git-main:x".parse::<FenceRef>().is_err());
    }

    #[test]
    fn local_names_cannot_leave_their_directory() {
        assert!("a.b-c_1".parse::<LocalName>().is_ok());
        for wrong in ["", ".", "..", "a/b", ".hidden", "a b"] {
            assert!(wrong.parse::<LocalName>().is_err(), "{wrong}");
        }
        assert!("x".repeat(64).parse::<LocalName>().is_ok());
        assert!("x".repeat(65).parse::<LocalName>().is_err());
    }
}
