//! The figures of a run, for people and for programs. No I/O.

use super::ledger::Total;
use super::load::Tally;
use super::plan::{Pace, Plan};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// The percentiles that are told, with their names.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// What a run found.
pub(super) struct Figures<'a> {
    pub(super) plan: &'a Plan,
    /// How long was measured.
    pub(super) time: Duration,
    pub(super) tally: &'a Tally,
    pub(super) total: Total,
    /// Which connection was lost.
    pub(super) broken: Option<&'a str>,
}

impl Figures<'_> {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text =
            format!("{}\n{:.1} s measured after {:.1} s\n\n", self.setting(), self.time.as_secs_f64(), self.plan.warm.as_secs_f64());
        let line = |name: &str, count: u64| {
            let (per_second, megabytes) = self.rates(count);
            format!("{name:<14}{count:>12}{per_second:>12.0} /s{megabytes:>10.2} MB/s\n")
        };
        text += &line("messages", self.tally.messages);
        text += &line("deliveries", self.tally.deliveries);
        text += "\nmicroseconds  ";
        QUANTILES.iter().for_each(|(name, _)| text += &format!("{name:>11}"));
        text += "        max\n";
        for (name, _, histogram) in self.histograms() {
            let _ = write!(text, "{name:<14}"); // a String takes everything
            values(histogram).for_each(|(_, micros)| text += &format!("{micros:>11.1}"));
            text.push('\n');
        }
        text += "\n";
        text += &self.account();
        text
    }

    fn setting(&self) -> String {
        let Plan { address, kind, names, ring, pace, size, ids, threads, .. } = self.plan;
        let clients = if names.len() == 1 { "1 client".to_owned() } else { format!("{} clients", names.len()) };
        let pace = match pace {
            Pace::InFlight(messages) => format!("{messages} under way each"),
            Pace::Rate(rate) => format!("{rate} messages/s in all"),
        };
        let target = if ring.fan_out == 1 { "back to the sender".to_owned() } else { format!("to {} clients each", ring.fan_out) };
        let ids = if *ids { "with ids" } else { "without ids" };
        let threads = if *threads == 1 { String::new() } else { format!(", {threads} threads") };
        format!("{address}, type {kind}: {clients}, {pace}, {size} bytes, {target}, {ids}{threads}")
    }

    /// What became of all messages, those before and after the measured time too.
    fn account(&self) -> String {
        let Total { sent, failed } = self.total;
        let deliveries = (sent - failed) * self.plan.ring.fan_out as u64;
        let mut text = format!("{sent} messages sent in all, {deliveries} deliveries due\n");
        if self.tally.unsent > 0 {
            text += &format!("{} messages could not be sent in time: the server takes no more than this\n", self.tally.unsent);
        }
        if let Some(broken) = self.broken {
            text += &format!("{broken}\n");
        }
        match self.faults() {
            Some(faults) => text += &format!("NOT accounted for: {faults}\n"),
            None => text += "every message is accounted for\n",
        }
        text
    }

    /// All faults in one line; `None` if there are none.
    pub(super) fn faults(&self) -> Option<String> {
        let faults = &self.tally.faults;
        if faults.is_empty() {
            return None;
        }
        let kinds = faults.kinds().into_iter().filter(|(_, _, count)| *count > 0).map(|(_, words, count)| format!("{count} {words}"));
        let bad = faults.bad.iter().map(|(reason, count)| format!("{count} failed ({})", reason.escape_debug()));
        Some(kinds.chain(bad).collect::<Vec<_>>().join(", "))
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let Plan { address, kind, names, ring, pace, size, ids, threads, .. } = self.plan;
        let (in_flight, rate) = match *pace {
            Pace::InFlight(messages) => (Some(messages), None),
            Pace::Rate(rate) => (None, Some(rate)),
        };
        let rates = |count| {
            let (per_second, megabytes) = self.rates(count);
            json!({ "count": count, "perSecond": per_second, "megabytesPerSecond": megabytes })
        };
        let mut faults: serde_json::Map<String, Value> =
            self.tally.faults.kinds().into_iter().map(|(name, _, count)| (name.to_owned(), count.into())).collect();
        faults.insert("failed".to_owned(), json!(self.tally.faults.bad));
        let latency: serde_json::Map<String, Value> = self
            .histograms()
            .into_iter()
            .map(|(_, name, histogram)| {
                let figures: serde_json::Map<String, Value> =
                    values(histogram).map(|(name, micros)| (name.to_owned(), json!(micros))).collect();
                (name.to_owned(), figures.into())
            })
            .collect();
        json!({
            "server": address.to_string(),
            "type": kind,
            "clients": names.len(),
            "inFlight": in_flight,
            "rate": rate,
            "size": size,
            "fanOut": ring.fan_out,
            "ids": ids,
            "threads": threads,
            "seconds": self.time.as_secs_f64(),
            "messages": rates(self.tally.messages),
            "deliveries": rates(self.tally.deliveries),
            "microseconds": latency,
            "sent": self.total.sent,
            "unsent": self.tally.unsent,
            "lostConnection": self.broken,
            "accountedFor": self.tally.faults.is_empty(),
            "faults": faults,
        })
    }

    /// A second, and megabytes of data a second.
    fn rates(&self, count: u64) -> (f64, f64) {
        let per_second = if self.time.is_zero() { 0.0 } else { count as f64 / self.time.as_secs_f64() };
        (per_second, per_second * self.plan.size as f64 / 1e6)
    }

    /// What was measured, with names for people and for programs.
    fn histograms(&self) -> Vec<(&'static str, &'static str, &Histogram<u64>)> {
        let mut all = vec![("delivery", "delivery", &self.tally.delivery)];
        if self.plan.ids {
            all.push(("report", "report", &self.tally.report));
        }
        if matches!(self.plan.pace, Pace::Rate(_)) {
            all.push(("sent late by", "sentLateBy", &self.tally.behind));
        }
        all
    }
}

