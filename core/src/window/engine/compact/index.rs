//! The index finds the place of a key. It uses open addressing in lines of 64 bytes, so that a look-up is one cache miss.
//!
//! A line holds ten places. Beside each place it holds 16 bits of the key's hash, the *mark*. The mark also says which line is
//! the key's *home*. A key whose home is full goes to the next line that has room. Each full line that it passes on the way
//! counts it in `passed`. A look-up goes on to the next line only if the count of the present line is not zero. Four look-ups
//! in five end at home.
//!
//! A removal counts down. When a place becomes free, the nearest entry that passed this line moves back into it. There are no
//! tombstones, and churn never makes the table grow or slow down. A line that was passed is always full.
//!
//! The lines are divided into segments. A segment grows by an eighth when it is 85 % full. The mark is enough to find the new
//! home, so growing copies one piece of memory of about 40 KB to another (at 10,000,000 ids) and reads no slot. No operation
//! ever stops for the whole table. A segment that grows is between 75 % and 85 % full.
//!
//! ADR 3 says why this is not `hashbrown`.

/// Places in a line.
const PLACES: usize = 10;
/// Marks in a word.
const LANES: usize = 4;
/// How full a segment may be, in percent, and how empty before it is made smaller.
const FULL: usize = 85;
const SPARSE: usize = 40;
/// How full a segment is after it was made smaller, in percent.
const SMALLER: usize = 70;
/// How full a segment is after [`Index::tighten`], in percent: it does not grow again at once.
const TIGHT: usize = 80;
/// The place of a lane that is free.
pub(super) const NOTHING: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line {
    /// The marks of the first eight lanes, four in a word, the first one lowest. A word is compared in one step.
    marks: [u64; 2],
    /// The marks of the last two lanes.
    last_marks: u32,
    /// How many keys passed this line because it was full: their home is here or before, and their place is behind.
    passed: u32,
    places: [u32; PLACES],
}

impl Line {
    const EMPTY: Line = Line { marks: [0; 2], last_marks: 0, passed: 0, places: [NOTHING; PLACES] };

    /// Returns a bit for each lane with this mark, see [`lane`]. Lanes above the first match may be reported by mistake, so the
    /// caller has to look at the key in the slot.
    #[inline]
    fn lanes(&self, mark: u16) -> u64 {
        const ONES: u64 = u64::MAX / 0xffff;
        let [first, second] = self.marks;
        let mut lanes = 0;
        for (word, marks) in [first, second, self.last_marks.into()].into_iter().enumerate() {
            // Sets the highest bit of each lane whose difference is zero.
            let differences = marks ^ (u64::from(mark) * ONES);
            lanes |= (differences.wrapping_sub(ONES) & !differences & (ONES << 15)) >> word;
        }
        lanes
    }

    /// Returns the lane that has this mark and whose place fits.
    #[inline]
    fn find(&self, mark: u16, fits: &impl Fn(u32) -> bool) -> Option<usize> {
        let mut lanes = self.lanes(mark);
        while lanes != 0 {
            let place = self.place(lanes);
            if place != NOTHING && fits(place) {
                return Some(lane(lanes));
            }
            lanes &= lanes - 1;
        }
        None
    }

    /// Returns the place at the lowest of these lanes, [`NOTHING`] if there is none.
    #[inline]
    fn place(&self, lanes: u64) -> u32 {
        self.places.get(lane(lanes)).copied().unwrap_or(NOTHING)
    }

    /// Returns the first free lane. Looks at all lanes, because a processor could not predict where a shorter loop ends.
    #[inline]
    fn free_lane(&self) -> Option<usize> {
        let free = |sum, (lane, place): (usize, &u32)| sum | u32::from(*place == NOTHING) << lane;
        let lanes = self.places.iter().enumerate().fold(0_u32, free);
        (lanes != 0).then_some(lanes.trailing_zeros() as usize)
    }

    fn mark(&self, lane: usize) -> u16 {
        match self.marks.get(lane / LANES) {
            Some(word) => mark(word >> (lane % LANES * 16)),
            None => mark(u64::from(self.last_marks >> (lane % LANES * 16))),
        }
    }

    fn set(&mut self, lane: usize, mark: u16, place: u32) {
        let shift = lane % LANES * 16;
        match self.marks.get_mut(lane / LANES) {
            Some(word) => *word = *word & !(0xffff << shift) | u64::from(mark) << shift,
            None => self.last_marks = self.last_marks & !(0xffff << shift) | u32::from(mark) << shift,
        }
        self.places[lane] = place;
    }
}

