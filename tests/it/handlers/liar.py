#!/usr/bin/env python3
"""A handler that sends back what it gets, but for the message with the number in LIE_AT, about which it does what its
argument says: drop, double, swap (with the next one), change, misdirect (to bench1 what is for bench0, and the other way round),
refuse, mute (no answer at all) or stall (for 300 ms)."""
from __future__ import annotations

import itertools
import json
import struct
import sys
import time

LIE_AT = 20


def write(header, data=b"null"):
    frame = b'{"header":' + json.dumps(header).encode() + b',"payload":{"data":' + data + b"}}"
    sys.stdout.buffer.write(struct.pack("<I", len(frame)) + frame)
    sys.stdout.buffer.flush()


def reply(data):
    write({"status": "0", "command": "reply"}, data)


def lie(how, data):
    """Answers data, and hands back what is to be answered after the next message."""
    if how == "drop":
        write({"status": "0", "command": "none"})
    elif how == "double":
        one = {"command": "reply", "payload": {"data": json.loads(data)}}
        write({"status": "0", "commands": [one, one]})
    elif how == "swap":
        return data
    elif how == "change":
        reply(data[:-2] + b'!"')
    elif how == "misdirect":
        sender = int(data[10:16], 16)
        write({"status": "0", "command": "sendClients", "commandData": [f"bench{1 - sender}"]}, data)
    elif how == "refuse":
        write({"status": "1"})
    elif how == "stall":
        time.sleep(0.3)
        reply(data)
    else:
        assert how == "mute"
    return None


def main():
    how = sys.argv[1]
    for number in itertools.count(1):
        length = sys.stdin.buffer.read(4)
        if len(length) < 4:
            return
        data = sys.stdin.buffer.read(struct.unpack("<I", length)[0])
        if number == LIE_AT:
            held = lie(how, data)
            continue
        reply(data)
        if number == LIE_AT + 1 and held is not None:
            reply(held)


if __name__ == "__main__":
    main()
