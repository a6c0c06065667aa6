#!/bin/sh
# Before the login, whatever is no message ends the connection.
. "$(dirname "$0")/common"

for line in '{"header":' '' '[]' '{"header":{"authentication":{"username":"alice"}},"payload":{"type":"echo","data":1,"id":"m-1"}}'; do
	echo "to <$line>:"
	printf '%s\n%s\n' "$line" '{"payload":{"type":"builtin","data":{"command":{"type":"ping"}},"id":"p"}}' | talk --raw
done
echo "to a length of 4 GiB:"
printf '\377\377\377\377' | nc -N "$HOST" "$PORT" | "$BESTER" frame -d | hide
echo "to half a frame:"
printf '\100\0\0\0{"payload":' | nc -N "$HOST" "$PORT" | "$BESTER" frame -d | hide
