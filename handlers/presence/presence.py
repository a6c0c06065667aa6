#!/usr/bin/env python3
"""Presence: who is online, here and on other servers, told to those who asked. README.md beside this file shows what to send
and what comes back.

Three things happen at once: users and other servers ask (handle), the server tells who comes and goes (follow), and time
passes (beat). Presence is what they share.

Between two servers there are these data. The first asks for news and is sent again each minute, for whoever gets it forgets it
after three; it is answered with the second, and the third tells what changes after that. Of the last two, one with a lower
number than another that came before it says nothing new.

    {"news":true}                                           and false, when nobody is interested any more
    {"here":["alice"],"count":1,"number":1777636800000}
    {"came":["bob"],"went":["alice"],"number":1777636800001}
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from typing import Any, Callable, Iterable

# Where bester.py is. Not needed once it is copied beside this file.
sys.path.append(os.path.join(os.path.dirname(__file__), "..", "python"))
import bester

WATCHERS_MAX = 10_000  # each change is told to all of them in one command, and the server's `recipients` is 10000
NAMES_MAX = 5_000  # in one answer, which then has at most 400 kB; a client that is sent more than 1 MiB at once is cut off
NAMES_ELSEWHERE_MAX = 2_000  # the same, with the server behind each name: 650 kB
CHANGES_MAX = 20  # that are told one by one; if there are more, the list is told anew
SERVERS_MAX = 64  # that are watched
WATCHES_ELSEWHERE_MAX = 20_000  # of all users together
WANTED_MAX = 256  # servers that want news of this one
REFRESH_SECONDS = 60  # between an answer and the next time that news are asked for
EXPIRE_SECONDS = 180  # after which who has not asked again gets no more news, and who was not answered knows nothing any more
RETRY_SECONDS = 3_600  # until what was not answered is asked again. It waits on the disk, so once is enough; unless it got too old
BEAT_SECONDS = 5

USER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SERVER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:-]{0,252}")
USAGE = 'send {"watch":true}, {"watch":false} or {"who":true}; with "server":NAME beside watch, it is about that server'


class Elsewhere:
    """Another server that is watched."""

    def __init__(self, now: float) -> None:
        self.watchers: set[str] = set()
        self.online: set[str] | None = None  # nothing is known, and watchers wait for the list
        self.count = 0  # how many are online: some more than in the set, if they are many
        self.number = 0  # of what was heard last
        self.asked = now
        self.answered = False


class Presence:
    """Who is online and who is watching. Users cannot be more than the server takes connections."""

    def __init__(
        self,
        informer: bester.Informer,
        online: Iterable[str],
        server: str = "",
        push: Callable[..., None] = bester.push,
        clock: Callable[[], float] = time.monotonic,
        date: Callable[[], float] = time.time,
    ) -> None:
        """`server` is the name of this one."""
        self._informer, self._server, self._push, self._clock, self._date = informer, server, push, clock, date
        self._online = set(online)
        self._watchers: set[str] = set()
        self._elsewhere: dict[str, Elsewhere] = {}
        self._wanted: dict[str, float] = {}  # servers that want news, and until when
        self._number = 0
        # Whoever has it may change the above, and writes what follows from that before giving it back. Or else a watcher could
        # be told that bob has come, and after that be given a list, written down a moment before, in which he is missing.
        self._lock = threading.Lock()

    def handle(self, message: bester.Message) -> None:
        """Answers a message of a user or of another server."""
        if message.peer is not None and message.peer != self._server:
            with self._lock:
                message.answer(self._hear(message.peer, message.data, message.hops))
            return
        user, data = message.local_user, message.data
        if user is None:  # what we push goes to users of this server alone
            raise bester.refuse("notLocal", "only users of this server can ask who is online")
        server = None
        if isinstance(data, dict) and set(data) == {"watch", "server"}:
            server, data = data["server"], {"watch": data["watch"]}
            if not isinstance(server, str) or not SERVER_NAME.fullmatch(server):
                raise bester.refuse("badRequest", USAGE)
        if data not in ({"watch": True}, {"watch": False}, {"who": True}) or type(list(data.values())[0]) is not bool:  # 1 == True
            raise bester.refuse("badRequest", USAGE)
        with self._lock:
            if server is not None and server != self._server:
                self._watch_elsewhere(message, user, server, data["watch"])
                return
            if data == {"watch": False}:
                self._watchers.discard(user)
                message.answer(bester.reply({"watch": False}))
                return
            if "watch" in data:
                if len(self._watchers) >= WATCHERS_MAX and user not in self._watchers:
                    raise bester.refuse("full", f"{WATCHERS_MAX} users are watching already")
                self._watchers.add(user)
            message.answer(bester.reply(self._list(user)))

    def _list(self, user: str) -> dict[str, Any]:
        online = self._online | {user}  # who asks is online, though we may not have been told yet
        return {"who": sorted(online)[:NAMES_MAX], "count": len(online)}

    def change(self, came: Iterable[str], went: Iterable[str]) -> None:
        """Tells the watchers who came and who went."""
        for user in went:
            # Someone who left and was back at once may have asked again before we heard that they had left.
            gone = not self._informer.is_client(user)
            with self._lock:
                self._online.discard(user)
                if gone:
                    self._watchers.discard(user)
                    for server in [server for server, other in self._elsewhere.items() if user in other.watchers]:
                        if self._unwatch(user, server):
                            self._push(bester.send_servers(server, {"news": False}))
                self._tell({"offline": user}, user)
        for user in came:
            with self._lock:
                self._online.add(user)
                self._tell({"online": user}, user)

    def _tell(self, news: dict[str, str], about: str) -> None:
        others = sorted(self._watchers - {about})
        if others:
            self._push(bester.send(others, news))
        self._expire()
        if self._wanted:
            came, went = ([about], []) if "online" in news else ([], [about])
            self._push(bester.send_servers(sorted(self._wanted), {"came": came, "went": went, "number": self._next_number()}))

    # Other servers that want news of this one.

    def _expire(self) -> None:
        now = self._clock()
        self._wanted = {server: until for server, until in self._wanted.items() if until > now}

    def _hear(self, server: str, data: object, hops: int) -> bester.Answer:
        """What another server sends."""
        if data in ({"news": True}, {"news": False}) and isinstance(data, dict) and type(data["news"]) is bool:
            self._expire()
            self._wanted.pop(server, None)
            if not data["news"]:
                return None
            if len(self._wanted) >= WANTED_MAX:
                raise bester.refuse("full", f"{WANTED_MAX} servers are watching already")
            self._wanted[server] = self._clock() + EXPIRE_SECONDS
            here = sorted(self._online)[:NAMES_ELSEWHERE_MAX]
            return bester.reply({"here": here, "count": len(self._online), "number": self._next_number()})
        number = data.get("number") if isinstance(data, dict) else None
        if not isinstance(data, dict) or type(number) is not int or number < 1:
            raise bester.refuse("badRequest", "this is not what servers tell each other about who is online")
        if set(data) == {"here", "count", "number"}:
            return self._list_came(server, names(data["here"]), data["count"], number, hops)
        if set(data) == {"came", "went", "number"}:
            return self._changes_came(server, names(data["came"]), names(data["went"]), number, hops)
        raise bester.refuse("badRequest", "this is not what servers tell each other about who is online")

    def _next_number(self) -> int:
        """Rises, also from one start of this program to the next."""
        self._number = max(self._number + 1, int(self._date() * 1000))
        return self._number

    # Other servers that are watched.

    def _watch_elsewhere(self, message: bester.Message, user: str, server: str, watch: bool) -> None:
        other = self._elsewhere.get(server)
        if not watch:
            ended = self._unwatch(user, server)
            reply = bester.reply({"server": server, "watch": False})
            message.answer([reply, bester.send_servers(server, {"news": False})] if ended else reply)
            return
        if other is None and len(self._elsewhere) >= SERVERS_MAX:
            raise bester.refuse("full", f"{SERVERS_MAX} servers are watched already; watch one of those")
        if other is None or user not in other.watchers:
            watches = sum(len(each.watchers) for each in self._elsewhere.values())
            if watches >= WATCHES_ELSEWHERE_MAX or (other is not None and len(other.watchers) >= WATCHERS_MAX):
                raise bester.refuse("full", "too many users are watching other servers already")
        if other is None:
            other = self._elsewhere[server] = Elsewhere(self._clock())
            other.watchers.add(user)
            reply = bester.reply({"server": server, "watch": True})
            message.answer([reply, bester.send_servers(server, {"news": True})], then=lambda outcome: self._asked(server, outcome))
            return
        other.watchers.add(user)
        message.answer(bester.reply({"server": server, "watch": True} if other.online is None else self._list_of(server, other)))

    def _asked(self, server: str, outcome: bester.Outcome) -> None:
        """Whether a server could be asked for news."""
        with self._lock:
            other = self._elsewhere.get(server)
            if other is not None and server in outcome.unknown:
                del self._elsewhere[server]
                self._push(bester.send(sorted(other.watchers), {"server": server, "watch": False}))

    def _unwatch(self, user: str, server: str) -> bool:
        """Whether nobody watches that server any more."""
        other = self._elsewhere.get(server)
        if other is None or user not in other.watchers:
            return False
        other.watchers.remove(user)
        if not other.watchers:
            del self._elsewhere[server]
        return not other.watchers

    def _list_of(self, server: str, other: Elsewhere) -> dict[str, Any]:
        return {"server": server, "who": [f"{user}@{server}" for user in sorted(other.online or ())], "count": other.count}

    def _list_came(self, server: str, here: set[str], count: object, number: int, hops: int) -> bester.Answer:
        other = self._elsewhere.get(server)
        if type(count) is not int or count < len(here):
            raise bester.refuse("badRequest", "count is less than there are names")
        if other is None:
            return not_wanted(hops)
        if number <= other.number and other.online is not None:
            return None
        before, other.online = other.online, here
        other.number, other.count, other.answered = number, count, True
        if before is None:
            return bester.send(sorted(other.watchers), self._list_of(server, other))
        # With more than the list has room for, one who is not in it may be online.
        went = before - here if count == len(here) else set()
        return self._changes(server, other, here - before, went)

    def _changes_came(self, server: str, came: set[str], went: set[str], number: int, hops: int) -> bester.Answer:
        other = self._elsewhere.get(server)
        if other is None:
            return not_wanted(hops)
        if other.online is None or number <= other.number:  # the list will say it
            return None
        other.number = number
        came -= other.online
        other.online -= went
        other.count = max(len(other.online), other.count + len(came) - len(went))
        other.online |= set(sorted(came)[: NAMES_ELSEWHERE_MAX - len(other.online)])
        return self._changes(server, other, came, went)

    def _changes(self, server: str, other: Elsewhere, came: set[str], went: set[str]) -> bester.Answer:
        watchers = sorted(other.watchers)
        if len(came) + len(went) > CHANGES_MAX:
            return bester.send(watchers, self._list_of(server, other))
        news = [{"offline": f"{user}@{server}"} for user in sorted(went)] + [{"online": f"{user}@{server}"} for user in sorted(came)]
        return [bester.send(watchers, each) for each in news]

    def beat(self) -> None:
        """Time has passed."""
        with self._lock:
            self._expire()
            now = self._clock()
            for server, other in self._elsewhere.items():
                silent = now - other.asked
                if not other.answered and silent >= EXPIRE_SECONDS and other.online is not None:
                    other.online = None
                    self._push(bester.send(sorted(other.watchers), {"server": server, "who": None}))
                if silent >= (REFRESH_SECONDS if other.answered else RETRY_SECONDS):
                    other.asked, other.answered = now, False
                    self._push(bester.send_servers(server, {"news": True}), then=self._then_asked(server))

    def _then_asked(self, server: str) -> Callable[[bester.Outcome], None]:
        return lambda outcome: self._asked(server, outcome)


def names(value: object) -> set[str]:
    """The names of users in a list of another server's."""
    if not isinstance(value, list) or len(value) > NAMES_ELSEWHERE_MAX:
        raise bester.refuse("badRequest", f"a list of at most {NAMES_ELSEWHERE_MAX} names is missing")
    if not all(isinstance(name, str) and USER_NAME.fullmatch(name) for name in value):
        raise bester.refuse("badRequest", "one of the names is none")
    return set(value)


def not_wanted(hops: int) -> bester.Answer:
    """To news that nobody here wants. That is said to news alone, which is never the answer to it."""
    return bester.reply({"news": False}) if hops <= 2 else None


def main() -> None:
    informer = bester.Informer()
    changes = informer.watch()
    online, _ = next(changes)  # everybody who is here already
    presence = Presence(informer, online, os.environ.get("BESTER_SERVER", ""))

    def follow() -> None:
        for came, went in changes:
            presence.change(came, went)

    def beat() -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            presence.beat()

    bester.serve(presence.handle, envelope=True, background=[follow, beat])


if __name__ == "__main__":
    main()
