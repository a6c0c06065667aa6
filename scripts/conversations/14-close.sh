#!/bin/sh
# The server closes when it is asked to, though netcat (without -N) would stay for ever.
. "$(dirname "$0")/common"

"$BESTER" frame <<'END' | nc "$HOST" "$PORT" | "$BESTER" frame -d | hide
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"echo","data":"last words","id":"m-1"}}
{"payload":{"type":"builtin","data":{"command":{"type":"close"}},"id":"c"}}
{"payload":{"type":"echo","data":"too late","id":"m-2"}}
END
