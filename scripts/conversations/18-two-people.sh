#!/bin/sh
# Bob stays connected and sees at once what alice says.
. "$(dirname "$0")/common"

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
mkfifo "$room/bob"
: >"$room/seen"
"$BESTER" frame <"$room/bob" | nc -N "$HOST" "$PORT" | "$BESTER" frame -d >"$room/seen" &
exec 3>"$room/bob"

echo '{"header":{"authentication":{"username":"bob","password":"battery staple"}},"payload":{"type":"chat","data":{"join":"cellar"},"id":"b-1"}}' >&3
wait_for_lines "$room/seen" 3
echo "alice:"
talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"chat","data":{"join":"cellar"},"id":"a-1"}}
{"payload":{"type":"chat","data":{"say":"hello bob"},"id":"a-2"}}
{"payload":{"type":"chat","data":{"leave":"cellar"},"id":"a-3"}}
END
wait_for_lines "$room/seen" 6
echo '{"payload":{"type":"chat","data":{"leave":"cellar"},"id":"b-2"}}' >&3
wait_for_lines "$room/seen" 8
exec 3>&-
wait
echo "bob:"
hide <"$room/seen"
