#!/bin/sh
# A type without a handler is reported, and the connection goes on.
. "$(dirname "$0")/common"

talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
{"payload":{"type":"no-such-type","data":1,"id":"m-1"}}
{"payload":{"type":"echo","data":2,"id":"m-2"}}
END
