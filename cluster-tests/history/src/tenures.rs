//! Leases and fences: who believed to own which change source, and when (C4, C5, M5, S8).
//!
//! # The model
//! A *tenure* is one grant as its owner knew it: from the answer that granted it to the last moment
//! at which the owner took it for its own. That is before it sent the release, or when its lease
//! was over by its own count, which has a margin towards the safe side (M5). The cluster keeps its
//! promise if what owners believe is never wrong: then tenures of one change source do not overlap,
//! and nobody is shown another owner during one.

use std::collections::BTreeMap;

use crate::error::{Error, Rule};

/// A grant of a change source, as its owner knew it. All moments are microseconds on the clock of
/// the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    /// Who.
    pub owner: usize,
    /// The change source.
    pub source: i64,
    /// The token of the grant.
    pub token: u64,
    /// Before the claim was sent for the first time.
    pub asked_us: u64,
    /// When its grant was known.
    pub from_us: u64,
    /// When the owner stopped taking it for its own.
    pub until_us: u64,
}

/// What somebody was told of a change source: by a read, by a claim that came too late, by a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The change source.
    pub source: i64,
    /// The token of its grant; none if nobody owned it.
    pub token: Option<u64>,
    /// The revision that made it so, where that was told.
    pub revision: Option<u64>,
    /// It was so at a moment not before this one, in microseconds on the clock of the history; 0
    /// where that may be long ago.
    pub since_us: u64,
    /// When it was told.
    pub by_us: u64,
}

/// A write that was accepted under a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencedWrite {
    /// The change source of the fence.
    pub source: i64,
    /// The token of the fence.
    pub token: u64,
    /// The revision at which it was accepted.
    pub revision: u64,
}

/// Checks that tenures of one change source do not overlap, and that their tokens rise.
///
/// # Errors
/// [`Rule::FenceRises`] or [`Rule::Exclusive`].
pub fn check_tenures(tenures: &[Tenure]) -> Result<(), Error> {
    for tenures in by_source(tenures).into_values() {
        check_rise(&tenures)?;
        check_apart(tenures)?;
    }
    Ok(())
}

/// Checks that nobody was told that a change source has moved on, or was somebody else's, while its
/// owner believed in it.
///
/// # Errors
/// [`Rule::Held`].
pub fn check_sightings(tenures: &[Tenure], sightings: &[Sighting]) -> Result<(), Error> {
    let by_source = by_source(tenures);
    for sighting in sightings {
        for tenure in by_source.get(&sighting.source).into_iter().flatten() {
            if sighting.by_us >= tenure.until_us {
                continue;
            }
            let moved_on = match (sighting.token, sighting.revision) {
                (Some(token), _) => token > tenure.token,
                (None, Some(revision)) => revision > tenure.token,
                (None, None) => false,
            };
            let is_within = sighting.since_us > tenure.from_us;
            if moved_on || (is_within && sighting.token != Some(tenure.token)) {
                return Err(Error::broken(Rule::Held, format!("{sighting:?} during {tenure:?}")));
            }
        }
    }
    Ok(())
}

/// Checks that every write under a fence was accepted before the next grant of its change source.
///
/// # Errors
/// [`Rule::Fenced`].
pub fn check_fences(tenures: &[Tenure], writes: &[FencedWrite]) -> Result<(), Error> {
    let by_source = by_source(tenures);
    for write in writes {
        let tenures = by_source.get(&write.source).into_iter().flatten();
        let next = tenures.filter(|next| next.token > write.token).min_by_key(|next| next.token);
        let is_late = next.is_some_and(|next| next.token < write.revision);
        if is_late || write.revision < write.token {
            return Err(Error::broken(Rule::Fenced, format!("{write:?}; next was {next:?}")));
        }
    }
    Ok(())
}

fn by_source(tenures: &[Tenure]) -> BTreeMap<i64, Vec<&Tenure>> {
    let mut by_source: BTreeMap<i64, Vec<&Tenure>> = BTreeMap::new();
    for tenure in tenures {
        by_source.entry(tenure.source).or_default().push(tenure);
    }
    by_source
}

/// A grant that was known before another was asked for has the lower token, and no two have one.
fn check_rise(tenures: &[&Tenure]) -> Result<(), Error> {
    let mut by_token = tenures.to_vec();
    by_token.sort_by_key(|tenure| std::cmp::Reverse(tenure.token));
    let mut earliest: Option<&Tenure> = None;
    let mut above: Option<&Tenure> = None;
    for tenure in by_token {
        let twice = above.filter(|above| above.token == tenure.token);
        let fell = earliest.filter(|higher| higher.from_us < tenure.asked_us);
        if let Some(other) = twice.or(fell) {
            return Err(Error::broken(Rule::FenceRises, format!("{other:?}, then {tenure:?}")));
        }
        if earliest.is_none_or(|earliest| tenure.from_us < earliest.from_us) {
            earliest = Some(tenure);
        }
        above = Some(tenure);
    }
    Ok(())
}

