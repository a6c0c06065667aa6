#!/bin/sh
# Some built-in commands need no login. A ping does not count as one.
. "$(dirname "$0")/common"

talk <<'END'
{"payload":{"type":"builtin","data":{"command":{"type":"ping"}},"id":"p-1"}}
{"payload":{"type":"internal","data":{"command":{"type":"ping"}},"id":"p-2"}}
{"payload":{"type":"builtin","data":{"command":{"type":"whoami"}},"id":"w"}}
{"payload":{"type":"builtin","data":{"command":{"type":"ping"}},"id":"p-3"}}
END