/// Returns the lane of the lowest bit of [`Line::lanes`]. The bits of one word are 16 apart, and each word is shifted by one
/// more. Without any bit it returns a number that no lane has.
#[inline]
fn lane(lanes: u64) -> usize {
    let bit = lanes.trailing_zeros() as usize;
    (15 - bit % 16) * LANES + bit / 16
}

/// The index of one shard: places by the hashes of their keys.
#[derive(Debug)]
pub(super) struct Index {
    /// A power of two.
    segments: Box<[Segment]>,
    lines: usize,
}

impl Index {
    /// Returns an empty index with this many segments: a power of two, at most 2^16. They grow one by one.
    pub(super) fn new(segments: usize) -> Index {
        Index { segments: std::iter::repeat_with(Segment::default).take(segments).collect(), lines: 0 }
    }

    /// Returns the place of this hash for which `fits` says true.
    pub(super) fn find(&self, hash: u64, fits: impl Fn(u32) -> bool) -> Option<u32> {
        let segment = &self.segments[self.segment(hash)];
        segment.find(mark(hash), &fits).map(|(line, lane)| segment.lines[line].places[lane])
    }

    /// Reads the line where a look-up of this hash begins. The result means nothing; it keeps the read from being optimised away.
    pub(super) fn warm(&self, hash: u64) -> u32 {
        let segment = &self.segments[self.segment(hash)];
        segment.lines.get(segment.home(mark(hash))).map_or(0, |line| line.passed)
    }

    /// Reads the second line, if a look-up would go on there.
    pub(super) fn warm_next(&self, hash: u64) -> u32 {
        let (_, next) = self.first_two(hash);
        next.passed
    }

    /// Returns the place where this hash probably is, or [`NOTHING`]. Reads the first two lines of a look-up and branches on
    /// neither, so a caller that looks for many hashes waits for all their cache misses at the same time.
    pub(super) fn warm_find(&self, hash: u64) -> u32 {
        let (home, next) = self.first_two(hash);
        home.place(home.lanes(mark(hash))).min(next.place(next.lanes(mark(hash))))
    }

    /// Returns the line where a look-up begins and the one where it goes on. They are the same line if it does not go on.
    #[inline]
    fn first_two(&self, hash: u64) -> (&Line, &Line) {
        let segment = &self.segments[self.segment(hash)];
        let at = segment.home(mark(hash));
        let Some(home) = segment.lines.get(at) else { return (&Line::EMPTY, &Line::EMPTY) };
        let next = at + usize::from(home.passed > 0);
        (home, segment.lines.get(next).unwrap_or(&segment.lines[0]))
    }

    /// Adds a place. The hash must not be there with this key yet.
    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        self.change(hash, |segment| segment.insert(mark(hash), place));
    }

    /// Removes a place; does nothing if it is not there.
    pub(super) fn remove(&mut self, hash: u64, place: u32) {
        self.change(hash, |segment| segment.remove(mark(hash), place));
    }

    /// Notes that a slot has moved from one place to another.
    pub(super) fn replace(&mut self, hash: u64, from: u32, to: u32) {
        let segment = &mut self.segments[self.segment(hash)];
        if let Some((line, lane)) = segment.find(mark(hash), &|place| place == from) {
            segment.lines[line].places[lane] = to;
        }
    }

    /// Gives back the unused memory of the `n`th segment, if it is worth the work. Returns false if there is no such segment.
    pub(super) fn tighten(&mut self, n: usize) -> bool {
        let Some(segment) = self.segments.get_mut(n) else { return false };
        let before = segment.lines.len();
        if segment.len * 100 < before * PLACES * SMALLER {
            segment.remake((segment.len * 100).div_ceil(PLACES * TIGHT));
        }
        self.lines = self.lines + segment.lines.len() - before;
        true
    }

    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn bytes(&self) -> usize {
        with_holes(self.lines) + self.segments.len() * size_of::<Segment>()
    }

    /// Returns the bytes that an index with `len` places in this many segments takes at most.
    pub(super) fn bytes_at(len: usize, segments: usize) -> usize {
        // A segment that has just grown has an eighth more lines than it needed, and one more by rounding.
        let lines = len.div_ceil(segments) * 100 * 9 / (PLACES * FULL * 8) + 2;
        (with_holes(lines) + size_of::<Segment>()) * segments
    }

    fn change(&mut self, hash: u64, how: impl FnOnce(&mut Segment)) {
        let segment = &mut self.segments[self.segment(hash)];
        let before = segment.lines.len();
        how(segment);
        self.lines = self.lines + segment.lines.len() - before;
    }

    /// Returns the segment of a hash. Its bits are neither those of the mark nor those that choose the shard.
    fn segment(&self, hash: u64) -> usize {
        (hash >> 32 & 0xffff) as usize & (self.segments.len() - 1)
    }

    /// Returns the length of the largest segment: the most that one operation ever has to move.
    #[cfg(test)]
    pub(super) fn largest_segment(&self) -> usize {
        self.segments.iter().map(|segment| segment.len).max().unwrap_or(0)
    }
}

