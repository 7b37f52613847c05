//! The order in which the slots of a shard make room: one chain for all, or one for each tenant.
//!
//! A full shard evicts from the tenant that has the most slots, that of the newcomer included. So a tenant with no more than
//! `capacity / tenants` slots loses none, and a share that nobody needs is there for the others. Nothing has to be configured or
//! adjusted for that.
//!
//! Which tenant a slot belongs to is one byte beside the slab, and only where there are tenants. A tenant whose last slot has gone
//! gives its lane to the next newcomer, when all lanes are taken. A newcomer who finds none joins the common tenant.

use super::quiet::Quiet;
use super::slab::{Chain, Slab};
use super::slot::NONE;
use crate::window::Tenant;

/// Slots in the order in which they were last seen.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) chain: Chain,
    pub(super) quiet: Quiet,
}

impl Lane {
    const EMPTY: Lane = Lane { chain: Chain::EMPTY, quiet: Quiet::EMPTY };

    /// Returns the place of the slot that was least recently seen.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.chain.oldest != NONE).then_some(self.chain.oldest)
    }
}

/// The number of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LaneNumber(u8);

impl LaneNumber {
    /// The common tenant's lane, and the only one where there are no tenants.
    pub(super) const COMMON: LaneNumber = LaneNumber(0);

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The lanes of one shard.
#[derive(Debug)]
pub(super) struct Lanes {
    common: Lane,
    tenants: Option<Box<Tenants>>,
}

/// The part of [`Lanes`] that only a window with tenants has. All lists but `lane_of` have one element for each lane; the common
/// tenant's is the first.
#[derive(Debug)]
struct Tenants {
    /// The lane of the slot at each place.
    lane_of: Vec<LaneNumber>,
    names: Vec<Tenant>,
    lens: Vec<u32>,
    evicted: Vec<u64>,
    /// The lanes behind the first one.
    more: Vec<Lane>,
    /// The lane that is looked at next for expired slots.
    turn: usize,
}

impl Lanes {
    /// Returns lanes without slots.
    pub(super) fn new(by_tenant: bool) -> Lanes {
        let tenants = by_tenant.then(|| {
            Box::new(Tenants {
                lane_of: Vec::new(),
                names: vec![Tenant::COMMON],
                lens: vec![0],
                evicted: vec![0],
                more: Vec::new(),
                turn: 0,
            })
        });
        Lanes { common: Lane::EMPTY, tenants }
    }

    /// Returns lanes without slots, for the same tenants.
    pub(super) fn emptied(&self) -> Lanes {
        let mut lanes = Lanes::new(self.tenants.is_some());
        for (tenant, _, evicted) in self.facts() {
            lanes.count_evicted(tenant, evicted);
        }
        lanes
    }

    /// Returns the number of lanes.
    pub(super) fn count(&self) -> usize {
        self.tenants.as_ref().map_or(1, |tenants| tenants.names.len())
    }

    /// Returns all lanes, with their tenants.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Tenant, &Lane)> {
        let more =
            self.tenants.iter().flat_map(|tenants| tenants.names.iter().copied().skip(1).zip(&tenants.more));
        std::iter::once((Tenant::COMMON, &self.common)).chain(more)
    }

    /// Returns the lane of a tenant. Makes it if there is none yet.
    #[inline]
    pub(super) fn lane_for(&mut self, tenant: Tenant) -> LaneNumber {
        match &mut self.tenants {
            None => LaneNumber::COMMON,
            Some(tenants) => tenants.lane_for(tenant),
        }
    }

    /// Returns the lane that has to make room for a slot of this lane.
    #[inline]
    pub(super) fn fullest(&self, newcomer: LaneNumber) -> LaneNumber {
        match &self.tenants {
            None => LaneNumber::COMMON,
            Some(tenants) => tenants.fullest(Some(newcomer)),
        }
    }

    /// Returns the lane that has to make room although nobody comes.
    pub(super) fn fullest_now(&self) -> LaneNumber {
        self.tenants.as_ref().map_or(LaneNumber::COMMON, |tenants| tenants.fullest(None))
    }

    /// Returns this lane.
    #[inline]
    pub(super) fn get(&self, number: LaneNumber) -> &Lane {
        match &self.tenants {
            Some(tenants) if number != LaneNumber::COMMON => &tenants.more[number.index() - 1],
            _ => &self.common,
        }
    }

    /// Returns the lane of the slot at this place.
    #[inline]
    pub(super) fn of(&mut self, place: u32) -> &mut Lane {
        match &mut self.tenants {
            None => &mut self.common,
            Some(tenants) => match tenants.number_of(place) {
                LaneNumber::COMMON => &mut self.common,
                number => &mut tenants.more[number.index() - 1],
            },
        }
    }

    /// Notes that a slot comes into this lane, and returns the lane.
    #[inline]
    pub(super) fn comes(&mut self, place: u32, number: LaneNumber) -> &mut Lane {
        if let Some(tenants) = &mut self.tenants {
            tenants.comes(place, number);
        }
        self.of(place)
    }

    /// Notes that the slot at this place has left its lane.
    #[inline]
    pub(super) fn left(&mut self, place: u32) {
        if let Some(tenants) = &mut self.tenants {
            let lane = tenants.number_of(place).index();
            tenants.lens[lane] -= 1;
        }
    }

