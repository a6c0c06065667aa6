//! `payload.data` goes from a client to its handler, and from the handler to clients, byte for byte.

use crate::world::{Client, Home, Server};
use std::fs;
use std::path::Path;

/// A handler that writes what it gets into the file `recorded`, with its length, and replies with the same bytes.
pub const RECORDER: &str = r#"#!/usr/bin/env python3
import struct, sys
record = open("recorded", "ab", buffering=0)
while len(length := sys.stdin.buffer.read(4)) == 4:
    data = sys.stdin.buffer.read(struct.unpack("<I", length)[0])
    record.write(length + data)
    answer = b'{"header":{"status":"0","command":"reply"},"payload":{"data":' + data + b'}}'
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"#;

/// What a recorder got, each with the four bytes of its length.
pub fn recorded(home: &Path) -> Vec<u8> {
    fs::read(home.join("recorded")).unwrap_or_default()
}

/// Each of these would be changed by a program that decodes JSON and encodes it again.
const DATA: &[&str] = &[
    "1e999",
    "-1E+0400",
    "1.0",
    "-0",
    "0.10",
    "1234567890123456789012345678901234567890",
    "-1234567890.12345678901234567890123456789",
    r#""\ud800""#,
    r#""\udc00\ud800""#,
    r#""\u0041\u00e4\/\"\\\b\f\n\r\t""#,
    "\"\u{e4}\u{1f600}\u{2028}\u{7f}\"",
    r#""\u0000""#,
    r#"{"a":1,"a":2,"a":{"a":3,"a":4}}"#,
    r#"{"\u0061":1,"a":2}"#,
    r#"{"z":1,"y":2,"b":3,"a":4}"#,
    r#"{"":null,"__proto__":[],"$serde_json::private::RawValue":"x"}"#,
    "{ \"a\" :\t1 ,\r\n \"b\" : [ 1 , 2 ] }",
    "[\n\n]",
    "[ [ ], { }, \"\", 0, null, true, false ]",
    r#"{"type":"other","id":"other","header":{"status":"bad"}}"#,
];

fn serve() -> Server {
    let home = Home::new(r#""rec": { "handlerBinary": "rec.py" },"#, "", &["alice"]);
    home.program("rec.py", RECORDER);
    home.serve()
}

/// The text between the two parts that surround `data` in a delivery of a recorder.
fn data_of(delivery: &str) -> &str {
    let start = delivery.find(r#""payload":{"data":"#).expect("a delivery") + r#""payload":{"data":"#.len();
    let end = delivery.rfind(r#","type":"rec""#).expect("a delivery");
    &delivery[start..end]
}

fn expect_recorded(server: &Server, all: &[&[u8]]) {
    let expected: Vec<u8> = all.iter().flat_map(|data| crate::world::frame(data)).collect();
    assert!(recorded(server.home.path()) == expected, "the handler got other bytes than were sent");
}

fn exchange(client: &mut Client, data: &str) {
    client.sends_message("rec", data, "m");
    let delivery = client.gets();
    assert!(data_of(&delivery) == data, "other bytes came back than {} bytes that were sent", data.len());
    assert_eq!(client.gets_json()["header"]["status"], "good");
}

#[test]
fn data_survives_byte_for_byte() {
    let server = serve();
    for mut client in [server.connect(), server.connect_tcp6(), server.connect_unix()] {
        client.log_in("alice");
        for data in DATA {
            exchange(&mut client, data);
        }
    }
    let once: Vec<&[u8]> = DATA.iter().map(|data| data.as_bytes()).collect();
    expect_recorded(&server, &once.repeat(3));
    server.stop();
}

#[test]
fn space_around_data_is_not_part_of_it_and_the_order_of_fields_does_not_matter() {
    let server = serve();
    let mut client = server.log_in("alice");
    client.sends("\r\n{ \"payload\" : { \"id\":\"m\",\t\"data\" : \n [1.0 , 2]\r\n , \"type\" : \"rec\" } }\n");
    assert_eq!(data_of(&client.gets()), "[1.0 , 2]");
    assert_eq!(client.gets_json()["payload"]["id"], "m");
    expect_recorded(&server, &[b"[1.0 , 2]"]);
}

#[test]
fn a_mebibyte_survives_byte_for_byte() {
    let server = serve();
    let mut client = server.log_in("alice");
    // As many of the odd values as fit into the largest frame, and padding up to its last byte.
    let around = r#"{"payload":{"type":"rec","data":,"id":"m"}}"#.len();
    let room = (1 << 20) - around;
    let mut data = String::from("[0");
    for odd in DATA.iter().cycle() {
        if data.len() + odd.len() + 2 > room {
            break;
        }
        data.push(',');
        data.push_str(odd);
    }
    let padding = room - data.len() - 1;
    data.push_str(&" ".repeat(padding));
    data.push(']');
    assert_eq!(data.len(), room);
    exchange(&mut client, &data);
    expect_recorded(&server, &[data.as_bytes()]);
    client.got_nothing();
}
