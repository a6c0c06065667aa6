#!/usr/bin/env python3
"""Chat: rooms that people join, leave and talk in. README.md beside this file shows what to send and what comes back.

Rooms is the chat itself: who is where, and who is told what. It does no input or output and knows nothing of frames.
Below it, answer() and main() speak the protocol: one envelope frame in, one answer frame out, until the input ends.
"""
from __future__ import annotations

import json
import os
import re
import struct
import sys
import traceback
from collections import deque
from datetime import datetime, timezone
from typing import Any, BinaryIO, NamedTuple

# Everything lives in memory, so everything has an end.
ROOMS_MAX = 200  # with the two below: at the very worst 80 MB of history
HISTORY_MAX = 50  # messages kept in a room; even if all are control characters, the answer to "history" is below 1 MiB
TEXT_MAX = 2_000  # characters in a message: a page; longer things belong in a file
MEMBERS_MAX = 500  # in a room; each message is delivered to every one of them
ROOMS_PER_USER_MAX = 20  # so that nobody takes all the rooms for himself
HISTORY_DEFAULT = 20  # messages that "history" shows unless it says how many
FRAME_BYTES_MAX = 16 << 20  # far more than a server sends: a longer one means that we have lost our place

ROOM_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
ROOM_NAME_RULE = "a room's name has 1 to 32 characters of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"
USAGE = (
    'send one of {"join":ROOM}, {"leave":ROOM}, {"say":TEXT,"room":ROOM}, {"who":ROOM}, {"history":ROOM,"last":COUNT}; '
    "apart from join, ROOM may be null while you are in exactly one room"
)


class Refused(Exception):
    """The user's mistake: a word for programs and a sentence for people."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Send(NamedTuple):
    """Something to deliver: to these users, or to the connection that asked if there are none."""

    to: list[str] | None
    data: dict[str, Any]


class Room:
    """One room. It is there as long as it has members."""

    def __init__(self) -> None:
        self.members: set[str] = set()
        self.history: deque[dict[str, str]] = deque(maxlen=HISTORY_MAX)


class Rooms:
    """All rooms, and what happens when somebody sends something."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}
        self._verbs = {
            "join": self._join,
            "leave": self._leave,
            "say": self._say,
            "who": self._who,
            "history": self._history,
        }

    def handle(self, user: str, data: object, at: str) -> list[Send]:
        """What to deliver because `user` sent `data` at the time `at`. Raises Refused, and then nothing has changed."""
        if not isinstance(data, dict):
            raise Refused("badRequest", USAGE)
        verbs = [key for key in data if key in self._verbs]
        if len(verbs) != 1:
            raise Refused("badRequest", USAGE)
        return self._verbs[verbs[0]](user, data, at)

    def _join(self, user: str, data: dict[str, Any], at: str) -> list[Send]:
        name = data["join"]
        if not isinstance(name, str) or not ROOM_NAME.fullmatch(name):
            raise Refused("badRequest", ROOM_NAME_RULE)
        room = self._rooms.get(name)
        news = room is None or user not in room.members
        if news:
            if len(self._of(user)) >= ROOMS_PER_USER_MAX:
                raise Refused("full", f"you are in {ROOMS_PER_USER_MAX} rooms already; leave one first")
            if room is None and len(self._rooms) >= ROOMS_MAX:
                raise Refused("full", f"there are {ROOMS_MAX} rooms already; join one of them")
            if room is not None and len(room.members) >= MEMBERS_MAX:
                raise Refused("full", f"{name} is full")
        if room is None:
            room = self._rooms[name] = Room()
        others = sorted(room.members)
        room.members.add(user)
        event = {"room": name, "joined": user, "at": at}
        sends = [Send(None, {**event, "members": sorted(room.members), "messages": len(room.history)})]
        if news and others:
            sends.append(Send(others, event))
        return sends

    def _leave(self, user: str, data: dict[str, Any], at: str) -> list[Send]:
        name, room = self._room_of(user, data["leave"])
        room.members.remove(user)
        if not room.members:
            del self._rooms[name]
        event = {"room": name, "left": user, "at": at}
        sends = [Send(None, event)]
        if room.members:
            sends.append(Send(sorted(room.members), event))
        return sends

    def _say(self, user: str, data: dict[str, Any], at: str) -> list[Send]:
        text = data["say"]
        if not isinstance(text, str) or not text.strip():
            raise Refused("badRequest", "say needs a text that is not empty")
        if len(text) > TEXT_MAX:
            raise Refused("badRequest", f"a message has at most {TEXT_MAX} characters, this one has {len(text)}")
        if re.search("[\ud800-\udfff]", text):  # half a character: UTF-8 cannot write it, and many parsers choke on it
            raise Refused("badRequest", "the text has half of a surrogate pair in it")
        name, room = self._room_of(user, data.get("room"))
        said = {"from": user, "said": text, "at": at}
        room.history.append(said)
        # The speaker is sent it too, so that everyone sees the same messages in the same order.
        return [Send(sorted(room.members), {"room": name, **said})]

    def _who(self, user: str, data: dict[str, Any], at: str) -> list[Send]:
        name, room = self._room_of(user, data["who"])
        return [Send(None, {"room": name, "members": sorted(room.members)})]

    def _history(self, user: str, data: dict[str, Any], at: str) -> list[Send]:
        name, room = self._room_of(user, data["history"])
        last = data.get("last", HISTORY_DEFAULT)
        if type(last) is not int or not 1 <= last <= HISTORY_MAX:  # True is an int to isinstance
            raise Refused("badRequest", f"last must be a whole number from 1 to {HISTORY_MAX}")
        return [Send(None, {"room": name, "history": list(room.history)[-last:]})]

    def _of(self, user: str) -> list[str]:
        return sorted(name for name, room in self._rooms.items() if user in room.members)

    def _room_of(self, user: str, name: object) -> tuple[str, Room]:
        """The room that is meant, which must be one that the user is in."""
        if name is None:
            mine = self._of(user)
            if len(mine) != 1:
                where = f"you are in several rooms, say which: {', '.join(mine)}" if mine else "you are in no room"
                raise Refused("badRequest" if mine else "notMember", where)
            name = mine[0]
        if not isinstance(name, str) or not ROOM_NAME.fullmatch(name):
            raise Refused("badRequest", ROOM_NAME_RULE)
        room = self._rooms.get(name)
        if room is None or user not in room.members:
            raise Refused("notMember", f"you are not in {name}")
        return name, room


