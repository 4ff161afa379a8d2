//! Ids that were taken from a store and not used yet.

use std::ops::Range;

use super::id::Id;

/// Most blocks that are kept; more come only from many callers that ran out together, and what does not fit
/// is forgone.
const BLOCKS_MAX: usize = 64;

/// What is left of blocks of ids.
#[derive(Debug, Default)]
pub(super) struct IdBlocks {
    blocks: Vec<Range<u64>>,
}

impl IdBlocks {
    /// So many ids, if there are as many in one block.
    pub(super) fn take(&mut self, count: usize) -> Option<Vec<Id>> {
        if count == 0 {
            return Some(Vec::new());
        }
        let wanted = u64::try_from(count).ok()?;
        let place = self.blocks.iter().position(|left| left.end - left.start >= wanted)?;
        let left = &mut self.blocks[place];
        let taken = left.start..left.start + wanted;
        left.start = taken.end;
        if left.is_empty() {
            self.blocks.swap_remove(place);
        }
        Some(ids(taken))
    }

    /// So many ids of a new block, the rest of which is kept.
    pub(super) fn take_of(&mut self, block: Range<u64>, count: usize) -> Vec<Id> {
        let taken = block.start..block.end.min(block.start + wide(count));
        if taken.end < block.end && self.blocks.len() < BLOCKS_MAX {
            self.blocks.push(taken.end..block.end);
        }
        ids(taken)
    }
}

fn ids(range: Range<u64>) -> Vec<Id> {
    range.map(|number| Id::new(number).expect("stores give out ids of 16 digits")).collect()
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(ids: Vec<Id>) -> Vec<u64> {
        ids.into_iter().map(|id| id.get() - Id::LOWEST.get()).collect()
    }

    fn block(range: Range<u64>) -> Range<u64> {
        Id::LOWEST.get() + range.start..Id::LOWEST.get() + range.end
    }

    // P1
    #[test]
    fn no_id_is_taken_twice() {
        let mut blocks = IdBlocks::default();
        assert_eq!(blocks.take(0), Some(Vec::new()));
        assert_eq!(blocks.take(1), None);
        assert_eq!(numbers(blocks.take_of(block(0..4), 1)), [0]);
        assert_eq!(numbers(blocks.take_of(block(10..13), 1)), [10]);
        assert_eq!(numbers(blocks.take(3).unwrap()), [1, 2, 3]);
        assert_eq!(blocks.take(3), None, "not from one block");
        assert_eq!(numbers(blocks.take(2).unwrap()), [11, 12]);
        assert_eq!(blocks.take(1), None);
        assert_eq!(numbers(blocks.take_of(block(20..21), 1)), [20]);
        assert_eq!(blocks.take(1), None);
    }
}