/// The percentiles and the maximum, in microseconds.
fn values(histogram: &Histogram<u64>) -> impl Iterator<Item = (&'static str, f64)> {
    let micros = |nanos: u64| nanos as f64 / 1000.0;
    let quantiles = QUANTILES.iter().map(move |(name, quantile)| (*name, micros(histogram.value_at_quantile(*quantile))));
    quantiles.chain([("max", micros(histogram.max()))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::plan::tests::plan;

    #[test]
    fn figures_are_for_people_and_programs() {
        let plan = plan(&["--clients", "2", "--fan-out", "2", "--size", "1000", "--rate", "50"]);
        let mut tally = Tally::new();
        (tally.messages, tally.deliveries) = (100, 200);
        (1..=100).for_each(|micros| tally.delivery.saturating_record(micros * 1000));
        let figures = |tally: &Tally, broken: Option<&'static str>| {
            let total = Total { sent: 110, failed: 0 };
            let figures = Figures { plan: &plan, time: Duration::from_secs(2), tally, total, broken };
            (figures.text(), figures.json(), figures.faults())
        };
        let (text, json, faults) = figures(&tally, None);
        assert_eq!((json["deliveries"]["perSecond"].as_f64(), json["deliveries"]["megabytesPerSecond"].as_f64()), (Some(100.0), Some(0.1)));
        assert_eq!((json["microseconds"]["delivery"]["p50"].as_f64().map(f64::round), &json["accountedFor"]), (Some(50.0), &json!(true)));
        assert!(text.contains("110 messages sent in all, 220 deliveries due") && text.contains("every message is accounted for"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        assert_eq!(faults, None);
        (tally.faults.lost, tally.faults.reports_wrong, tally.unsent) = (3, 1, 7);
        tally.faults.bad.insert("busy".to_owned(), 2);
        let (text, json, faults) = figures(&tally, Some("the connection of a is lost: x"));
        assert_eq!(faults.as_deref(), Some("3 lost, 1 reports with wrong counts, 2 failed (busy)"));
        assert!(text.contains("NOT accounted for: 3 lost") && text.contains("7 messages could not be sent"), "{text}");
        assert!(text.contains("the connection of a is lost"));
        assert_eq!((&json["faults"]["lost"], &json["faults"]["failed"]["busy"], &json["unsent"]), (&json!(3), &json!(2), &json!(7)));
    }
}
