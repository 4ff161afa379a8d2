//! The feature level: which formats and rules a state may use, so that all voters can read it.
//!
//! A state records the level it is written at. A build knows the levels up to [`KNOWN`]; it keeps to the
//! state's level, even if it knows more, and it must not touch a state above what it knows: it could
//! neither read all rows nor come to the same result as the others.
//!
//! There is one level so far. The command that raises it comes with the first feature that needs a second.

use crate::fault::Fault;

/// The level of a new state.
pub const FIRST: u32 = 1;
/// The highest level that this build can read and apply.
pub const KNOWN: u32 = 1;

/// Faults if a state at `level` is beyond this build.
pub(crate) fn check(level: u32) -> Result<(), Fault> {
    if (FIRST..=KNOWN).contains(&level) {
        Ok(())
    } else {
        Err(Fault::UnknownLevel { level, known: KNOWN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_beyond_this_build_is_a_fault() {
        assert_eq!(check(KNOWN), Ok(()));
        assert_eq!(check(KNOWN + 1), Err(Fault::UnknownLevel { level: 2, known: 1 }));
        assert_eq!(check(0), Err(Fault::UnknownLevel { level: 0, known: 1 }));
    }
}
