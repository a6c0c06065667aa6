#!/bin/sh
# A shell script counts the messages. It may have counted others before, so only the differences are known.
. "$(dirname "$0")/common"

talk <<'END' | awk '
	/"receivedMessage"/ { match($0, /"count":[0-9]+/); count = substr($0, RSTART + 8, RLENGTH - 8); print "one more:", (last ? count - last : 1); last = count; next }
	{ print }'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"count","data":"one"}}
{"payload":{"type":"count","data":{"two":[1,2]},"id":"m-2"}}
{"payload":{"type":"count","data":null}}
END
