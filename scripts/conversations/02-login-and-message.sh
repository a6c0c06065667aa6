#!/bin/sh
# The first message may log in and ask for something at once. The handler's reply comes before the report.
. "$(dirname "$0")/common"

talk <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"},"scope":"client"},"payload":{"type":"echo","data":"hello","id":"m-1"}}
END
