#!/usr/bin/env python3
"""Chat: rooms that people join, leave and talk in. README.md beside this file shows what to send and what comes back.

Rooms is the chat itself: who is where, and who is told what. It does no input or output. handle(), at the end, is all that
lies between it and the server.
"""
from __future__ import annotations

import os
import re
import sys
from collections import deque
from datetime import datetime, timezone
from typing import Any, NamedTuple

# Where bester.py is. Not needed once it is copied beside this file.
sys.path.append(os.path.join(os.path.dirname(__file__), "..", "python"))
import bester

# Everything lives in memory, so everything has an end.
ROOMS_MAX = 200  # with the two below: at the very worst 80 MB of history
HISTORY_MAX = 50  # messages kept in a room; even if all are control characters, the answer to "history" is below 1 MiB
TEXT_MAX = 2_000  # characters in a message: a page; longer things belong in a file
MEMBERS_MAX = 500  # in a room; each message is delivered to every one of them
ROOMS_PER_USER_MAX = 20  # so that nobody takes all the rooms for himself
HISTORY_DEFAULT = 20  # messages that "history" shows unless it says how many

ROOM_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
ROOM_NAME_RULE = "a room's name has 1 to 32 characters of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"
USAGE = (
    'send one of {"join":ROOM}, {"leave":ROOM}, {"say":TEXT,"room":ROOM}, {"who":ROOM}, {"history":ROOM,"last":COUNT}; '
    "apart from join, ROOM may be null while you are in exactly one room"
)


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
        """What to deliver because `user` sent `data` at the time `at`. Raises a refusal, and then nothing has changed."""
        if not isinstance(data, dict):
            raise bester.refuse("badRequest", USAGE)
        verbs = [key for key in data if key in self._verbs]
        if len(verbs) != 1:
            raise bester.refuse("badRequest", USAGE)
        return self._verbs[verbs[0]](user, data, at)

    def _join(self, user: str, data: dict[str, Any], at: str) -> list[Send]:
        name = data["join"]
        if not isinstance(name, str) or not ROOM_NAME.fullmatch(name):
            raise bester.refuse("badRequest", ROOM_NAME_RULE)
        room = self._rooms.get(name)
        news = room is None or user not in room.members
        if news:
            if len(self._of(user)) >= ROOMS_PER_USER_MAX:
                raise bester.refuse("full", f"you are in {ROOMS_PER_USER_MAX} rooms already; leave one first")
            if room is None and len(self._rooms) >= ROOMS_MAX:
                raise bester.refuse("full", f"there are {ROOMS_MAX} rooms already; join one of them")
            if room is not None and len(room.members) >= MEMBERS_MAX:
                raise bester.refuse("full", f"{name} is full")
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
            raise bester.refuse("badRequest", "say needs a text that is not empty")
        if len(text) > TEXT_MAX:
            raise bester.refuse("badRequest", f"a message has at most {TEXT_MAX} characters, this one has {len(text)}")
        if re.search("[\ud800-\udfff]", text):  # half a character: UTF-8 cannot write it, and many parsers choke on it
            raise bester.refuse("badRequest", "the text has half of a surrogate pair in it")
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
            raise bester.refuse("badRequest", f"last must be a whole number from 1 to {HISTORY_MAX}")
        return [Send(None, {"room": name, "history": list(room.history)[-last:]})]

    def _of(self, user: str) -> list[str]:
        return sorted(name for name, room in self._rooms.items() if user in room.members)

    def _room_of(self, user: str, name: object) -> tuple[str, Room]:
        """The room that is meant, which must be one that the user is in."""
        if name is None:
            mine = self._of(user)
            if len(mine) != 1:
                where = f"you are in several rooms, say which: {', '.join(mine)}" if mine else "you are in no room"
                raise bester.refuse("badRequest" if mine else "notMember", where)
            name = mine[0]
        if not isinstance(name, str) or not ROOM_NAME.fullmatch(name):
            raise bester.refuse("badRequest", ROOM_NAME_RULE)
        room = self._rooms.get(name)
        if room is None or user not in room.members:
            raise bester.refuse("notMember", f"you are not in {name}")
        return name, room


def handle(rooms: Rooms, message: bester.Message) -> bester.Answer:
    user = message.local_user
    if user is None:  # alice of another server is not our alice, and what we send to users reaches only those of this server
        return bester.refuse("notLocal", "this chat is for the users of this server")
    at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    sends = rooms.handle(user, message.data, at)
    return [bester.reply(each.data) if each.to is None else bester.send(each.to, each.data) for each in sends]


def main() -> None:
    rooms = Rooms()
    bester.serve(lambda message: handle(rooms, message), envelope=True)


if __name__ == "__main__":
    main()
