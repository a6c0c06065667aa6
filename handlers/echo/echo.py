#!/usr/bin/env python3
"""Echo: whoever sends a message gets its data back, byte for byte. Copy it to start a handler of your own."""
import struct
import sys

BEFORE = b'{"header":{"status":"0","command":"reply"},"payload":{"data":'
AFTER = b"}}"

# A frame is four bytes of length, little endian, and then that many bytes. read(n) waits until all n bytes are
# there; it returns fewer only when the server has closed our input, which means that we should end.
while len(length := sys.stdin.buffer.read(4)) == 4:
    (size,) = struct.unpack("<I", length)
    data = sys.stdin.buffer.read(size)
    if len(data) < size:
        break
    answer = BEFORE + data + AFTER  # never decoded, so nothing in the data can change on its way
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
