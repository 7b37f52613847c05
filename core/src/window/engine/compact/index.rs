//! From a key to its place: open addressing in lines of 64 bytes, so that a look-up is one cache miss.
//!
//! A line holds ten places, and of each 16 bits of the key's hash (its *mark*). The mark says which line is a key's home;
//! what finds its home full goes to the next line with room, and is counted by each line that it passes. A look-up goes on
//! only from a line that was passed, four in five end at home. A removal counts down again, and who had to pass the line where
//! a place is free now comes back to it: so there are no tombstones, no churn ever makes the table grow, need cleaning or
//! take longer, and a line that is passed is full.
//!
//! The lines are in segments that grow by an eighth when they are 85 % full, each for itself. Since the mark holds all
//! that is needed to find the new home, that is a walk over two pieces of memory of some 40 KB (at 10,000,000 ids), and
//! never over the slots. So no operation ever has to stop for the table as a whole, and one that has grown is between 75 % and 85 % full.
//!
//! Why not `hashbrown`, which is at home here: ADR 3.

/// Places in a line.
const PLACES: usize = 10;
/// Marks in a word.
const LANES: usize = 4;
/// How full a segment may be, in percent, and how empty before it is made smaller.
const FULL: usize = 85;
const SPARSE: usize = 40;
/// As full as it is then made.
const SMALLER: usize = 70;
pub(super) const NOTHING: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line {
    /// Of the first eight, four in a word, the first one lowest: a word is compared at once.
    marks: [u64; 2],
    /// Of the last two.
    last_marks: u32,
    /// How many that have their home here or before are behind this line.
    passed: u32,
    places: [u32; PLACES],
}

impl Line {
    const EMPTY: Line = Line { marks: [0; 2], last_marks: 0, passed: 0, places: [NOTHING; PLACES] };

    /// A bit for each lane with this mark, see [`lane`]; perhaps also for some behind the first such, so ask the place.
    #[inline]
    fn lanes(&self, mark: u16) -> u64 {
        const ONES: u64 = u64::MAX / 0xffff;
        let [first, second] = self.marks;
        let mut lanes = 0;
        for (word, marks) in [first, second, self.last_marks.into()].into_iter().enumerate() {
            // The highest bit of a lane whose difference is nothing.
            let differences = marks ^ (u64::from(mark) * ONES);
            lanes |= (differences.wrapping_sub(ONES) & !differences & (ONES << 15)) >> word;
        }
        lanes
    }

    /// The lane of the mark whose place fits.
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

    /// At the lowest of these lanes; nothing if there is none.
    #[inline]
    fn place(&self, lanes: u64) -> u32 {
        self.places.get(lane(lanes)).copied().unwrap_or(NOTHING)
    }

    /// The first one. (All are looked at: where a loop would end is nothing that a processor could foresee.)
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

/// Of the lowest bit of [`Line::lanes`]: a word's bits are 16 apart, and the words one. None has the number that no bit gives.
#[inline]
fn lane(lanes: u64) -> usize {
    let bit = lanes.trailing_zeros() as usize;
    (15 - bit % 16) * LANES + bit / 16
}

/// See the module's doc.
#[derive(Debug)]
pub(super) struct Index {
    /// A power of two.
    segments: Box<[Segment]>,
    lines: usize,
}

impl Index {
    /// Empty, with `segments` (a power of two, at most 2^16) parts that grow one by one.
    pub(super) fn new(segments: usize) -> Index {
        Index { segments: std::iter::repeat_with(Segment::default).take(segments).collect(), lines: 0 }
    }

    /// The place of this hash that fits.
    pub(super) fn find(&self, hash: u64, fits: impl Fn(u32) -> bool) -> Option<u32> {
        let segment = &self.segments[self.segment(hash)];
        segment.find(mark(hash), &fits).map(|(line, lane)| segment.lines[line].places[lane])
    }

    /// Reads the line where a look-up of this hash begins, and tells nothing.
    pub(super) fn warm(&self, hash: u64) -> u32 {
        let segment = &self.segments[self.segment(hash)];
        segment.lines.get(segment.home(mark(hash))).map_or(0, |line| line.passed)
    }

