use super::*;
use crate::frame::Slice;
use crate::name::PeerId;
use crate::store::mail::Destination;
use proptest::collection::vec;
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds {
    messages: 4,
    bytes: 100,
    report: Duration::from_secs(30),
    retry_min: Duration::from_secs(5),
    retry_max: Duration::from_secs(300),
};

fn message(seq: u64, bytes: usize) -> Arc<Outgoing> {
    let data = Slice::from(&vec![b'1'; bytes][..]);
    let to = Destination::Peer(PeerId(1));
    Arc::new(Outgoing { to, message_id: format!("a/5f-{seq}").into(), kind: "x".into(), data, hops: 1, author: None })
}

/// A courier with an outbox and another server, which do what a test says; and what must hold whatever they do.
struct World {
    courier: Courier,
    now: Instant,
    random: u32,
    /// What lies on the disk.
    outbox: BTreeMap<u64, Arc<Outgoing>>,
    last: u64,
    connecting: bool,
    reads: Vec<(u64, usize, usize)>,
    /// Whether reads are answered at once.
    quick: bool,
    /// So many of the next receipts have no room.
    full: usize,
    /// Sent on this connection and not answered, in the order of sending.
    unanswered: Vec<u64>,
    /// Ever sent / answered with "not now" / done with.
    sent: Vec<u64>,
    deferred: Vec<u64>,
    done: Vec<u64>,
    /// The highest of those sent on this connection that were never deferred.
    highest: u64,
    first_sends: u64,
    broken: Vec<&'static str>,
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        World {
            courier: Courier::new(BOUNDS, now),
            now,
            random: 0,
            outbox: BTreeMap::new(),
            last: 0,
            connecting: false,
            reads: Vec::new(),
            quick: true,
            full: 0,
            unanswered: Vec::new(),
            sent: Vec::new(),
            deferred: Vec::new(),
            done: Vec::new(),
            highest: 0,
            first_sends: 0,
            broken: Vec::new(),
        }
    }

    fn connected() -> World {
        let mut world = World::new();
        world.tell(Event::Tick);
        assert!(world.connecting);
        world.connect(true);
        world
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut orders = Vec::new();
            self.courier.handle(self.now, self.random, event, &mut orders);
            for order in orders {
                events.extend(self.carry_out(order));
            }
            assert!(self.courier.unanswered() <= BOUNDS.messages);
        }
    }

    fn carry_out(&mut self, order: Order) -> Option<Event> {
        match order {
            Order::Connect => {
                assert!(!std::mem::replace(&mut self.connecting, true), "it is connecting already");
            }
            Order::Send(seq, message) => self.sent(seq, &message),
            Order::Read { after, messages_max, bytes_max } => {
                assert!(messages_max > 0 && bytes_max > 0);
                self.reads.push((after, messages_max, bytes_max));
                assert_eq!(self.reads.len(), 1, "one at a time");
                return self.quick.then(|| self.page());
            }
            Order::Settle(receipt) if self.full > 0 => {
                self.full -= 1;
                return Some(Event::Unsettled(receipt));
            }
            Order::Settle(Receipt::Taken(seqs)) => seqs.iter().for_each(|seq| _ = self.outbox.remove(seq)),
            Order::Settle(Receipt::Refused(seq)) => _ = self.outbox.remove(&seq),
            Order::Settle(Receipt::Deferred(_) | Receipt::Unreached) => {}
            Order::Break(why) => {
                self.broken.push(why);
                self.cut();
            }
        }
        None
    }

    fn sent(&mut self, seq: u64, message: &Outgoing) {
        assert_eq!(self.courier.state().0, State::Up, "sent without a connection");
        assert_eq!(&*message.message_id, format!("a/5f-{seq}"));
        assert!(!self.unanswered.contains(&seq), "{seq} is on its way already");
        assert!(!self.done.contains(&seq), "{seq} was answered for good");
        let bytes: usize = self.unanswered.iter().filter_map(|seq| self.outbox.get(seq)).map(|message| message.data.len()).sum();
        assert!(bytes < BOUNDS.bytes, "too many bytes before {seq}");
        self.unanswered.push(seq);
        if !self.deferred.contains(&seq) {
            assert!(seq > self.highest, "{seq} after {}", self.highest);
            self.highest = seq;
        }
        if !self.sent.contains(&seq) {
            assert!(seq > self.first_sends, "{seq} for the first time after {}", self.first_sends);
            self.first_sends = seq;
            self.sent.push(seq);
        }
    }

    fn page(&mut self) -> Event {
        let (after, messages_max, bytes_max) = self.reads.pop().expect("a question");
        let mut page = OutboxPage::default();
        let mut bytes = 0;
        for (seq, message) in self.outbox.range(after + 1..) {
            bytes += message.data.len();
            if page.messages.len() == messages_max || bytes > bytes_max && !page.messages.is_empty() {
                page.more = true;
                break;
            }
            page.messages.push((*seq, Arc::clone(message)));
        }
        Event::Page(page)
    }

    fn put(&mut self, bytes: usize, offered: bool) {
        self.last += 1;
        let message = message(self.last, bytes);
        self.outbox.insert(self.last, Arc::clone(&message));
        self.tell(if offered { Event::Offered(self.last, message) } else { Event::Missed });
    }

    fn connect(&mut self, good: bool) {
        if !std::mem::take(&mut self.connecting) {
            return;
        }
        if good {
            self.tell(Event::Connected);
        } else {
            self.lose();
        }
    }

    /// What the end of a connection means to the other server.
    fn cut(&mut self) {
        self.unanswered.clear();
        self.highest = 0;
    }

    fn lose(&mut self) {
        let (before, failures) = (self.courier.state(), self.courier.failures);
        self.cut();
        self.connecting = false;
        self.tell(Event::Lost);
        let State::Waiting(until) = self.courier.state().0 else { panic!("it does not wait") };
        if matches!(before.0, State::Waiting(_)) {
            return;
        }
        let wait = (until - self.now).as_secs_f64();
        assert!((4.0 - 1e-6..=360.0 + 1e-6).contains(&wait), "{wait}");
        if before.0 == State::Connecting {
            let middle = 300_f64.min(5.0 * 2_f64.powi(i32::try_from(failures).expect("few")));
            assert!((0.8 - 1e-6..=1.2 + 1e-6).contains(&(wait / middle)), "{wait} instead of {middle}");
            assert_eq!(self.courier.failures, failures + 1);
        }
    }

    fn report(&mut self, nth: usize, verdict: Verdict) {
        if self.unanswered.is_empty() {
            return;
        }
        let seq = self.unanswered.remove(nth % self.unanswered.len());
        match verdict {
            Verdict::NotNow => self.deferred.push(seq),
            _ => self.done.push(seq),
        }
        self.tell(Event::Reported(Reported { id: Some(format!("a/5f-{seq}").into()), verdict }));
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.courier.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.tell(Event::Tick);
        }
        self.now = until;
        self.tell(Event::Tick);
    }

    /// From now on everything goes well.
    fn settle_all(&mut self) {
        (self.full, self.quick) = (0, true);
        if !self.reads.is_empty() {
            let page = self.page();
            self.tell(page);
        }
        for _ in 0..10_000 {
            if self.outbox.is_empty() {
                return;
            }
            self.connect(true);
            if self.unanswered.is_empty() {
                let next = self.courier.next_deadline();
                self.now = self.now.max(next.unwrap_or_else(|| panic!("it waits for ever with {:?}", self.outbox.keys())));
                self.tell(Event::Tick);
            }
            self.report(0, Verdict::Good);
        }
        panic!("it does not come to an end with {:?}", self.outbox.keys());
    }
}

