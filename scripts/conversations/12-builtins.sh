#!/bin/sh
# What a session can ask the server itself.
. "$(dirname "$0")/common"

talk <<'END' | sed -E 's/"server":"[^"]*"/"server":"SERVER"/; s/"(session|sessions)":[0-9]+/"\1":NUMBER/g'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
{"payload":{"type":"dummy","data":null,"id":"d"}}
{"payload":{"type":"builtin","data":{"command":{"type":"whoami"}},"id":"w"}}
{"payload":{"type":"builtin","data":{"command":{"type":"handlers"}},"id":"h"}}
{"payload":{"type":"builtin","data":{"command":{"type":"dance"}},"id":"x"}}
END