# From here on: the protocol.


def speaker(header: dict[str, Any]) -> str:
    """The user who sent the message. The server fills this in, so unlike anything in the data it can be believed."""
    origin = header.get("from")
    if not isinstance(origin, dict) or origin.get("scope") != "client" or origin.get("verified") is not True:
        # alice of another server is not our alice, and what we send to users reaches only those of this server.
        raise Refused("notLocal", "this chat is for the users of this server")
    user: str = origin["user"]
    return user


def answer(rooms: Rooms, request: dict[str, Any], at: str) -> dict[str, Any]:
    """The answer to one request in envelope form; inReplyTo tells the server which request it belongs to."""
    header: dict[str, Any] = {"status": "0", "inReplyTo": request["header"]["messageId"]}
    try:
        sends = rooms.handle(speaker(request["header"]), request["payload"]["data"], at)
    except Refused as refusal:
        return {"header": {**header, "status": refusal.status}, "payload": {"data": refusal.text}}
    except Exception:  # a bug: it should cost one request, not all the rooms
        traceback.print_exc()
        return {"header": {**header, "status": "internal"}, "payload": {"data": "the chat has made a mistake"}}
    orders = [
        {"command": "reply", "payload": {"data": send.data}}
        if send.to is None
        else {"command": "sendClients", "commandData": send.to, "payload": {"data": send.data}}
        for send in sends
    ]
    if len(orders) > 1:
        return {"header": {**header, "commands": orders}}
    payload = orders[0].pop("payload")
    return {"header": {**header, **orders[0]}, "payload": payload}


def whole_number(digits: str) -> int | float:
    """int() raises an error beyond 4,300 digits, and no number of ours has 19."""
    return int(digits) if len(digits) < 19 else float(digits)


def read_frame(source: BinaryIO) -> bytes | None:
    """The bytes of the next frame, or None at the end of the input; read(n) returns fewer bytes only there."""
    prefix = source.read(4)
    if len(prefix) < 4:
        return None
    (size,) = struct.unpack("<I", prefix)
    if size > FRAME_BYTES_MAX:
        sys.exit(f"a frame of {size} bytes cannot be one of the server's")
    frame = source.read(size)
    return frame if len(frame) == size else None


def write_frame(sink: BinaryIO, value: object) -> None:
    # Not ASCII alone: people read the text as it stands here.
    frame = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    sink.write(struct.pack("<I", len(frame)) + frame)
    sink.flush()


def main() -> None:
    # Only frames may go to the server. Keep its pipe for them, and let whatever prints (here, in a library, in a
    # program that we start) print to the server's log instead.
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    rooms = Rooms()
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        try:
            request = json.loads(frame.decode("utf-8"), parse_int=whole_number)
            at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            reply = answer(rooms, request, at)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            # Not a request, so there is no messageId to answer to.
            print(f"ignored a frame that is no request: {error!r}", file=sys.stderr)
            continue
        write_frame(frames, reply)


if __name__ == "__main__":
    main()
