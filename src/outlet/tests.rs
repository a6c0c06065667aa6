use super::*;
use crate::frame::Slice;
use crate::transport::Socket;
use proptest::prelude::*;
use std::io::Read;
use std::os::unix::net::UnixStream;

/// An outlet, and the other side of its socket, which takes little at once.
struct World {
    outlet: Outlet,
    total: Arc<Total>,
    reader: UnixStream,
}

fn world(bounds: Bounds, bytes_total: usize) -> World {
    let (ours, reader) = UnixStream::pair().expect("a socketpair");
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).expect("a small buffer");
    reader.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let total = Total::new(bytes_total);
    let outlet = Outlet::new(Sink::Socket(Arc::new(Socket::Unix(ours))), bounds, Arc::clone(&total));
    World { outlet, total, reader }
}

fn plenty() -> Bounds {
    Bounds { bytes: usize::MAX, frames: usize::MAX }
}

fn packet(byte: u8, length: usize) -> Packet {
    Packet::framed(Slice::from(&vec![byte; length][..]))
}

fn waiting(world: &World) -> usize {
    world.total.bytes.load(Ordering::Relaxed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everything_arrives_once_and_in_order(batches in prop::collection::vec(prop::collection::vec(0usize..9000, 1..60), 1..6)) {
        let mut world = world(plenty(), usize::MAX);
        let mut expected = Vec::new();
        let mut got = Vec::new();
        for (number, batch) in batches.iter().enumerate() {
            let packets: Vec<Packet> = batch.iter().map(|length| packet(number as u8, *length)).collect();
            expected.extend(packets.iter().flat_map(|packet| packet.parts().concat()));
            prop_assert!(matches!(world.outlet.send(&packets), Sent::All | Sent::Waits | Sent::WaitsOn));
            let mut piece = [0; 1000];
            let read = world.reader.read(&mut piece).expect("something");
            got.extend_from_slice(&piece[..read]);
        }
        world.reader.set_nonblocking(true).expect("a socket");
        world.outlet.finish();
        loop {
            let mut piece = vec![0; 10_000];
            match world.reader.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => got.extend_from_slice(&piece[..read]),
                Err(_) => drop(world.outlet.flush()),
            }
        }
        prop_assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
        prop_assert_eq!(waiting(&world), 0);
    }
}

#[test]
fn one_packet_always_fits_an_empty_outlet() {
    let world = world(Bounds { bytes: 1, frames: 1 }, usize::MAX);
    assert_eq!(world.outlet.send(&[packet(b'x', 1 << 20)]), Sent::Waits);
    assert_eq!(world.outlet.send(&[packet(b'x', 1)]), Sent::Overflowed);
    assert_eq!(waiting(&world), 0);
    assert_eq!(world.outlet.send(&[packet(b'x', 1)]), Sent::Broken);
}

#[test]
fn more_frames_than_may_wait_overflow() {
    let world = world(Bounds { bytes: usize::MAX, frames: 3 }, usize::MAX);
    assert_eq!(world.outlet.send(&[packet(b'x', 1 << 20), packet(b'x', 1), packet(b'x', 1)]), Sent::Waits);
    assert_eq!(world.outlet.send(&[packet(b'x', 1)]), Sent::Overflowed);
}

#[test]
fn all_outlets_together_hold_no_more_than_the_total() {
    let first = world(plenty(), 1 << 20);
    let (ours, _other) = UnixStream::pair().expect("a socketpair");
    let second = Outlet::new(Sink::Socket(Arc::new(Socket::Unix(ours))), plenty(), Arc::clone(&first.total));
    assert_eq!(first.outlet.send(&[packet(b'x', 700 << 10)]), Sent::Waits);
    assert_eq!(second.send(&[packet(b'x', 700 << 10)]), Sent::Overflowed);
    drop(first.reader);
    assert_eq!(first.outlet.flush(), Sent::Broken);
    assert_eq!(first.total.bytes.load(Ordering::Relaxed), 0, "what nobody will read is not counted");
}

#[test]
fn the_flusher_is_told_once() {
    let world = world(plenty(), usize::MAX);
    assert_eq!(world.outlet.send(&[packet(b'x', 1 << 20)]), Sent::Waits);
    assert_eq!(world.outlet.send(&[packet(b'x', 1)]), Sent::WaitsOn);
}

#[test]
fn an_outlet_that_is_gone_counts_for_nothing() {
    let World { outlet, total, reader: _reader } = world(plenty(), usize::MAX);
    assert_eq!(outlet.send(&[packet(b'x', 1 << 20)]), Sent::Waits);
    assert!(total.bytes.load(Ordering::Relaxed) > 0);
    drop(outlet);
    assert_eq!(total.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn the_end_is_told_when_everything_is_written() {
    let mut world = world(plenty(), usize::MAX);
    assert_eq!(world.outlet.send(&[packet(b'x', 100)]), Sent::All);
    world.outlet.finish();
    assert!(world.outlet.is_shut());
    assert_eq!(world.outlet.send(&[packet(b'x', 1)]), Sent::Broken);
    let mut all = Vec::new();
    world.reader.read_to_end(&mut all).expect("the end");
    assert_eq!(all.len(), 104);
}

#[test]
fn what_is_left_does_not_wait_here_but_the_first_always_does() {
    let world = world(plenty(), usize::MAX);
    let large = packet(1, 1 << 20);
    let sending = world.outlet.send_or_leave(&[packet(0, 10), large, packet(2, 10), packet(3, 10)], |place| place != 3);
    assert_eq!(sending, Sending { sent: Sent::Waits, whole: 1, begun: true });
    assert!(world.outlet.is_waiting());
    // The large one, as its beginning is written, and the one that is not to be left.
    assert_eq!(world.outlet.lock().waiting.len(), 2);
    let sending = world.outlet.send_or_leave(&[packet(4, 10)], |_| true);
    assert_eq!(sending, Sending { sent: Sent::WaitsOn, whole: 0, begun: false });
    assert_eq!(world.outlet.lock().waiting.len(), 2);
}
