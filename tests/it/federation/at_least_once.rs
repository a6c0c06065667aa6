//! What was reported as good arrives, once, whatever happens to the network and to both servers.

use super::{Place, acknowledges, acknowledging, two_with};
use crate::fault::until;
use crate::proxy::Way;
use crate::world::Client;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// So many messages in all, and in each of the five parts.
const MESSAGES: u64 = 200;
const PART: u64 = MESSAGES / 5;
/// `limits.peerInFlight`: what may be on its way when a server is killed.
const IN_FLIGHT: usize = 32;

/// alice on one server, who sends everything until it is reported as good.
struct Sender {
    client: Client,
    good: BTreeSet<u64>,
}

impl Sender {
    fn sends(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let data = json!({ "servers": ["b.example"], "users": ["bob"], "n": number });
            self.client.sends_message("chat", &data.to_string(), &format!("m-{number}"));
        }
    }

    /// Takes in the reports until all up to `end` are good.
    #[track_caller]
    fn is_told_up_to(&mut self, end: u64) {
        while (0..end).any(|number| !self.good.contains(&number)) {
            let report = self.client.gets_json();
            assert_eq!(report["header"]["status"], "good", "{report}");
            assert_eq!(report["payload"]["data"]["queued"], 1, "{report}");
            self.takes(&report);
        }
    }

    fn takes(&mut self, report: &Value) {
        let id = report["payload"]["id"].as_str().and_then(|id| id.strip_prefix("m-")).expect("an id of ours");
        self.good.insert(id.parse().expect("a number"));
    }
}

/// bob on the other, who acknowledges what comes: of each message the ids with which it came.
#[derive(Default)]
struct Receiver {
    client: Option<Client>,
    got: BTreeMap<u64, BTreeSet<String>>,
}

impl Receiver {
    /// Takes in what comes until there are so many different messages.
    #[track_caller]
    fn gets(&mut self, b: &Place, count: u64) {
        let client = self.client.get_or_insert_with(|| acknowledging(b.server(), "bob"));
        while (self.got.len() as u64) < count {
            let delivery = client.gets_json();
            let id = delivery["header"]["messageId"].as_str().expect("an id").to_owned();
            let number = delivery["payload"]["data"]["n"].as_u64().unwrap_or_else(|| panic!("{delivery}"));
            acknowledges(client, &delivery);
            self.got.entry(number).or_default().insert(id);
        }
    }
}

/// How often each message came to the handler.
fn times_handled(b: &Place) -> BTreeMap<u64, usize> {
    let mut times = BTreeMap::new();
    for call in b.calls() {
        *times.entry(call["data"]["n"].as_u64().expect("a number")).or_default() += 1;
    }
    times
}

#[test]
fn what_was_reported_as_good_arrives_once_whatever_happens() {
    let (mut a, mut b) = two_with("", r#""peerReportSeconds": 1,"#);
    let mut alice = Sender { client: acknowledging(a.server(), "alice"), good: BTreeSet::new() };
    let mut bob = Receiver::default();
    a.is_linked_to(&b);

    // Slow, and cut and reset again and again.
    b.proxy.delay(Way::There, Duration::from_millis(3));
    b.proxy.delay(Way::Back, Duration::from_millis(5));
    for (turn, number) in (0..PART).enumerate() {
        alice.sends([number]);
        match turn % 20 {
            5 => b.proxy.cut(),
            15 => b.proxy.reset(),
            _ => {}
        }
        if turn % 20 == 9 {
            bob.gets(&b, number + 1);
        }
    }
    alice.is_told_up_to(PART);
    bob.gets(&b, PART);
    b.proxy.heal();

    // The reports of b are lost, and with them everything is sent again.
    a.is_linked_to(&b);
    b.proxy.swallow(Way::Back);
    alice.sends(PART..2 * PART);
    alice.is_told_up_to(2 * PART);
    until("b has what is on its way", || (times_handled(&b).len() >= PART as usize + IN_FLIGHT).then_some(()));
    b.proxy.heal();
    bob.gets(&b, 2 * PART);
    a.outboxes_are_empty_within(Duration::from_secs(30));
    let times = times_handled(&b);
    assert!(times.len() == 2 * PART as usize && times.values().all(|times| *times == 1), "{times:?}");

    // The receiver is killed while it has some of them, ...
    alice.sends(2 * PART..3 * PART);
    until("b is in the middle", || (times_handled(&b).len() > 2 * PART as usize + 5).then_some(()));
    b.kill();
    alice.is_told_up_to(3 * PART);
    bob.client = None;
    // ... and some more come while it is away.
    alice.sends(3 * PART..4 * PART);
    alice.is_told_up_to(4 * PART);
    b.start();
    bob.gets(&b, 4 * PART);
    let handled_before = times_handled(&b);
    let twice = handled_before.values().filter(|times| **times > 1).count();
    assert!(twice <= IN_FLIGHT && handled_before.values().all(|times| *times <= 2), "{handled_before:?}");

    // The sender is killed while it has some of them; nobody knows which of those that were not reported on.
    alice.sends(4 * PART..MESSAGES);
    alice.is_told_up_to(4 * PART + 10);
    a.kill();
    while let Some(report) = alice.client.receives() {
        alice.takes(&serde_json::from_str(&report).expect("JSON"));
    }
    a.start();
    alice.client = acknowledging(a.server(), "alice");
    let unknown: Vec<u64> = (4 * PART..MESSAGES).filter(|number| !alice.good.contains(number)).collect();
    alice.sends(unknown);
    alice.is_told_up_to(MESSAGES);
    bob.gets(&b, MESSAGES);
    a.outboxes_are_empty_within(Duration::from_secs(32));

    // Nothing more comes, and nothing came as two.
    bob.client.as_mut().expect("he is there").got_nothing();
    assert!((0..MESSAGES).all(|number| bob.got.get(&number).is_some_and(|ids| ids.len() == 1)), "{:?}", bob.got);
    let times = times_handled(&b);
    let again = times.iter().filter(|(number, times)| **times > handled_before.get(number).copied().unwrap_or(1)).count();
    assert_eq!((times.len(), again), (MESSAGES as usize, 0), "only b's own end has something handled again: {times:?}");
    a.stop();
    b.stop();
}
