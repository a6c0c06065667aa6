#!/bin/sh
# Without an id there is a report only on what failed. Headers after the login are not looked at.
. "$(dirname "$0")/common"

talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
{"header":{"authentication":{"username":"bob","password":"wrong"},"scope":"nonsense"},"payload":{"type":"echo","data":"hello"}}
END
echo "and one that fails:"
talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
{"header":null,"payload":{"type":"no-such-type","data":"hello"}}
END
