#!/bin/sh
# Data comes back as it was sent: order, spaces, numbers of any size, keys that stand twice, escapes; the id as well.
. "$(dirname "$0")/common"

talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
{"payload":{"type":"echo","data":{ "b":1, "a":1.0,"a":1e999 ,"n":-1234567890123456789012345678901234567890,"s":"\u00e4ä\/\ud800","e":[ ] },"id":"\u0063-\u00e4"}}
END
