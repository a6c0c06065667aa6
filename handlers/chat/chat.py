#!/usr/bin/env python3
"""Chat: rooms that people join, leave and talk in, also those of other servers. README.md beside this file shows what to send
and what comes back.

Rooms is the chat itself: who is where, and who is told what. It does no input or output. handle(), at the end, is all that
lies between it and the server.

A room is at home on one server, and what happens in it happens there. Who sits elsewhere has their own server's chat ask for
them, and what is to be told to them goes to that chat in return. Between two chats there are three kinds of data:

    {"join":"kitchen","turn":7}            a request of a user of the server it comes from, as that user made it
    {"tell":EVENT,"room":"kitchen","to":{"a.example":["alice"]}}   tell these users of yours; with "turn" it answers that request
    {"gone":["alice"],"room":"kitchen","turn":9}   these users of mine, to whom you have sent something, are not in your room

A request leads to what is told, and that leads to nothing but "gone": nothing can go in circles.
"""
from __future__ import annotations

import os
import re
import sys
import time
from collections import deque
from datetime import datetime, timezone
from typing import Any, Callable, Iterable, NamedTuple, Optional, Union

# Where bester.py is. Not needed once it is copied beside this file.
sys.path.append(os.path.join(os.path.dirname(__file__), "..", "python"))
import bester

# Everything lives in memory, so everything has an end.
ROOMS_MAX = 200  # with the two below: at the very worst 80 MB of history
HISTORY_MAX = 50  # messages kept in a room; even if all are control characters, the answer to "history" is below 1 MiB
TEXT_MAX = 2_000  # characters in a message: a page; longer things belong in a file
MEMBERS_MAX = 500  # in a room; each message is delivered to every one of them
MEMBERS_PER_SERVER_MAX = 250  # of one other server in a room: it can make up users, and must leave room for others
ROOMS_PER_USER_MAX = 20  # so that nobody takes all the rooms for himself
STAYS_MAX = 10_000  # of users of this server in rooms elsewhere, together
HISTORY_DEFAULT = 20  # messages that "history" shows unless it says how many
GONE_MAX = 20  # users whom one "gone" names, each of whom is told to all members; the next one names more
TOLD_BYTES_MAX = 900_000  # of what another server tells: clients are cut off at 1 MiB, and no honest event is that long
TURN_MAX = 1 << 53  # milliseconds, and whole numbers that every JSON parser can tell apart

ROOM_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
USER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SERVER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:-]{0,252}")
ROOM_NAME_RULE = (
    "a room's name has 1 to 32 characters of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit; "
    "for a room of another server, @ and the name of the server follow"
)
USAGE = (
    'send one of {"join":ROOM}, {"leave":ROOM}, {"say":TEXT,"room":ROOM}, {"who":ROOM}, {"history":ROOM,"last":COUNT}; '
    "apart from join, ROOM may be null while you are in exactly one room"
)
EVENT_KEYS = ("joined", "left", "from", "said", "at", "members", "messages", "history", "refused", "because")


class Send(NamedTuple):
    """Something to deliver: to these users, or to whoever asked if there are none."""

    to: list[str] | None
    data: dict[str, Any]


class Pass(NamedTuple):
    """Something for the chats of these servers."""

    to: list[str]
    data: dict[str, Any]


Act = Union[Send, Pass]


class Room:
    """One room of this server. It is there as long as it has members."""

    def __init__(self) -> None:
        # With the turn of the request by which they joined, which orders what comes from other servers: it may come in
        # another order than it was sent. Members here have 0; those elsewhere are called name@server.
        self.members: dict[str, int] = {}
        self.history: deque[dict[str, str]] = deque(maxlen=HISTORY_MAX)


JOINING, JOINED, LEAVING = "joining", "joined", "leaving"


class Stay(NamedTuple):
    """A user of this server in a room of another one."""

    state: str
    turn: int  # of the last join or leave