    /// Notes that the oldest slot of its lane leaves, if it is at this place. To be called before the place is unlinked.
    #[inline]
    pub(super) fn leaves_end(&mut self, place: u32, slab: &Slab) {
        if self.of(place).chain.oldest != place {
            return;
        }
        let len = match &self.tenants {
            None => slab.len(),
            Some(tenants) => tenants.lens[tenants.number_of(place).index()] as usize,
        };
        self.of(place).quiet.oldest_goes(len);
    }

    /// Notes that a slot has moved.
    pub(super) fn moved(&mut self, from: u32, to: u32) {
        if let Some(tenants) = &mut self.tenants {
            let number = tenants.number_of(from);
            tenants.set(to, number);
        }
    }

    /// Counts a slot at this place that has to make room before its TTL is over.
    #[inline]
    pub(super) fn makes_room(&mut self, place: u32) {
        if let Some(tenants) = &mut self.tenants {
            let lane = tenants.number_of(place).index();
            tenants.evicted[lane] += 1;
        }
    }

    /// Adds to the count of a tenant's slots that have made room.
    pub(super) fn count_evicted(&mut self, tenant: Tenant, count: u64) {
        let lane = self.lane_for(tenant).index();
        if let Some(tenants) = &mut self.tenants {
            tenants.evicted[lane] += count;
        }
    }

    /// Returns the lane that is looked at next for expired slots.
    #[inline]
    pub(super) fn turn(&mut self) -> LaneNumber {
        match &mut self.tenants {
            None => LaneNumber::COMMON,
            Some(tenants) => tenants.turn(),
        }
    }

    /// Returns the tenants, each with the number of its slots, and of those that have made room.
    pub(super) fn facts(&self) -> impl Iterator<Item = (Tenant, usize, u64)> {
        self.tenants.iter().flat_map(|tenants| {
            let counts = tenants.lens.iter().map(|len| *len as usize).zip(tenants.evicted.iter().copied());
            tenants.names.iter().zip(counts).map(|(tenant, (len, evicted))| (*tenant, len, evicted))
        })
    }

    /// Gives back the memory of places that there are no more.
    pub(super) fn trim(&mut self, places: usize) {
        if let Some(tenants) = &mut self.tenants {
            tenants.lane_of.truncate(places);
            tenants.lane_of.shrink_to_fit();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.tenants.as_ref().map_or(0, |tenants| {
            tenants.lane_of.capacity()
                + tenants.names.capacity() * size_of::<Tenant>()
                + tenants.lens.capacity() * size_of::<u32>()
                + tenants.evicted.capacity() * size_of::<u64>()
                + tenants.more.capacity() * size_of::<Lane>()
        })
    }

    /// Returns the bytes that the lanes of a full shard of a window with tenants take at most.
    pub(super) fn bytes_at(capacity: usize) -> usize {
        let lane = size_of::<Tenant>() + size_of::<u32>() + size_of::<u64>() + size_of::<Lane>();
        capacity + capacity / 8 + 64 + (Tenant::MOST + 1) * lane
    }
}

impl Tenants {
    #[inline]
    fn number_of(&self, place: u32) -> LaneNumber {
        self.lane_of.get(place as usize).copied().unwrap_or(LaneNumber::COMMON)
    }

    fn set(&mut self, place: u32, number: LaneNumber) {
        let place = place as usize;
        if place >= self.lane_of.len() {
            // It grows by an eighth, so that it is nearly as small as it can be.
            if place >= self.lane_of.capacity() {
                self.lane_of.reserve_exact(self.lane_of.len() / 8 + 64);
            }
            self.lane_of.resize(place + 1, LaneNumber::COMMON);
        }
        self.lane_of[place] = number;
    }

    fn comes(&mut self, place: u32, number: LaneNumber) {
        self.set(place, number);
        self.lens[number.index()] += 1;
    }

    fn lane_for(&mut self, tenant: Tenant) -> LaneNumber {
        let lane =
            self.names.iter().position(|name| *name == tenant).unwrap_or_else(|| self.new_lane(tenant));
        LaneNumber(u8::try_from(lane).unwrap_or(0))
    }

    /// Returns the index of a lane for a tenant that has none: a new one, or one without slots, or the common tenant's.
    fn new_lane(&mut self, tenant: Tenant) -> usize {
        if self.more.len() < Tenant::MOST {
            self.names.push(tenant);
            self.lens.push(0);
            self.evicted.push(0);
            self.more.push(Lane::EMPTY);
            return self.more.len();
        }
        let Some(free) = (1..self.lens.len()).find(|lane| self.lens[*lane] == 0) else { return 0 };
        self.names[free] = tenant;
        self.evicted[0] += std::mem::take(&mut self.evicted[free]);
        self.more[free - 1] = Lane::EMPTY;
        free
    }

    /// Returns the lane with the most slots. That of the newcomer counts one more, and makes room if another has as many.
    fn fullest(&self, newcomer: Option<LaneNumber>) -> LaneNumber {
        let most = self.lens.iter().copied().max().unwrap_or(0);
        if let Some(newcomer) = newcomer
            && let len @ 1.. = self.lens[newcomer.index()]
            && len + 1 >= most
        {
            return newcomer;
        }
        let lane = self.lens.iter().position(|len| *len == most).unwrap_or(0);
        LaneNumber(u8::try_from(lane).unwrap_or(0))
    }

    fn turn(&mut self) -> LaneNumber {
        self.turn = if self.turn + 1 < self.names.len() { self.turn + 1 } else { 0 };
        LaneNumber(u8::try_from(self.turn).unwrap_or(0))
    }
}
