#!/bin/sh
# After a logout the connection is there for the next user. A logout waits for the answers to what was sent before.
. "$(dirname "$0")/common"

talk <<'END' | sed -E 's/"server":"[^"]*"/"server":"SERVER"/; s/"(session|sessions)":[0-9]+/"\1":NUMBER/g'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
{"payload":{"type":"echo","data":"still alice","id":"m-1"}}
{"payload":{"type":"builtin","data":{"command":{"type":"logout"}},"id":"l"}}
{"payload":{"type":"echo","data":"nobody","id":"m-2"}}
{"payload":{"type":"builtin","data":{"command":{"type":"login","args":{"username":"bob","password":"battery staple"}}},"id":"a"}}
{"payload":{"type":"builtin","data":{"command":{"type":"whoami"}},"id":"w"}}
END
