//! Which addresses a server may be sent to of which nothing is known: those of the public network, and not ours.
//!
//! Whoever may make a handler send to an address of their choice must not reach with that what only this machine or its own
//! network can reach. So the rule says what is allowed, not what is not; what a future standard sets apart is forbidden until
//! it is added here. Numbers that stand for IPv4 in IPv6 (mapped, compatible, translated, tunnelled) are forbidden as a whole:
//! nobody needs them, and they would be a second way to each address that is forbidden.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Says why `address` must not be connected to, if so; `own` are the addresses that this server listens on.
///
/// # Errors
/// What it is, in words that follow "it is".
pub fn check(address: SocketAddr, own: &[SocketAddr]) -> Result<(), &'static str> {
    match address.ip() {
        IpAddr::V4(ip) => check_v4(ip)?,
        IpAddr::V6(ip) => check_v6(ip)?,
    }
    if own.iter().any(|own| own.port() == address.port() && own.ip() == address.ip()) {
        return Err("an address of this server");
    }
    Ok(())
}

fn check_v4(ip: Ipv4Addr) -> Result<(), &'static str> {
    let what = match ip.octets() {
        [0, ..] => "no address of a machine",
        [127, ..] => "an address of this machine",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [100, 64..=127, ..] => "an address behind a provider's translation",
        [169, 254, ..] => "an address of the local link",
        [192, 0, 0, _] | [192, 88, 99, _] => "a reserved address",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "an address for documentation",
        [198, 18..=19, ..] => "an address for measurements",
        [224..=239, ..] => "an address of a group",
        [240..=255, ..] => "a reserved address",
        _ => return Ok(()),
    };
    Err(what)
}

fn check_v6(ip: Ipv6Addr) -> Result<(), &'static str> {
    let what = match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => "no address of a machine",
        [0, 0, 0, 0, 0, 0, 0, 1] => "an address of this machine",
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, ..] | [0x2002, ..] => "an IPv4 address in another form",
        [0xfe80..=0xfebf, ..] => "an address of the local link",
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => "a private address",
        [0xff00..=0xffff, ..] => "an address of a group",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "an address for documentation",
        // Teredo, measurements, hashes instead of addresses, ...
        [0x2001, 0..=0x1ff, ..] => "a reserved address",
        [0x2000..=0x3fff, ..] => return Ok(()),
        _ => "a reserved address",
    };
    Err(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [&str; 2] = ["8.8.4.4:2224", "[2a00:1450::1]:2224"];

    fn judged(address: &str) -> Result<(), &'static str> {
        let own = OWN.map(|own| own.parse().expect("an address"));
        check(address.parse().unwrap_or_else(|_| panic!("{address}")), &own)
    }

    #[test]
    fn what_is_not_public_is_forbidden_in_every_form() {
        let table = [
            ("0.0.0.0:1", "no address of a machine"),
            ("0.1.2.3:1", "no address of a machine"),
            ("127.0.0.1:1", "an address of this machine"),
            ("127.255.255.254:1", "an address of this machine"),
            ("10.0.0.1:1", "a private address"),
            ("10.255.255.255:1", "a private address"),
            ("172.16.0.1:1", "a private address"),
            ("172.31.255.255:1", "a private address"),
            ("192.168.0.1:1", "a private address"),
            ("100.64.0.1:1", "an address behind a provider's translation"),
            ("100.127.255.255:1", "an address behind a provider's translation"),
            ("169.254.169.254:80", "an address of the local link"),
            ("192.0.0.8:1", "a reserved address"),
            ("192.88.99.1:1", "a reserved address"),
            ("192.0.2.1:1", "an address for documentation"),
            ("198.51.100.1:1", "an address for documentation"),
            ("203.0.113.255:1", "an address for documentation"),
            ("198.18.0.1:1", "an address for measurements"),
            ("198.19.255.255:1", "an address for measurements"),
            ("224.0.0.1:1", "an address of a group"),
            ("239.255.255.255:1", "an address of a group"),
            ("240.0.0.1:1", "a reserved address"),
            ("255.255.255.255:1", "a reserved address"),
            ("[::]:1", "no address of a machine"),
            ("[::1]:1", "an address of this machine"),
            ("[::ffff:127.0.0.1]:1", "an IPv4 address in another form"),
            ("[::ffff:8.8.8.8]:1", "an IPv4 address in another form"),
            ("[::127.0.0.1]:1", "an IPv4 address in another form"),
            ("[64:ff9b::10.0.0.1]:1", "an IPv4 address in another form"),
            ("[64:ff9b:1::10.0.0.1]:1", "an IPv4 address in another form"),
            ("[2002:7f00:1::]:1", "an IPv4 address in another form"),
            ("[fe80::1]:1", "an address of the local link"),
            ("[febf::1]:1", "an address of the local link"),
            ("[fec0::1]:1", "a private address"),
            ("[fc00::1]:1", "a private address"),
            ("[fdff::1]:1", "a private address"),
            ("[ff02::1]:1", "an address of a group"),
            ("[2001:db8::1]:1", "an address for documentation"),
            ("[3fff:fff::1]:1", "an address for documentation"),
            ("[2001::1]:1", "a reserved address"),
            ("[2001:20::1]:1", "a reserved address"),
            ("[100::1]:1", "a reserved address"),
            ("[5f00::1]:1", "a reserved address"),
            ("[4000::1]:1", "a reserved address"),
            ("[::ffff:0:127.0.0.1]:1", "a reserved address"),
            ("8.8.4.4:2224", "an address of this server"),
            ("[2a00:1450::1]:2224", "an address of this server"),
        ];
        for (address, what) in table {
            assert_eq!(judged(address), Err(what), "{address}");
        }
    }

    #[test]
    fn what_is_public_is_allowed_up_to_the_borders() {
        for address in [
            "1.1.1.1:2224",
            "8.8.4.4:2225",
            "9.255.255.255:1",
            "11.0.0.0:1",
            "100.63.255.255:1",
            "100.128.0.0:1",
            "126.255.255.255:1",
            "128.0.0.0:1",
            "172.15.255.255:1",
            "172.32.0.0:1",
            "192.0.1.1:1",
            "192.167.255.255:1",
            "192.169.0.0:1",
            "198.17.255.255:1",
            "198.20.0.0:1",
            "223.255.255.255:1",
            "[2001:200::1]:1",
            "[2001:db7::1]:1",
            "[2001:4860::8888]:1",
            "[2a00:1450::1]:2225",
            "[3ffe::1]:1",
            "[3fff:1000::1]:1",
        ] {
            assert_eq!(judged(address), Ok(()), "{address}");
        }
    }
}
