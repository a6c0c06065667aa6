#!/bin/sh
# A UNIX socket is as good as TCP.
. "$(dirname "$0")/common"

"$BESTER" frame <<'END' | nc -N -U "$SOCKET" | "$BESTER" frame -d | hide
{"header":{"authentication":{"username":"bob","password":"battery staple"}},"payload":{"type":"echo","data":"hello","id":"m-1"}}
{"payload":{"type":"echo","data":"and goodbye","id":"m-2"}}
END
