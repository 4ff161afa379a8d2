//! Exit codes and error codes: the two contracts that scripts read.
//!
//! Every error that the binary prints carries one [`Code`]: it is a section of the runbook, and it
//! decides the exit code. Invariants:
//! - a code has exactly one exit code, and the exit codes are those of the table in `holdfast help`;
//! - [`Code::ALL`] holds every code, and the runbook has a section for each of them (tested).
//!
//! What it leaves out: the wording of errors, which belongs to whoever reports one.

/// What a run of the command ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or the answer is yes.
    Done,
    /// The answer is no: absent, lost, not the owner.
    No,
    /// The command line or a configuration file is wrong.
    Usage,
    /// No node answered.
    Unreachable,
    /// Nodes answer, but the cluster cannot write.
    CannotWrite,
    /// The cluster refused: a stale fence, a limit, a member that cannot be spared.
    Refused,
    /// Not healthy, but writes work.
    Degraded,
    /// A write was sent and its outcome is not known.
    Unknown,
    /// Data that cannot be used: corrupt, of another cluster, copied.
    BadData,
    /// Something is in the way: a port, a directory, a cluster that is up already.
    InTheWay,
    /// A bug of ours.
    Bug,
    /// Ended by SIGINT.
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::CannotWrite => 4,
            Self::Refused => 5,
            Self::Degraded => 6,
            Self::Unknown => 7,
            Self::BadData => 8,
            Self::InTheWay => 9,
            Self::Bug => 70,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// The exit codes as `holdfast help` prints them.
pub(crate) const EXIT_TABLE: &str = "\
Exit codes:
  0    done, or yes
  1    the answer is no (absent, lost, not the owner)
  2    usage
  3    no node answered
  4    nodes answer, the cluster cannot write
  5    refused (stale fence, limit, a member that cannot be spared)
  6    not healthy (degraded), but writes work
  7    outcome unknown
  8    bad data (corrupt, foreign cluster, copied directory)
  9    in the way (port or directory in use, already up)
  70   bug
  130, 143   ended by a signal";

macro_rules! codes {
    ($($variant:ident $name:literal $exit:ident),* $(,)?) => {
        /// The code of an error: `error[no-quorum]`, and the runbook section of that name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Code { $(#[doc = $name] $variant),* }

        impl Code {
            /// Every code there is, in the order of the runbook.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code as it is printed.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What the process exits with after this error.
            pub(crate) const fn exit(self) -> Exit {
                match self { $(Self::$variant => Exit::$exit),* }
            }
        }
    };
}

codes! {
    Absent "absent" No,
    Claimed "claimed" No,
    NotOwner "not-owner" No,
    LeaseHeld "lease-held" No,
    BeingCreated "being-created" No,
    CommandFailed "command-failed" No,
    InUse "in-use" No,
    NoLocalCluster "no-local-cluster" No,
    NoSuchNode "no-such-node" No,
    NotRunning "not-running" No,
    NoNetwork "no-network" No,
    Usage "usage" Usage,
    BadConfig "bad-config" Usage,
    BadRequest "bad-request" Usage,
    NotJson "not-json" Usage,
    NoClusterHere "no-cluster-here" Usage,
    NoPython "no-python" Usage,
    Unreachable "unreachable" Unreachable,
    NoQuorum "no-quorum" CannotWrite,
    Overloaded "overloaded" CannotWrite,
    NotReady "not-ready" CannotWrite,
    StaleFence "stale-fence" Refused,
    LeaseLost "lease-lost" Refused,
    CreationLost "creation-lost" Refused,
    ImportConflict "import-conflict" Refused,
    SessionExpired "session-expired" Refused,
    QuorumAtRisk "quorum-at-risk" Refused,
    IdUsedBefore "id-used-before" Refused,
    JoinFailed "join-failed" Refused,
    Compacted "compacted" Refused,
    LimitReached "limit-reached" Refused,
    QuotaFull "quota-full" Refused,
    DiskFull "disk-full" Refused,
    Refused "refused" Refused,
    Degraded "degraded" Degraded,
    OutcomeUnknown "outcome-unknown" Unknown,
    ForeignCluster "foreign-cluster" BadData,
    CopiedDirectory "copied-directory" BadData,
    WipedDirectory "wiped-directory" BadData,
    OtherNode "other-node" BadData,
    BadIdentity "bad-identity" BadData,
    NewerFormat "newer-format" BadData,
    StoreDamaged "store-damaged" BadData,
    StoreMissing "store-missing" BadData,
    DiskFailed "disk-failed" BadData,
    BadData "bad-data" BadData,
    BadExport "bad-export" BadData,
    BuildbotDatabase "buildbot-database" BadData,
    NodeFault "node-fault" BadData,
    PortInUse "port-in-use" InTheWay,
    CannotListen "cannot-listen" InTheWay,
    ForeignDirectory "foreign-directory" InTheWay,
    DataDirInUse "data-dir-in-use" InTheWay,
    DataDirUnwritable "data-dir-unwritable" InTheWay,
    SyncNotReal "sync-not-real" InTheWay,
    AlreadyUp "already-up" InTheWay,
    ClusterExists "cluster-exists" InTheWay,
    LocalBusy "local-busy" InTheWay,
    LocalFiles "local-files" InTheWay,
    DemoFailed "demo-failed" Bug,
    Bug "bug" Bug,
}

impl Code {
    /// The code of that name, if we know it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

#[cfg(test)]
mod tests {
    //! The numbers that scripts rely on stay what they are.
    use super::*;

    #[test]
    fn exit_codes_follow_the_table() {
        let expected = [
            (Code::Absent, 1),
            (Code::Claimed, 1),
            (Code::Usage, 2),
            (Code::BadConfig, 2),
            (Code::Unreachable, 3),
            (Code::NoQuorum, 4),
            (Code::StaleFence, 5),
            (Code::Degraded, 6),
            (Code::OutcomeUnknown, 7),
            (Code::ForeignCluster, 8),
            (Code::PortInUse, 9),
            (Code::DataDirInUse, 9),
            (Code::AlreadyUp, 9),
            (Code::Bug, 70),
        ];
        for (code, number) in expected {
            assert_eq!(code.exit().number(), number, "{}", code.name());
        }
        assert_eq!(Exit::Interrupted.number(), 130);
        assert_eq!(Exit::Terminated.number(), 143);
    }

    #[test]
    fn a_code_is_found_by_its_name_and_names_differ() {
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.name()), Some(*code));
        }
        assert_eq!(Code::from_name("no-such-code"), None);
    }
}
