#!/usr/bin/env python3
"""A handler that passes messages of users on to other servers, {"servers": [name, ...], ...}, and those of other servers to the
users whom they name, {"users": [name, ...], ...}, who need not be there. Without "servers" a user gets back who he is said to be.

The file calls.log beside the configuration gets a line for each message of another server. Such a message is refused with
{"refuse": NAME} on the server of that name, and goes back to the server that it comes from with {"round": true}; with {"dies": N} the handler dies of the
first N of them."""
import json
import os
import struct
import sys

calls = os.open("calls.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
here = os.environ["BESTER_SERVER"]

while length := sys.stdin.buffer.read(4):
    request = json.loads(sys.stdin.buffer.read(struct.unpack("<I", length)[0]))
    data, origin = request["payload"]["data"], request["header"]["from"]
    header = {"status": "0", "inReplyTo": request["header"]["messageId"]}
    if origin["scope"] == "server":
        line = {"from": origin, "hops": request["header"]["hops"], "id": request["payload"].get("id"), "data": data}
        os.write(calls, json.dumps(line).encode() + b"\n")
        if "dies" in data and open("calls.log").read().count('"dies"') <= data["dies"]:
            sys.exit(1)
        if data.get("refuse") == here:
            header["status"] = "no"
        elif data.get("round"):
            header.update(command="sendServers", commandData=[origin["server"]])
        else:
            header.update(command="sendClients", commandData=data.get("users", []), offline="queue")
    elif "servers" in data:
        header.update(command="sendServers", commandData=data["servers"])
    else:
        header.update(command="reply")
        data = origin
    frame = json.dumps({"header": header, "payload": {"data": data}}).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(frame)) + frame)
    sys.stdout.buffer.flush()
