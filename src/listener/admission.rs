//! Who may connect: so many clients in all, and so many from one address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The counts of open connections. The lock is held for a look-up only.
#[derive(Debug)]
pub struct Admission {
    connections_max: usize,
    per_source_max: usize,
    open: Mutex<Open>,
    /// Told when a connection is gone.
    left: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There are as many as there may be (`limits.connections`).
    Full,
    /// There are as many from this address as there may be (`limits.connectionsPerSource`).
    Source,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Full => "this server has as many connections as it may (limits.connections)",
            Refused::Source => "there are as many connections from your address as there may be (limits.connectionsPerSource)",
        })
    }
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    source: Option<IpAddr>,
}

impl Admission {
    /// Nobody is connected.
    pub fn new(connections_max: usize, per_source_max: usize) -> Arc<Admission> {
        Arc::new(Admission { connections_max, per_source_max, open: Mutex::default(), left: Condvar::new() })
    }

    /// A place for a connection from there; `None` is a UNIX socket, which has no address.
    pub fn admit(self: &Arc<Admission>, from: Option<IpAddr>) -> Result<Place, Refused> {
        let source = from.and_then(counted_source);
        let mut open = self.lock();
        if open.all >= self.connections_max {
            return Err(Refused::Full);
        }
        if let Some(source) = source {
            let count = open.by_source.entry(source).or_insert(0);
            if *count >= self.per_source_max {
                return Err(Refused::Source);
            }
            *count += 1;
        }
        open.all += 1;
        Ok(Place { admission: Arc::clone(self), source })
    }

    /// How many are connected.
    pub fn open(&self) -> usize {
        self.lock().all
    }

    /// Waits, at most until `deadline`, until nobody is connected.
    pub fn wait_until_empty(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        drop(self.left.wait_timeout_while(self.lock(), left, |open| open.all > 0));
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.admission.lock();
        open.all = open.all.saturating_sub(1);
        self.admission.left.notify_all();
        let Some(source) = self.source else { return };
        if let Some(count) = open.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&source);
            }
        }
    }
}

/// What connections are counted by: an IPv4 address, or an IPv6 network of 64 bits, which is what one customer gets.
/// The machine itself is not counted.
fn counted_source(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return None;
    }
    Some(match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_place_is_given_back() {
        let admission = Admission::new(1, 9);
        let place = admission.admit(None).expect("the first");
        assert_eq!(admission.admit(None).err(), Some(Refused::Full));
        drop(place);
        assert!(admission.admit(None).is_ok());
    }

    #[test]
    fn one_network_is_one_source_and_the_machine_itself_is_none() {
        let admission = Admission::new(100, 2);
        let _two = [admission.admit(ip("2001:db8::1")), admission.admit(ip("2001:db8::2"))];
        assert_eq!(admission.admit(ip("2001:db8::3")).err(), Some(Refused::Source));
        assert!(admission.admit(ip("2001:db8:0:1::3")).is_ok());
        let _two = [admission.admit(ip("192.0.2.1")), admission.admit(ip("::ffff:192.0.2.1"))];
        assert_eq!(admission.admit(ip("192.0.2.1")).err(), Some(Refused::Source));
        let places: Vec<_> = (0..9).map(|_| admission.admit(ip("127.0.0.1"))).collect();
        assert!(places.iter().all(Result::is_ok));
    }

    #[test]
    fn nothing_is_kept_of_sources_that_are_gone() {
        let admission = Admission::new(100, 2);
        drop(admission.admit(ip("192.0.2.1")));
        assert_eq!(admission.open(), 0);
        assert!(admission.lock().by_source.is_empty());
    }
}