#[test]
fn what_was_there_before_is_read_and_what_is_new_is_not() {
    let mut world = World::new();
    world.put(1, false);
    world.put(1, false);
    world.tell(Event::Tick);
    world.connect(true);
    assert_eq!(world.unanswered, [1, 2]);
    world.quick = false;
    world.put(1, true);
    assert_eq!((&world.unanswered[..], world.reads.len()), (&[1, 2, 3][..], 0));
    world.report(1, Verdict::Good);
    assert_eq!(world.outbox.keys().copied().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_gap_is_read() {
    let mut world = World::connected();
    world.put(1, true);
    world.last += 1;
    world.outbox.insert(2, message(2, 1));
    world.put(1, true);
    assert_eq!(world.unanswered, [1, 2, 3]);
}

#[test]
fn no_more_is_on_its_way_than_may_be() {
    let mut world = World::connected();
    (0..6).for_each(|_| world.put(1, true));
    assert_eq!(world.unanswered, [1, 2, 3, 4]);
    world.report(0, Verdict::Good);
    assert_eq!(world.unanswered, [2, 3, 4], "not for a single place");
    world.report(0, Verdict::Good);
    assert_eq!(world.unanswered, [3, 4, 5, 6]);
    let mut world = World::connected();
    (0..3).for_each(|_| world.put(60, true));
    assert_eq!(world.unanswered, [1, 2], "the last one may be more than there is room for");
}

#[test]
fn what_is_not_taken_now_is_tried_again_alone_and_later() {
    let mut world = World::connected();
    world.put(1, true);
    world.put(1, true);
    world.report(0, Verdict::NotNow);
    world.put(1, true);
    assert_eq!(world.unanswered, [2, 3]);
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
        world.report(0, Verdict::Good);
        world.report(0, Verdict::Good);
        let before = world.now;
        while world.unanswered.is_empty() {
            world.now = world.courier.next_deadline().expect("something to do");
            world.tell(Event::Tick);
        }
        let waited = (world.now - before).as_secs_f64() / f64::from(seconds);
        assert!((0.8 - 1e-6..=1.2 + 1e-6).contains(&waited), "{waited} of {seconds} s");
        assert_eq!(world.unanswered, [1]);
        world.report(0, Verdict::NotNow);
    }
    world.tell(Event::Retry);
    assert_eq!(world.unanswered, [1]);
}

#[test]
fn whoever_owes_a_report_and_is_silent_is_left() {
    let mut world = World::connected();
    world.pass(Duration::from_secs(1000));
    assert!(world.broken.is_empty(), "it owed nothing");
    world.put(1, true);
    world.put(1, true);
    world.pass(Duration::from_secs(29));
    world.report(0, Verdict::Good);
    world.pass(Duration::from_secs(29));
    assert!(world.broken.is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.broken.len(), 1);
    world.settle_all();
}

#[test]
fn what_is_on_its_way_when_the_connection_ends_comes_first_on_the_next() {
    let mut world = World::connected();
    (0..3).for_each(|_| world.put(1, true));
    world.report(1, Verdict::Good);
    world.lose();
    world.put(1, true);
    assert_eq!(world.courier.unanswered(), 0);
    world.pass(Duration::from_secs(6));
    world.connect(true);
    assert_eq!(world.unanswered, [1, 3, 4]);
}

#[test]
fn a_page_from_before_the_connection_was_lost_does_not_overtake_what_was_on_its_way() {
    let mut world = World::connected();
    world.put(1, true);
    world.quick = false;
    world.put(1, false);
    assert_eq!((&world.unanswered[..], world.reads.len()), (&[1][..], 1));
    world.lose();
    world.pass(Duration::from_secs(6));
    world.connect(true);
    let page = world.page();
    world.quick = true;
    world.tell(page);
    assert_eq!(world.unanswered, [1, 2]);
}

#[test]
fn what_is_gone_from_the_outbox_is_not_sent_again() {
    let mut world = World::connected();
    (0..3).for_each(|_| world.put(1, true));
    world.report(2, Verdict::NotNow);
    world.lose();
    world.outbox.clear();
    world.pass(Duration::from_secs(10));
    world.connect(true);
    assert!(world.unanswered.is_empty() && world.courier.again.is_empty() && world.courier.due.is_empty());
}

#[test]
fn the_largest_is_the_one_that_is_too_large() {
    let mut world = World::connected();
    [1, 30, 30, 2].into_iter().for_each(|bytes| world.put(bytes, true));
    world.tell(Event::Reported(Reported { id: None, verdict: Verdict::TooLarge }));
    assert_eq!(world.outbox.keys().copied().collect::<Vec<_>>(), [1, 3, 4]);
}

#[test]
fn reports_on_nothing_change_nothing() {
    let mut world = World::connected();
    world.put(1, true);
    for (id, verdict) in [(None, Verdict::NotNow), (None, Verdict::Never), (None, Verdict::Good), (Some("a/5f-2"), Verdict::TooLarge)] {
        world.tell(Event::Reported(Reported { id: id.map(Into::into), verdict }));
    }
    assert_eq!((world.courier.unanswered(), world.outbox.len()), (1, 1));
}

#[test]
fn a_receipt_without_room_is_given_again_before_anything_is_sent() {
    let mut world = World::connected();
    world.put(1, true);
    world.full = 2;
    world.report(0, Verdict::Good);
    world.put(1, true);
    assert!(world.unanswered.is_empty());
    world.pass(Duration::from_secs(1));
    assert!(world.unanswered.is_empty() && world.outbox.contains_key(&1));
    world.pass(Duration::from_secs(1));
    assert_eq!((&world.unanswered[..], world.outbox.contains_key(&1)), (&[2][..], false));
}

#[test]
fn a_connection_that_was_good_for_something_is_made_again_soon() {
    let mut world = World::new();
    world.tell(Event::Tick);
    for _ in 0..5 {
        world.connect(false);
        world.pass(Duration::from_secs(400));
    }
    world.connect(true);
    world.put(1, true);
    world.report(0, Verdict::NotNow);
    world.lose();
    let State::Waiting(until) = world.courier.state().0 else { panic!("it does not wait") };
    assert!(until - world.now <= Duration::from_secs(6));
    assert_eq!(world.courier.next_deadline(), Some(until));
    world.tell(Event::Retry);
    assert!(world.connecting);
}

#[derive(Debug, Clone)]
enum Op {
    Put { bytes: usize, offered: bool },
    Report(usize, Verdict),
    TooLarge,
    Connect(bool),
    Lose,
    Pass(u64),
    Quick(bool),
    Disk(bool),
    Full(usize),
    Drop(usize),
    Retry,
}

fn op() -> impl Strategy<Value = Op> {
    let verdict = prop_oneof![6 => Just(Verdict::Good), 3 => Just(Verdict::NotNow), 1 => Just(Verdict::Never)];
    prop_oneof![
        8 => (1..120_usize, any::<bool>()).prop_map(|(bytes, offered)| Op::Put { bytes: bytes / 4, offered: offered || bytes % 3 > 0 }),
        8 => (0..8_usize, verdict).prop_map(|(nth, verdict)| Op::Report(nth, verdict)),
        1 => Just(Op::TooLarge),
        4 => any::<bool>().prop_map(Op::Connect),
        1 => Just(Op::Lose),
        3 => (0..20_000_u64).prop_map(Op::Pass),
        1 => any::<bool>().prop_map(Op::Quick),
        4 => any::<bool>().prop_map(Op::Disk),
        1 => (0..3_usize).prop_map(Op::Full),
        1 => (0..8_usize).prop_map(Op::Drop),
        1 => Just(Op::Retry),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_whatever_happens(ops in vec(op(), 1..120), random: u32) {
        let mut world = World { random, ..World::new() };
        world.tell(Event::Tick);
        for op in ops {
            match op {
                Op::Put { bytes, offered } => world.put(bytes, offered),
                Op::Report(nth, verdict) => world.report(nth, verdict),
                Op::TooLarge => {
                    // The other server closes with this, so what it would still say is never heard.
                    let before: Vec<u64> = world.outbox.keys().copied().collect();
                    let full = std::mem::take(&mut world.full);
                    world.tell(Event::Reported(Reported { id: None, verdict: Verdict::TooLarge }));
                    world.full = full;
                    world.done.extend(before.into_iter().filter(|seq| !world.outbox.contains_key(seq)));
                    if world.courier.state().0 == State::Up {
                        world.lose();
                    }
                }
                Op::Connect(good) => world.connect(good),
                Op::Lose => world.lose(),
                Op::Pass(millis) => world.pass(Duration::from_millis(millis)),
                Op::Quick(quick) => world.quick = quick,
                Op::Disk(works) => if !world.reads.is_empty() {
                    let page = world.page();
                    world.tell(if works { page } else { Event::Unreadable });
                },
                Op::Full(full) => world.full = full,
                Op::Drop(nth) => {
                    // Another process does that; what is on its way goes on its way.
                    let seq = world.outbox.keys().copied().nth(nth).filter(|seq| !world.unanswered.contains(seq));
                    seq.map(|seq| world.outbox.remove(&seq));
                }
                Op::Retry => world.tell(Event::Retry),
            }
        }
        world.settle_all();
    }
}