class Rooms:
    """All rooms, and what happens when somebody sends something."""

    def __init__(self, server: str, clock: Callable[[], float] = time.time) -> None:
        """`server` is the name of this one; `clock` gives the seconds since 1970."""
        self.server = server
        self._clock = clock
        self._turn = 0
        self._rooms: dict[str, Room] = {}
        # Of each user of this server the rooms elsewhere: name@server.
        self._stays: dict[str, dict[str, Stay]] = {}
        self._stays_count = 0
        self._verbs = {
            "join": self._join,
            "leave": self._leave,
            "say": self._say,
            "who": self._who,
            "history": self._history,
        }

    # What users of this server send.

    def handle(self, user: str, data: object, at: str) -> list[Act]:
        """What to do because `user` of this server sent `data` at the time `at`. Raises a refusal, and then nothing has
        changed."""
        if not isinstance(data, dict):
            raise bester.refuse("badRequest", USAGE)
        verbs = [key for key in data if key in self._verbs]
        if len(verbs) != 1:
            raise bester.refuse("badRequest", USAGE)
        verb = verbs[0]
        if verb == "say":
            check_text(data["say"])
        name = data.get("room") if verb == "say" else data[verb]
        if name is None and verb != "join":
            name = self._only_room(user)
        room, at_sign, server = name.partition("@") if isinstance(name, str) else ("", "", "")
        if not ROOM_NAME.fullmatch(room) or (at_sign and not SERVER_NAME.fullmatch(server)):
            raise bester.refuse("badRequest", ROOM_NAME_RULE)
        if server and server != self.server:
            return self._ask(user, verb, room, server, data, at)
        return self._verbs[verb](user, room, data, at, 0)

    def _join(self, who: str, name: str, _data: dict[str, Any], at: str, turn: int) -> list[Act]:
        room = self._rooms.get(name)
        news = room is None or who not in room.members
        _, _, server = who.partition("@")
        if room is None and server:  # or other servers could take all the rooms
            raise bester.refuse("notFound", f"there is no room {name} here; who is at home here can make one")
        if news:
            if len(self._of(who)) >= ROOMS_PER_USER_MAX:
                raise bester.refuse("full", f"you are in {ROOMS_PER_USER_MAX} rooms already; leave one first")
            if room is None and len(self._rooms) >= ROOMS_MAX:
                raise bester.refuse("full", f"there are {ROOMS_MAX} rooms already; join one of them")
            if room is not None and len(room.members) >= MEMBERS_MAX:
                raise bester.refuse("full", f"{name} is full")
            if room is not None and server and sum(each.endswith("@" + server) for each in room.members) >= MEMBERS_PER_SERVER_MAX:
                raise bester.refuse("full", f"{name} is full for users of {server}")
        if room is None:
            room = self._rooms[name] = Room()
        room.members[who] = max(turn, room.members.get(who, 0))
        event = {"room": name, "joined": who, "at": at}
        acts: list[Act] = [Send(None, {**event, "members": sorted(room.members), "messages": len(room.history)})]
        return acts + self._told(name, event, but=who) if news else acts

    def _leave(self, who: str, name: str, _data: dict[str, Any], at: str, turn: int) -> list[Act]:
        room = self._room_with(who, name)
        if turn < room.members[who]:  # it was overtaken by a join that came after it
            return []
        event = {"room": name, "left": who, "at": at}
        self._remove(who, name)
        return [Send(None, event), *self._told(name, event)]

    def _say(self, who: str, name: str, data: dict[str, Any], at: str, _turn: int) -> list[Act]:
        said = {"from": who, "said": data["say"], "at": at}
        self._room_with(who, name).history.append(said)
        # The speaker is sent it too, so that everyone sees the same messages in the same order.
        return self._told(name, {"room": name, **said})

    def _who(self, who: str, name: str, _data: dict[str, Any], _at: str, _turn: int) -> list[Act]:
        return [Send(None, {"room": name, "members": sorted(self._room_with(who, name).members)})]

    def _history(self, who: str, name: str, data: dict[str, Any], _at: str, _turn: int) -> list[Act]:
        room = self._room_with(who, name)
        return [Send(None, {"room": name, "history": list(room.history)[-last_of(data) :]})]

    def _told(self, name: str, event: dict[str, Any], but: Optional[str] = None) -> list[Act]:
        """Tells all members, `but` excepted: those here, and with one message all servers that have some."""
        here: list[str] = []
        there: dict[str, list[str]] = {}
        room = self._rooms.get(name)
        for member in sorted(room.members) if room else ():
            user, _, server = member.partition("@")
            if member != but:
                (there.setdefault(server, []) if server else here).append(user)
        acts: list[Act] = [Send(here, event)] if here else []
        if there:
            acts.append(Pass(sorted(there), {"tell": self._abroad(event), "room": name, "to": there}))
        return acts

    def _abroad(self, event: dict[str, Any]) -> dict[str, Any]:
        """As others hear it: with the server behind each name."""

        def name(user: str) -> str:
            return user if "@" in user else f"{user}@{self.server}"

        told = {key: event[key] for key in EVENT_KEYS if key in event}
        for key in ("joined", "left", "from"):
            if key in told:
                told[key] = name(told[key])
        if "members" in told:
            told["members"] = [name(member) for member in told["members"]]
        if "history" in told:
            told["history"] = [{**entry, "from": name(entry["from"])} for entry in told["history"]]
        return told

    def _remove(self, who: str, name: str) -> None:
        room = self._rooms[name]
        del room.members[who]
        if not room.members:
            del self._rooms[name]

    def _of(self, who: str) -> list[str]:
        return sorted([name for name, room in self._rooms.items() if who in room.members] + list(self._stays.get(who, ())))

    def _only_room(self, user: str) -> str:
        """The room that is meant by one who does not say which."""
        mine = self._of(user)
        if len(mine) != 1:
            where = f"you are in several rooms, say which: {', '.join(mine)}" if mine else "you are in no room"
            raise bester.refuse("badRequest" if mine else "notMember", where)
        return mine[0]

    def _room_with(self, who: str, name: str) -> Room:
        """A room of this server, which must be one that they are in."""
        room = self._rooms.get(name)
        if room is None or who not in room.members:
            raise bester.refuse("notMember", f"you are not in {name}")
        return room

    # Rooms of other servers.

    def _ask(self, user: str, verb: str, room: str, server: str, data: dict[str, Any], at: str) -> list[Act]:
        """Asks the room's server. What it answers is told to the user when it comes."""
        place = f"{room}@{server}"
        stay = self._stays.get(user, {}).get(place)
        request: dict[str, Any] = {verb: room}
        if verb == "say":
            request = {"say": data["say"], "room": room}
        elif verb == "history":
            request["last"] = last_of(data)
        if verb == "join":
            if stay is None and len(self._of(user)) >= ROOMS_PER_USER_MAX:
                raise bester.refuse("full", f"you are in {ROOMS_PER_USER_MAX} rooms already; leave one first")
            if stay is None and self._stays_count >= STAYS_MAX:
                raise bester.refuse("full", "too many are in rooms of other servers already")
        elif stay is None or (stay.state == LEAVING and verb != "leave"):
            raise bester.refuse("notMember", f"you are not in {place}")
        elif stay.state == JOINING and verb != "leave":  # what is asked now might get there before the join
            raise bester.refuse("notMember", f"you are not in {place} yet: its server has not answered")
        request["turn"] = turn = self._next_turn()
        acts: list[Act] = [Pass([server], request)]
        if verb == "join":
            self._keep(user, place, Stay(JOINED if stay and stay.state == JOINED else JOINING, turn))
        elif verb == "leave" and stay and stay.state == LEAVING:  # the second time: not to wait for a server that may never answer
            self._drop(user, place)
            acts.insert(0, Send(None, {"room": place, "left": f"{user}@{self.server}", "at": at}))
        elif verb == "leave":
            self._keep(user, place, Stay(LEAVING, turn))
        return acts

    def hear(self, server: str, user: Optional[str], data: object, hops: int, at: str) -> list[Act]:
        """What to do because the chat of `server` sent `data`, perhaps for its `user`. Raises a refusal if that makes no
        sense; one that is meant for the user is sent as an answer."""
        if not isinstance(data, dict):
            raise bester.refuse("badRequest", "the chat of another server sends an object")
        verbs = [key for key in data if key in self._verbs or key in ("tell", "gone")]
        if len(verbs) != 1:
            raise bester.refuse("badRequest", "this is not what chats send each other")
        verb = verbs[0]
        name = data[verb] if verb in ("join", "leave", "who", "history") else data.get("room")
        turn = data.get("turn")
        if not isinstance(name, str) or not ROOM_NAME.fullmatch(name):
            raise bester.refuse("badRequest", ROOM_NAME_RULE)
        if turn is None and verb != "tell" or turn is not None and (type(turn) is not int or not 0 < turn < TURN_MAX):
            raise bester.refuse("badRequest", "turn is no number of milliseconds")
        if verb == "tell":
            return self._tell(server, name, data, turn, hops)
        if verb == "gone":
            return self._gone(server, name, users_in(data["gone"]), turn, at)
        if user is None or not USER_NAME.fullmatch(user):
            raise bester.refuse("badRequest", "the name of who asks is missing, or is none")
        try:
            if verb == "say":
                check_text(data["say"])
            acts = self._verbs[verb](f"{user}@{server}", name, data, at, turn)
        except bester.Refusal as refusal:
            acts = [Send(None, {"refused": refusal.status, "because": refusal.data})]

        def abroad(act: Act) -> Act:
            if act.to is not None:
                return act
            return Pass([server], {"tell": self._abroad(act.data), "room": name, "to": {server: [user]}, "turn": turn})

        return [abroad(act) for act in acts]

    def _tell(self, server: str, room: str, data: dict[str, Any], turn: Optional[int], hops: int) -> list[Act]:
        """A room of `server` has something to tell to users of this one."""
        event, to = data["tell"], data.get("to")
        if not isinstance(event, dict) or not isinstance(to, dict):
            raise bester.refuse("badRequest", "tell and to are objects")
        place = f"{room}@{server}"
        here, strangers = [], []
        for user in users_in(to.get(self.server, [])):
            stay = self._stays.get(user, {}).get(place)
            if stay is None:
                strangers.append(user)
            elif turn is not None or stay.state != LEAVING:
                here.append(user)
            if stay is not None and turn is not None:
                self._answered(user, place, stay, event, turn)
        acts: list[Act] = []
        if here:
            acts.append(Send(here, {"room": place, **{key: event[key] for key in EVENT_KEYS if key in event}}))
        # This chat has been started anew since they joined, or the join was overtaken by the leave. Not to be said about what
        # "gone" itself has led to, or two servers could keep each other busy.
        if strangers and hops <= 2 and not (turn is not None and ("left" in event or "refused" in event)):
            acts.append(Pass([server], {"gone": strangers[:GONE_MAX], "room": room, "turn": self._next_turn()}))
        return acts

    def _answered(self, user: str, place: str, stay: Stay, event: dict[str, Any], turn: int) -> None:
        """The request with this turn has been answered."""
        if turn == stay.turn and "joined" in event and stay.state == JOINING:
            self._keep(user, place, Stay(JOINED, turn))
        elif turn == stay.turn and ("left" in event and stay.state == LEAVING or "refused" in event):
            self._drop(user, place)
        elif turn > stay.turn and event.get("refused") in ("notMember", "notFound"):  # the other chat has been started anew
            self._drop(user, place)

    def _gone(self, server: str, name: str, users: list[str], turn: int, at: str) -> list[Act]:
        """These are in a room here, and know nothing of it."""
        acts: list[Act] = []
        for user in users[:GONE_MAX]:
            who, room = f"{user}@{server}", self._rooms.get(name)
            if room is not None and room.members.get(who, TURN_MAX) < turn:
                self._remove(who, name)
                acts += self._told(name, {"room": name, "left": who, "at": at})
        return acts

    def forget(self, servers: Iterable[str]) -> None:
        """There are no such servers, or not any more."""
        for ending in {f"@{server}" for server in servers}:
            for user, stays in list(self._stays.items()):
                for place in [place for place in stays if place.endswith(ending)]:
                    self._drop(user, place)
            for name, room in list(self._rooms.items()):
                for who in [who for who in room.members if who.endswith(ending)]:
                    self._remove(who, name)

    def _keep(self, user: str, place: str, stay: Stay) -> None:
        stays = self._stays.setdefault(user, {})
        self._stays_count += place not in stays
        stays[place] = stay

    def _drop(self, user: str, place: str) -> None:
        del self._stays[user][place]
        self._stays_count -= 1
        if not self._stays[user]:
            del self._stays[user]

    def _next_turn(self) -> int:
        """Rises, also from one start of this program to the next."""
        self._turn = max(self._turn + 1, int(self._clock() * 1000))
        return self._turn


