#!/bin/sh
# Joining a room, talking to oneself in it, and a mistake, which the handler refuses with a reason of its own.
. "$(dirname "$0")/common"

talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
{"payload":{"type":"chat","data":{"say":"too early","room":"attic"},"id":"m-1"}}
{"payload":{"type":"chat","data":{"join":"attic"},"id":"m-2"}}
{"payload":{"type":"chat","data":{"say":"hello","room":"attic"},"id":"m-3"}}
{"payload":{"type":"chat","data":{"who":"attic"}}}
{"payload":{"type":"chat","data":{"leave":"attic"},"id":"m-5"}}
END