/// Returns the bytes that this many lines take on the heap. A segment that grows leaves a hole behind, and all segments grow at
/// about the same time. Measured, the holes are three eighths of what the segments hold. Pages of one size would leave no holes, but
/// a look-up would take one more cache miss and a quarter more time.
fn with_holes(lines: usize) -> usize {
    lines * size_of::<Line>() * 11 / 8
}

#[expect(clippy::cast_possible_truncation, reason = "16 bits are meant")]
fn mark(hash: u64) -> u16 {
    hash as u16
}

/// A part of the index that grows by itself.
#[derive(Debug, Default)]
struct Segment {
    lines: Vec<Line>,
    len: usize,
}

impl Segment {
    fn home(&self, mark: u16) -> usize {
        (usize::from(mark) * self.lines.len()) >> 16
    }

    fn next(&self, line: usize) -> usize {
        if line + 1 == self.lines.len() { 0 } else { line + 1 }
    }

    fn find(&self, mark: u16, fits: &impl Fn(u32) -> bool) -> Option<(usize, usize)> {
        let mut line = self.home(mark);
        for _ in 0..self.lines.len() {
            if let Some(lane) = self.lines[line].find(mark, fits) {
                return Some((line, lane));
            }
            if self.lines[line].passed == 0 {
                return None;
            }
            line = self.next(line);
        }
        None
    }

    fn insert(&mut self, mark: u16, place: u32) {
        if (self.len + 1) * 100 > self.lines.len() * PLACES * FULL {
            self.remake(self.lines.len() * 9 / 8 + 1);
        }
        self.len += 1;
        self.put(mark, place);
    }

    /// Puts a place into the first line from its home on that has room. The caller has made sure that there is room.
    fn put(&mut self, mark: u16, place: u32) {
        let mut line = self.home(mark);
        loop {
            let here = &mut self.lines[line];
            if let Some(lane) = here.free_lane() {
                here.set(lane, mark, place);
                return;
            }
            here.passed += 1;
            line = self.next(line);
        }
    }

    fn remove(&mut self, mark: u16, place: u32) {
        let Some((found, lane)) = self.find(mark, &|other| other == place) else { return };
        self.is_not_passed(self.home(mark), found);
        self.fill(found, lane);
        self.len -= 1;
        if self.len * 100 < self.lines.len() * PLACES * SPARSE {
            self.remake(self.len * 100 / (PLACES * SMALLER) + 1);
        }
    }

    /// Fills a lane that has become free: the nearest entry that passed this line moves back into it. That frees another lane,
    /// which is filled in the same way, until nothing has passed the line.
    fn fill(&mut self, mut line: usize, mut lane: usize) {
        while self.lines[line].passed > 0 {
            let (from, theirs) = self.who_passed(line);
            let (mark, place) = (self.lines[from].mark(theirs), self.lines[from].places[theirs]);
            self.lines[line].set(lane, mark, place);
            self.is_not_passed(line, from);
            (line, lane) = (from, theirs);
        }
        self.lines[line].places[lane] = NOTHING;
    }

    /// Returns line and lane of the nearest entry that passed this line. There must be one.
    fn who_passed(&self, line: usize) -> (usize, usize) {
        let mut at = line;
        loop {
            at = self.next(at);
            let here = &self.lines[at];
            let passed = |lane: &usize| {
                here.places[*lane] != NOTHING
                    && self.way(self.home(here.mark(*lane)), at) >= self.way(line, at)
            };
            if let Some(lane) = (0..PLACES).find(passed) {
                return (at, lane);
            }
        }
    }

