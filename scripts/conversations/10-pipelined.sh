#!/bin/sh
# Several messages in one go, and then the end of the input: each gets its answer before the server closes.
. "$(dirname "$0")/common"

talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
{"payload":{"type":"echo","data":1,"id":"m-1"}}
{"payload":{"type":"echo","data":2,"id":"m-2"}}
{"payload":{"type":"echo","data":3}}
{"payload":{"type":"echo","data":4,"id":"m-4"}}
END
echo "and 500 of them, as sums of what came back:"
{
	echo '{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}'
	number=0
	while [ "$number" -lt 500 ]; do
		number=$((number + 1))
		printf '{"payload":{"type":"echo","data":[%d],"id":"m-%d"}}\n' "$number" "$number"
	done
} | talk | awk '
	/"receivedMessage"/ { deliveries++; match($0, /\[[0-9]+\]/); number = substr($0, RSTART + 1, RLENGTH - 2); if (number != deliveries) late++ }
	/"statusReport"/ && /"delivered":1/ { reports++ }
	END { printf "%d deliveries, %d out of order, %d good reports\n", deliveries, late, reports }'
