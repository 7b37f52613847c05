//! The chooser against a model that keeps all that has happened and finds everything out from that.

use super::*;
use proptest::prelude::*;

const TIMES: Times = Times {
    interval: Duration::from_secs(30),
    rest: Duration::from_secs(2),
    max_rest: Duration::from_secs(20),
};

#[expect(clippy::disallowed_methods, reason = "some instant; the tests count from it")]
fn begin() -> Instant {
    Instant::now()
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    /// A client comes. This many nodes fail before one answers.
    Connect(usize),
    /// Hapax looks which nodes are to be asked.
    Look,
    /// The probe of this node ends, if there is one.
    Found(usize, Found, u32),
    /// Time passes.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let found =
        prop_oneof![Just(Found::Answer), Just(Found::Failure), Just(Found::Failure), Just(Found::Nothing)];
    let step = prop_oneof![
        (0..6_usize).prop_map(Step::Connect),
        Just(Step::Look),
        (0..5_usize, found, any::<u32>()).prop_map(|(node, found, luck)| Step::Found(node, found, luck)),
        prop_oneof![0..500_u64, 500..40_000_u64].prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

/// Something that was seen of one node.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Seen {
    Answer,
    Asked,
    /// A probe has ended without an answer.
    Failure {
        rest: Duration,
    },
}

/// All that was seen of each node, in order.
struct Model {
    seen: Vec<Vec<(Instant, Seen)>>,
}

impl Model {
    /// What counts last: an answer, or a failure of a probe during which nobody was answered.
    fn last(&self, node: usize) -> Option<(Instant, Seen)> {
        self.counting(node).last().copied()
    }

    fn counting(&self, node: usize) -> Vec<(Instant, Seen)> {
        let seen = &self.seen[node];
        let counts = |n: usize, what: Seen| match what {
            Seen::Answer => true,
            Seen::Asked => false,
            Seen::Failure { .. } => {
                let asked = seen[..n].iter().rev().find(|(_, what)| *what == Seen::Asked).unwrap().0;
                !seen[..n].iter().any(|(at, what)| *what == Seen::Answer && *at >= asked)
            }
        };
        seen.iter().enumerate().filter(|(n, (_, what))| counts(*n, *what)).map(|(_, seen)| *seen).collect()
    }

    fn rests_until(&self, node: usize) -> Option<Instant> {
        match self.last(node)? {
            (at, Seen::Failure { rest }) => Some(at + rest),
            _ => None,
        }
    }

    /// How many failures in a row count last.
    fn failures(&self, node: usize) -> u32 {
        let counting = self.counting(node);
        let row = counting.iter().rev().take_while(|(_, what)| *what != Seen::Answer).count();
        u32::try_from(row).unwrap()
    }
}

fn check(nodes: usize, order: UpstreamOrder, steps: &[Step]) {
    let mut now = begin();
    let mut chooser = Chooser::new(nodes, order, TIMES, now);
    let mut model = Model { seen: vec![Vec::new(); nodes] };
    let mut asked: Vec<bool> = vec![false; nodes];
    // How often each node came first since the last change of those that rest.
    let (mut firsts, mut resting) = (vec![0_usize; nodes], vec![false; nodes]);
    for step in steps {
        match *step {
            Step::Connect(failing) => {
                let tried = chooser.next_order();
                firsts[tried[0]] += 1;
                for node in tried.iter().take(failing) {
                    chooser.suspected(*node, now);
                }
                if let Some(node) = tried.get(failing) {
                    chooser.answered(*node, now);
                    model.seen[*node].push((now, Seen::Answer));
                }
            }
            Step::Look => {
                for node in chooser.take_due(now) {
                    assert!(
                        !std::mem::replace(&mut asked[node], true),
                        "two probes of node {node} at a time"
                    );
                    model.seen[node].push((now, Seen::Asked));
                }
            }
            Step::Found(node, found, luck) if node < nodes && asked[node] => {
                asked[node] = false;
                let before = model.failures(node);
                chooser.found(node, found, luck, now);
                match found {
                    Found::Answer => model.seen[node].push((now, Seen::Answer)),
                    Found::Nothing => {}
                    Found::Failure => {
                        let rest = chooser.rests_until(node).map_or(Duration::ZERO, |until| until - now);
                        model.seen[node].push((now, Seen::Failure { rest }));
                        let counts = model.failures(node) > before;
                        if counts {
                            let longest = TIMES.rest.mul_f64(2_f64.powi(i32::try_from(before).unwrap()));
                            let longest = longest.min(TIMES.max_rest);
                            assert!(
                                rest <= longest && rest >= longest / 2,
                                "{rest:?} after {before} failures"
                            );
                        }
                    }
                }
            }
            Step::Found(..) => {}
            Step::Wait(ms) => now += Duration::from_millis(ms),
        }
        let tried = chooser.order();
        let rests: Vec<Option<Instant>> = (0..nodes).map(|node| model.rests_until(node)).collect();
        check_order(&tried, order, &rests);
        let now_resting: Vec<bool> = rests.iter().map(Option::is_some).collect();
        if now_resting != resting {
            (firsts, resting) = (vec![0; nodes], now_resting);
        }
        if order == UpstreamOrder::RoundRobin && resting.contains(&false) {
            let takers =
                || firsts.iter().zip(&resting).filter(|(_, rests)| !**rests).map(|(count, _)| *count);
            assert!(
                takers().max().unwrap() - takers().min().unwrap() <= 1,
                "{firsts:?}, resting {resting:?}"
            );
        }
        // Nobody is forgotten: each node is asked at the latest when its longest pause is over.
        for (node, asked) in asked.iter().enumerate() {
            let ask_at = chooser.nodes[node].ask_at;
            assert_eq!(chooser.nodes[node].is_asked, *asked);
            assert!(ask_at <= now + TIMES.interval.max(TIMES.max_rest));
            assert!(rests[node].is_none_or(|until| *asked || ask_at <= until.max(now + SPACING)));
        }
    }
}

fn check_order(tried: &[usize], order: UpstreamOrder, rests: &[Option<Instant>]) {
    let mut all = tried.to_vec();
    all.sort_unstable();
    assert_eq!(all, (0..rests.len()).collect::<Vec<_>>(), "each node is tried once");
    let takers = rests.iter().filter(|until| until.is_none()).count();
    let (first, last) = tried.split_at(takers);
    assert!(first.iter().all(|node| rests[*node].is_none()), "{tried:?} with {rests:?}");
    assert!(last.is_sorted_by_key(|node| rests[*node]), "{tried:?} with {rests:?}");
    match order {
        UpstreamOrder::Priority => assert!(first.is_sorted()),
        // The same circle, from somewhere on.
        UpstreamOrder::RoundRobin => {
            assert!(first.windows(2).filter(|pair| pair[0] > pair[1]).count() <= 1, "{first:?}");
        }
    }
}

proptest! {
    #[test]
    fn it_does_what_a_model_finds_out_from_all_that_has_happened(
        nodes in 1..5_usize, by_turns: bool, steps in steps()
    ) {
        let order = if by_turns { UpstreamOrder::RoundRobin } else { UpstreamOrder::Priority };
        check(nodes, order, &steps);
    }
}

/// A stranger can make any number of connections fail. It takes a probe of Hapax itself, one a second, to send a node to rest.
#[test]
fn failing_connections_alone_never_send_a_node_to_rest() {
    let mut now = begin();
    let mut chooser = Chooser::new(2, UpstreamOrder::Priority, TIMES, now);
    let mut probes = 0;
    for _ in 0..10_000 {
        chooser.suspected(0, now);
        for node in chooser.take_due(now) {
            probes += usize::from(node == 0);
            chooser.found(node, Found::Answer, 0, now);
        }
        assert_eq!(chooser.next_order(), [0, 1]);
        now += Duration::from_millis(1);
    }
    assert!(probes <= 11, "{probes} probes in ten seconds");
}

#[test]
fn a_node_that_answers_others_while_it_keeps_a_probe_waiting_is_alive() {
    let now = begin();
    let mut chooser = Chooser::new(2, UpstreamOrder::Priority, TIMES, now);
    assert_eq!(chooser.take_due(now), [0, 1]);
    chooser.answered(0, now);
    assert_eq!(chooser.found(0, Found::Failure, 0, now), Change::Ignored);
    assert_eq!(chooser.found(1, Found::Failure, 0, now), Change::Down);
    assert!(!chooser.is_resting(0) && chooser.is_resting(1));
}

#[test]
fn want_of_files_and_ports_says_nothing_of_a_node() {
    let now = begin();
    let mut chooser = Chooser::new(2, UpstreamOrder::Priority, TIMES, now);
    chooser.take_due(now);
    assert_eq!(chooser.found(0, Found::Nothing, 0, now), Change::None);
    assert!(!chooser.is_resting(0));
    assert_eq!(chooser.take_due(now + SPACING), [0]);
}

#[test]
fn all_nodes_rest_and_are_tried_all_the_same() {
    let now = begin();
    let mut chooser = Chooser::new(3, UpstreamOrder::RoundRobin, TIMES, now);
    chooser.take_due(now);
    for (node, luck) in [(0, u32::MAX), (1, 0), (2, u32::MAX / 2)] {
        assert_eq!(chooser.found(node, Found::Failure, luck, now), Change::Down);
    }
    assert_eq!(chooser.next_order(), [1, 2, 0], "the rest that ends first");
    assert_eq!(chooser.answered(2, now), Change::Back);
    assert_eq!(chooser.next_order(), [2, 1, 0]);
}
