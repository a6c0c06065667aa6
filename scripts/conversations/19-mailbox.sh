#!/bin/sh
# Bob gets what was written while he was away, again until he acknowledges it. Alice sends again, and it counts once.
. "$(dirname "$0")/common"

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT

# bob_comes, then lines to descriptor 3, and bob_leaves. His half stays open meanwhile: to a client that has closed it, no mail
# is sent.
bob_comes() {
	rm -f "$room/bob"
	mkfifo "$room/bob"
	: >"$room/seen"
	"$BESTER" frame <"$room/bob" | nc -N "$HOST" "$PORT" | "$BESTER" frame -d >"$room/seen" &
	exec 3>"$room/bob"
	echo '{"header":{"authentication":{"username":"bob","password":"battery staple"},"options":{"ack":true}}}' >&3
}
# bob_pings LINES: and waits until he has so many lines. An acknowledgement has no answer, but comes before that of the ping.
bob_pings() {
	echo '{"payload":{"type":"builtin","data":{"command":{"type":"ping"}},"id":"p"}}' >&3
	wait_for_lines "$room/seen" "$1"
}
bob_leaves() {
	exec 3>&-
	wait
	hide <"$room/seen"
}

echo "alice, while bob is away:"
talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"mail","data":{"to":["bob"],"text":"lunch?"},"id":"a-1"}}
END

echo "bob, who does not acknowledge:"
bob_comes
wait_for_lines "$room/seen" 2
bob_leaves

echo "bob, who does:"
bob_comes
wait_for_lines "$room/seen" 2
echo '{"payload":{"type":"builtin","data":{"command":{"type":"ack","args":{"seq":1}}}}}' >&3
bob_pings 3
bob_leaves

# Alice's connection breaks after the first time, for all that she knows. What bob gets next is numbered without a gap.
bob_comes
wait_for_lines "$room/seen" 1
bob_pings 2
for try in first second; do
	"$BESTER" frame <<'END' | nc -N "$HOST" "$PORT" | "$BESTER" frame -d >"$room/$try"
{"header":{"authentication":{"username":"alice","password":"correct horse"},"options":{"dedupe":true}},"payload":{"type":"mail","data":{"to":["bob"],"text":"once"},"id":"a-2"}}
END
	echo "alice, the $try time:"
	hide <"$room/$try"
done
# With the messageId, which is hidden above.
cmp "$room/first" "$room/second" && echo "byte for byte the same"
echo "alice, once more:"
talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"mail","data":{"to":["bob"],"text":"after"},"id":"a-3"}}
END
wait_for_lines "$room/seen" 4
echo '{"payload":{"type":"builtin","data":{"command":{"type":"ack","args":{"seq":3}}}}}' >&3
bob_pings 5
echo "bob, who was there:"
bob_leaves
