#!/bin/sh
# After the login, a frame that is no message gets its report, and the connection goes on.
. "$(dirname "$0")/common"

talk --raw <<'END'
{"header":{"authentication":{"username":"alice","password":"correct horse"}},"payload":{"type":"dummy","data":null}}
{"payload":

{"payload":{"type":"echo","id":"m-1"}}
{"payload":{"type":"echo","type":"echo","data":1,"id":"m-2"}}
{"payload":{"type":"echo","data":2,"id":3}}
{"payload":{"type":"echo","data":"still here","id":"m-4"}}
END
