#!/bin/sh
# A wrong password ends the connection: the second message is not handled. An unknown user gets the same bytes.
. "$(dirname "$0")/common"

wrong() {
	talk <<END
{"header":{"authentication":{"username":"$1","password":"wrong"}},"payload":{"type":"echo","data":"first","id":"m-1"}}
{"payload":{"type":"echo","data":"second","id":"m-2"}}
END
}

alice=$(wrong alice)
nobody=$(wrong nobody)
echo "$alice"
[ "$alice" = "$nobody" ] && echo "the same for a user who does not exist"
