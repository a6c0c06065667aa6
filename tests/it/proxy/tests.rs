//! The network itself, with a target that sends everything back.

use super::*;
use crate::fault::until;
use crate::world::PATIENCE;

/// Sends back what it gets, on each connection, to its end; ends with the test.
struct Echo {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    accepting: Option<JoinHandle<()>>,
}

impl Echo {
    fn new() -> Echo {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").expect("a port"));
        let address = listener.local_addr().expect("an address");
        let ours = Arc::clone(&listener);
        let accepting = spawn(move || {
            while let Ok((stream, _)) = ours.accept() {
                drop(spawn(move || {
                    // However it ends.
                    let _ = std::io::copy(&mut &stream, &mut &stream);
                    let _ = stream.shutdown(Shutdown::Write);
                }));
            }
        });
        Echo { address, listener, accepting: Some(accepting) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = shutdown(&self.listener, How::Read);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn world() -> (Echo, Proxy) {
    let (echo, proxy) = (Echo::new(), Proxy::new());
    proxy.lead_to(echo.address);
    (echo, proxy)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Whether these bytes come back.
fn echoes(mut stream: &TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    assert_eq!(back, bytes);
    Ok(())
}

/// Whether nothing has come, as far as one can tell.
fn is_silent(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    let read = stream.read(&mut [0]);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

#[track_caller]
fn is_reset(mut stream: &TcpStream) {
    let read = stream.read(&mut [0]);
    assert_eq!(read.expect_err("no end and no bytes").kind(), ErrorKind::ConnectionReset);
}

#[test]
fn everything_passes_both_ways_to_the_end() {
    let (_echo, proxy) = world();
    let all: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    let stream = connect(&proxy);
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .spawn_scoped(scope, || {
                (&stream).write_all(&all).expect("a way there");
                stream.shutdown(Shutdown::Write).expect("an open connection");
            })
            .expect("a thread");
        let mut back = Vec::new();
        (&stream).read_to_end(&mut back).expect("a way back");
        assert!(back == all, "{} bytes came back", back.len());
    });
    until("the connection is forgotten", || proxy.shared.state().links.is_empty().then_some(()));
}

#[test]
fn the_target_may_come_later_and_change() {
    let proxy = Proxy::new();
    is_reset(&connect(&proxy));
    let echo = Echo::new();
    proxy.lead_to(echo.address);
    let stream = connect(&proxy);
    echoes(&stream, b"one").expect("an echo");
    let other = Echo::new();
    proxy.lead_to(other.address);
    drop(echo);
    echoes(&stream, b"what stands stays").expect("an echo");
    echoes(&connect(&proxy), b"two").expect("an echo");
    drop(other);
    is_reset(&connect(&proxy));
}

#[test]
fn bytes_are_delayed_each_way_until_it_heals() {
    let (_echo, proxy) = world();
    let stream = connect(&proxy);
    echoes(&stream, b"fast").expect("an echo");
    for way in [Way::There, Way::Back] {
        proxy.delay(way, Duration::from_millis(150));
        let began = Instant::now();
        echoes(&stream, b"slow").expect("an echo");
        assert!(began.elapsed() >= Duration::from_millis(150));
        proxy.heal();
    }
    proxy.delay(Way::Back, 10 * PATIENCE);
    (&stream).write_all(b"x").expect("a way there");
    assert!(is_silent(&stream));
    proxy.heal();
    (&stream).read_exact(&mut [0]).expect("what waited");
}

#[test]
fn a_throttled_way_is_slow_and_loses_nothing() {
    let (_echo, proxy) = world();
    proxy.throttle(Way::There, 100_000);
    let stream = connect(&proxy);
    let began = Instant::now();
    echoes(&stream, &[7; 20_000]).expect("an echo");
    assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
}

#[test]
fn what_is_held_comes_when_it_heals() {
    let (_echo, proxy) = world();
    let mut stream = connect(&proxy);
    proxy.hold(Way::There);
    stream.write_all(b"held").expect("a way to the proxy");
    assert!(is_silent(&stream));
    proxy.heal();
    let mut back = [0; 4];
    stream.read_exact(&mut back).expect("what waited");
    assert_eq!(&back, b"held");
}

#[test]
fn what_is_swallowed_comes_nowhere_and_what_is_torn_is_reset() {
    for way in [Way::There, Way::Back] {
        let (_echo, proxy) = world();
        let (torn, whole) = (connect(&proxy), connect(&proxy));
        for stream in [&torn, &whole] {
            echoes(stream, b"well").expect("an echo");
        }
        proxy.swallow(way);
        (&torn).write_all(b"lost").expect("a way to the proxy");
        until("they are swallowed", || (proxy.swallowed_bytes() == 4).then_some(()));
        assert!(is_silent(&torn));
        proxy.heal();
        is_reset(&torn);
        echoes(&whole, b"well").expect("it has lost nothing");
    }
}

#[test]
fn cut_is_an_end_and_others_may_follow() {
    let (_echo, proxy) = world();
    let mut stream = connect(&proxy);
    echoes(&stream, b"well").expect("an echo");
    proxy.cut();
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
    echoes(&connect(&proxy), b"again").expect("an echo");
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn reset_is_an_error_at_both_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = Proxy::new();
    proxy.lead_to(listener.local_addr().expect("an address"));
    let stream = connect(&proxy);
    let (target, _) = listener.accept().expect("a connection");
    (&stream).write_all(b"x").expect("a way there");
    (&target).read_exact(&mut [0]).expect("all that came");
    proxy.reset();
    is_reset(&stream);
    is_reset(&target);
    // So is the end of one of the two.
    let stream = connect(&proxy);
    let (target, _) = listener.accept().expect("a connection");
    set_socket_linger(&target, Some(Duration::ZERO)).expect("a socket");
    drop(target);
    is_reset(&stream);
}

#[test]
fn reset_reaches_who_is_stuck_in_a_write() {
    let (_echo, proxy) = world();
    let stream = connect(&proxy);
    stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a socket");
    while (&stream).write(&[0; 1 << 16]).is_ok() {} // nobody reads what comes back, so all buffers fill up
    proxy.reset();
    until("the connection is forgotten", || proxy.shared.state().links.is_empty().then_some(()));
    let _ = (&stream).read_to_end(&mut Vec::new()); // what had come, and then the reset
}

#[test]
fn who_connects_can_be_refused_reset_or_ignored() {
    let (_echo, proxy) = world();
    let before = connect(&proxy);
    echoes(&before, b"well").expect("an echo");
    proxy.refuse_new();
    let refused = TcpStream::connect(proxy.address()).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    echoes(&before, b"what stands stays").expect("an echo");
    proxy.reset_new();
    is_reset(&connect(&proxy));
    proxy.ignore_new();
    let (one, two) = (connect(&proxy), connect(&proxy));
    for stream in [&one, &two] {
        (&*stream).write_all(b"hello").expect("a socket that takes it");
        assert!(is_silent(stream));
    }
    proxy.heal();
    for mut stream in [one, two] {
        let mut back = [0; 5];
        stream.read_exact(&mut back).expect("what waited");
        assert_eq!(&back, b"hello");
    }
    proxy.refuse_new();
    proxy.heal();
    echoes(&connect(&proxy), b"well").expect("an echo");
}

#[test]
fn nothing_is_left_when_it_ends() {
    let (_echo, proxy) = world();
    let mut stream = connect(&proxy);
    echoes(&stream, b"well").expect("an echo");
    proxy.hold(Way::Back);
    stream.write_all(b"held").expect("a way there");
    let (address, shared) = (proxy.address(), Arc::downgrade(&proxy.shared));
    drop(proxy);
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
    until("its threads have ended", || (shared.strong_count() == 0).then_some(()));
    assert!(TcpStream::connect(address).is_err());
}