fn check_apart(mut tenures: Vec<&Tenure>) -> Result<(), Error> {
    tenures.sort_by_key(|tenure| tenure.from_us);
    let mut last: Option<&Tenure> = None;
    for tenure in tenures {
        if let Some(last) = last.filter(|last| tenure.from_us < last.until_us) {
            return Err(Error::broken(Rule::Exclusive, format!("{last:?} and {tenure:?}")));
        }
        if last.is_none_or(|last| tenure.until_us > last.until_us) {
            last = Some(tenure);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Each rule has a history that keeps it and a lie that is caught.

    use super::*;

    fn tenure(owner: usize, token: u64, from_us: u64, until_us: u64) -> Tenure {
        Tenure { owner, source: 1, token, asked_us: from_us - 5, from_us, until_us }
    }

    fn rule(result: Result<(), Error>) -> Option<Rule> {
        result.err().and_then(|error| error.rule())
    }

    // C4 C5
    #[test]
    fn owners_one_after_the_other_pass() {
        let others = Tenure { source: 2, ..tenure(3, 9, 120, 500) };
        let tenures =
            [tenure(1, 10, 100, 200), tenure(2, 20, 200, 300), tenure(1, 21, 400, 401), others];
        assert_eq!(check_tenures(&tenures), Ok(()));
    }

    // C4 M5
    #[test]
    fn two_owners_at_a_time_are_caught() {
        let tenures = [tenure(1, 10, 100, 200), tenure(2, 20, 199, 300)];
        assert_eq!(rule(check_tenures(&tenures)), Some(Rule::Exclusive));
        // Behind one that came and went within the first.
        let tenures = [tenure(1, 10, 100, 900), tenure(2, 20, 950, 960), tenure(3, 30, 955, 957)];
        assert_eq!(rule(check_tenures(&tenures)), Some(Rule::Exclusive));
    }

    // C5
    #[test]
    fn token_that_falls_or_comes_again_is_caught() {
        let tenures = [tenure(1, 20, 100, 200), tenure(2, 10, 300, 400)];
        assert_eq!(rule(check_tenures(&tenures)), Some(Rule::FenceRises));
        let tenures = [tenure(1, 20, 100, 200), tenure(2, 20, 300, 400)];
        assert_eq!(rule(check_tenures(&tenures)), Some(Rule::FenceRises));
        // Asked for before the other was known: either may have been first.
        let early = Tenure { asked_us: 90, ..tenure(2, 10, 300, 400) };
        assert_eq!(check_tenures(&[tenure(1, 20, 100, 200), early]), Ok(()));
    }

    fn sighting(token: Option<u64>, since_us: u64, by_us: u64) -> Sighting {
        Sighting { source: 1, token, revision: None, since_us, by_us }
    }

    // M5
    #[test]
    fn news_after_the_end_passes_and_during_the_tenure_is_caught() {
        let tenures = [tenure(1, 10, 100, 200)];
        let see = |sighting| rule(check_sightings(&tenures, &[sighting]));
        assert_eq!(see(sighting(Some(10), 110, 120)), None);
        assert_eq!(see(sighting(None, 150, 200)), None);
        assert_eq!(see(sighting(Some(20), 0, 200)), None);
        // Not before the former lease may have ended.
        assert_eq!(see(sighting(Some(20), 0, 199)), Some(Rule::Held));
        let freed = Sighting { revision: Some(12), ..sighting(None, 0, 199) };
        assert_eq!(see(freed), Some(Rule::Held));
        let free_before = Sighting { revision: Some(9), ..sighting(None, 0, 199) };
        assert_eq!(see(free_before), None);
        // A read that began after the grant was known: stale.
        assert_eq!(see(sighting(Some(9), 101, 120)), Some(Rule::Held));
        assert_eq!(see(sighting(None, 101, 120)), Some(Rule::Held));
        assert_eq!(see(sighting(Some(9), 100, 120)), None);
    }

    // S8
    #[test]
    fn write_under_an_old_fence_is_caught() {
        let tenures = [tenure(1, 10, 100, 200), tenure(2, 20, 250, 300)];
        let write = |revision| FencedWrite { source: 1, token: 10, revision };
        assert_eq!(check_fences(&tenures, &[write(11), write(19)]), Ok(()));
        assert_eq!(rule(check_fences(&tenures, &[write(21)])), Some(Rule::Fenced));
        assert_eq!(rule(check_fences(&tenures, &[write(9)])), Some(Rule::Fenced));
    }
}
