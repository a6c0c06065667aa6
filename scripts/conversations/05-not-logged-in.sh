#!/bin/sh
# Who does not log in first is told so, and that is the end.
. "$(dirname "$0")/common"

talk <<'END'
{"payload":{"type":"echo","data":"hello","id":"m-1"}}
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
END