    /// Returns the number of steps from one line to another. The last line is followed by the first.
    fn way(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.lines.len() - from }
    }

    /// Counts one entry less in each line from `from` up to the one before `to`.
    fn is_not_passed(&mut self, from: usize, to: usize) {
        let mut line = from;
        while line != to {
            self.lines[line].passed -= 1;
            line = self.next(line);
        }
    }

    /// Moves everything into this many lines. The marks are nearly in the order of their homes, so old and new memory are each
    /// walked once.
    fn remake(&mut self, lines: usize) {
        if lines == self.lines.len() {
            return;
        }
        let old = std::mem::replace(&mut self.lines, vec![Line::EMPTY; lines]);
        for line in &old {
            for (lane, &place) in line.places.iter().enumerate() {
                if place != NOTHING {
                    self.put(line.mark(lane), place);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// The keys share few marks, so lines overflow. A `HashMap` is the model.
        #[test]
        fn it_holds_what_was_put_in(
            steps in prop::collection::vec((0..400_u64, any::<bool>()), 1..3000),
            spread in prop::sample::select(vec![1_u64, 97, 0x1234_5678_9abc]),
        ) {
            let mut index = Index::new(2);
            let mut model: HashMap<u64, u32> = HashMap::new();
            for (step, (key, put)) in steps.into_iter().enumerate() {
                let (hash, place) = (key.wrapping_mul(spread), u32::try_from(step).unwrap());
                match (put, model.get(&key).copied()) {
                    (true, None) => {
                        index.insert(hash, place);
                        model.insert(key, place);
                    }
                    (true, Some(from)) => {
                        index.replace(hash, from, place);
                        model.insert(key, place);
                    }
                    (false, Some(at)) => {
                        index.remove(hash, at);
                        model.remove(&key);
                    }
                    (false, None) => index.remove(hash, place),
                }
                let expected = model.get(&key).copied();
                prop_assert_eq!(index.find(hash, |place| Some(place) == expected), expected);
            }
            prop_assert_eq!([0, 1, 2].map(|n| index.tighten(n)), [true, true, false]);
            for key in 0..400_u64 {
                let expected = model.get(&key).copied();
                let found = index.find(key.wrapping_mul(spread), |place| Some(place) == expected);
                prop_assert_eq!(found, expected);
            }
            prop_assert_eq!(index.segments.iter().map(|s| s.len).sum::<usize>(), model.len());
            prop_assert_eq!(index.segments.iter().map(|s| s.lines.len()).sum::<usize>(), index.lines);
            index.segments.iter().for_each(is_as_made_at_once);
            for (key, place) in model {
                index.remove(key.wrapping_mul(spread), place);
            }
            prop_assert!(index.lines <= 2, "nothing in it, next to nothing held");
        }
    }

    /// Whatever was inserted and removed before, each line counts as many passed entries as if only the present ones had ever been
    /// inserted.
    fn is_as_made_at_once(segment: &Segment) {
        let mut made = Segment { lines: vec![Line::EMPTY; segment.lines.len()], len: 0 };
        for line in &segment.lines {
            let all = (0..PLACES).filter(|lane| line.places[*lane] != NOTHING);
            all.for_each(|lane| made.put(line.mark(lane), line.places[lane]));
        }
        let passed = |segment: &Segment| segment.lines.iter().map(|line| line.passed).collect::<Vec<_>>();
        assert_eq!(passed(segment), passed(&made));
    }

    #[test]
    fn churn_leaves_no_trace() {
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        let mut index = Index::new(1);
        for n in 0..10_000_u32 {
            index.insert(hash(n.into()), n);
        }
        let lines = index.lines;
        for n in 10_000..200_000_u32 {
            index.remove(hash(u64::from(n) - 10_000), n - 10_000);
            index.insert(hash(n.into()), n);
        }
        assert_eq!(index.lines, lines);
        let passed = |index: &Index| index.segments[0].lines.iter().map(|line| line.passed).sum::<u32>();
        assert!(passed(&index) < 10_000 / 5, "few are not at home: {}", passed(&index));
        is_as_made_at_once(&index.segments[0]);
        for n in 190_000..199_999_u32 {
            index.remove(hash(n.into()), n);
        }
        assert_eq!((passed(&index), index.segments[0].len), (0, 1));
    }
}