def check_text(text: object) -> None:
    if not isinstance(text, str) or not text.strip():
        raise bester.refuse("badRequest", "say needs a text that is not empty")
    if len(text) > TEXT_MAX:
        raise bester.refuse("badRequest", f"a message has at most {TEXT_MAX} characters, this one has {len(text)}")
    if re.search("[\ud800-\udfff]", text):  # half a character: UTF-8 cannot write it, and many parsers choke on it
        raise bester.refuse("badRequest", "the text has half of a surrogate pair in it")


def last_of(data: dict[str, Any]) -> int:
    last = data.get("last", HISTORY_DEFAULT)
    if type(last) is not int or not 1 <= last <= HISTORY_MAX:  # True is an int to isinstance
        raise bester.refuse("badRequest", f"last must be a whole number from 1 to {HISTORY_MAX}")
    return last


def users_in(names: object) -> list[str]:
    """The names of users that another server has listed."""
    if not isinstance(names, list) or len(names) > MEMBERS_MAX:
        raise bester.refuse("badRequest", f"a list of at most {MEMBERS_MAX} names is missing")
    if not all(isinstance(name, str) and USER_NAME.fullmatch(name) for name in names):
        raise bester.refuse("badRequest", "one of the names is none")
    return sorted(set(names))


def handle(rooms: Rooms, message: bester.Message) -> bester.Answer:
    at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    user, server = message.local_user, message.peer
    if user is not None:
        acts = rooms.handle(user, message.data, at)
    elif server is not None and server != rooms.server:
        if len(message.raw) > TOLD_BYTES_MAX:
            return bester.refuse("badRequest", f"chats send each other at most {TOLD_BYTES_MAX} bytes")
        acts = rooms.hear(server, message.user, message.data, message.hops, at)
    else:  # nobody vouches for who that is
        return bester.refuse("notLocal", "this chat is for the users of this server, and of servers that it knows")
    answer = [command(act) for act in acts]
    servers = {server for act in acts if isinstance(act, Pass) for server in act.to}
    if not servers:
        return answer
    message.answer(answer, then=lambda outcome: rooms.forget(servers.intersection(outcome.unknown)))
    return None


def command(act: Act) -> bester.Command:
    if isinstance(act, Pass):
        return bester.send_servers(act.to, act.data)
    return bester.reply(act.data) if act.to is None else bester.send(act.to, act.data)


def main() -> None:
    rooms = Rooms(os.environ.get("BESTER_SERVER", ""))
    bester.serve(lambda message: handle(rooms, message), envelope=True)


if __name__ == "__main__":
    main()
