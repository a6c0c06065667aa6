#!/bin/sh
# Nobody may say to be another server where none is known. An invitation is not taken without TLS either: there is no key
# to know the server by later.
. "$(dirname "$0")/common"

echo "a message:"
talk <<'END'
{"header":{"scope":"server","server":"a.example","messageId":"a.example/1-1","hops":1,"from":"alice"},"payload":{"type":"chat","id":"a.example/1-1","data":{"join":"kitchen"}}}
{"payload":{"type":"echo","data":"still here?","id":"m-1"}}
END
echo "an invitation:"
talk <<'END'
{"header":{"scope":"server","server":"a.example","authentication":{"method":"invite","secret":"00112233445566778899aabbccddeeff"}},"payload":{"type":"builtin","id":"join","data":{"command":{"type":"join","args":{"addresses":["a.example:2224"]}}}}}
END
