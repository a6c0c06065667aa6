#!/usr/bin/env python3
"""A handler that has what it gets sent to those whom it names: {"to": [user, ...], ...}; with "reply", to whoever asked. Without
either it dies."""
import json
import struct
import sys

while length := sys.stdin.buffer.read(4):
    text = sys.stdin.buffer.read(struct.unpack("<I", length)[0])
    data = json.loads(text)
    command = ["reply", None] if "reply" in data else ["sendClients", data["to"]]
    header = {"status": "0", "command": command[0], "commandData": command[1]}
    frame = b'{"header":' + json.dumps(header).encode() + b',"payload":{"data":' + text + b"}}"
    sys.stdout.buffer.write(struct.pack("<I", len(frame)) + frame)
    sys.stdout.buffer.flush()