    /// Reads the line behind it, if there is more to be looked at.
    pub(super) fn warm_next(&self, hash: u64) -> u32 {
        let (_, next) = self.first_two(hash);
        next.passed
    }

    /// Where this hash probably is, or [`NOTHING`]. It reads the line where a look-up begins and the one behind it, and does
    /// not decide by them what to do next: who looks for many waits for all of them at once.
    pub(super) fn warm_find(&self, hash: u64) -> u32 {
        let (home, next) = self.first_two(hash);
        home.place(home.lanes(mark(hash))).min(next.place(next.lanes(mark(hash))))
    }

    /// The line where a look-up begins, and the one where it goes on; the same one if it does not.
    #[inline]
    fn first_two(&self, hash: u64) -> (&Line, &Line) {
        let segment = &self.segments[self.segment(hash)];
        let at = segment.home(mark(hash));
        let Some(home) = segment.lines.get(at) else { return (&Line::EMPTY, &Line::EMPTY) };
        let next = at + usize::from(home.passed > 0);
        (home, segment.lines.get(next).unwrap_or(&segment.lines[0]))
    }

    /// It must not be there yet.
    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        self.change(hash, |segment| segment.insert(mark(hash), place));
    }

    pub(super) fn remove(&mut self, hash: u64, place: u32) {
        self.change(hash, |segment| segment.remove(mark(hash), place));
    }

    /// It has moved.
    pub(super) fn replace(&mut self, hash: u64, from: u32, to: u32) {
        let segment = &mut self.segments[self.segment(hash)];
        if let Some((line, lane)) = segment.find(mark(hash), &|place| place == from) {
            segment.lines[line].places[lane] = to;
        }
    }

    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn bytes(&self) -> usize {
        with_holes(self.lines) + self.segments.len() * size_of::<Segment>()
    }

    /// At most, with so many in so many segments.
    pub(super) fn bytes_at(len: usize, segments: usize) -> usize {
        // What has just grown has an eighth more than what is full, and a line that is rounded up.
        let lines = len.div_ceil(segments) * 100 * 9 / (PLACES * FULL * 8) + 2;
        (with_holes(lines) + size_of::<Segment>()) * segments
    }

    fn change(&mut self, hash: u64, how: impl FnOnce(&mut Segment)) {
        let segment = &mut self.segments[self.segment(hash)];
        let before = segment.lines.len();
        how(segment);
        self.lines = self.lines + segment.lines.len() - before;
    }

    /// By bits that are neither those of the mark nor those of the shard.
    fn segment(&self, hash: u64) -> usize {
        (hash >> 32 & 0xffff) as usize & (self.segments.len() - 1)
    }

    /// The most that one operation ever has to move.
    #[cfg(test)]
    pub(super) fn largest_segment(&self) -> usize {
        self.segments.iter().map(|segment| segment.len).max().unwrap_or(0)
    }
}

/// What so many lines take. A segment that has grown leaves a hole where it was, and all segments grow at about the same
/// time: measured, three eighths of what they hold now. In pages of one size there would be none, but a look-up takes
/// one more cache miss, and a quarter more time.
fn with_holes(lines: usize) -> usize {
    lines * size_of::<Line>() * 11 / 8
}

#[expect(clippy::cast_possible_truncation, reason = "16 bits are meant")]
fn mark(hash: u64) -> u16 {
    hash as u16
}

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

    /// There is room: fewer are in than fit.
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

    /// A lane is free: who had to pass its line comes back to it, and leaves another one free, until nobody did.
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

    /// The nearest of those that passed this line, of which there is one: where it is.
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

    /// How many lines there are from one to another that is behind it.
    fn way(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.lines.len() - from }
    }

    /// One fewer goes from here to there.
    fn is_not_passed(&mut self, from: usize, to: usize) {
        let mut line = from;
        while line != to {
            self.lines[line].passed -= 1;
            line = self.next(line);
        }
    }

    /// Into so many lines. Marks come in nearly the order of their homes, so both pieces of memory are walked once.
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
        /// Few marks, so that lines overflow; a `HashMap` is the model.
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

    /// Whatever came and went: each line is passed by as many as if only those that are here had ever come.
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
