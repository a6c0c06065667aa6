#!/bin/sh
# A login alone is answered with exactly one frame.
. "$(dirname "$0")/common"

talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
END
