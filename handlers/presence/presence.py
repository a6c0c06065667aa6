#!/usr/bin/env python3
"""Presence: who is online, told to those who asked. README.md beside this file shows what to send and what comes back.

Two things happen at once: users ask (handle), and the server tells who comes and goes (follow). Presence is what they share.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, Iterable

# Where bester.py is. Not needed once it is copied beside this file.
sys.path.append(os.path.join(os.path.dirname(__file__), "..", "python"))
import bester

WATCHERS_MAX = 10_000  # each change is told to all of them in one command, and the server's `recipients` is 10000
NAMES_MAX = 5_000  # in one answer, which then has at most 400 kB; a client that is sent more than 1 MiB at once is cut off
USAGE = 'send {"watch":true}, {"watch":false} or {"who":true}'


class Presence:
    """Who is online and who is watching. Users cannot be more than the server takes connections."""

    def __init__(self, informer: bester.Informer, online: Iterable[str]) -> None:
        self._informer = informer
        self._online = set(online)
        self._watchers: set[str] = set()
        # Whoever has it may change the above, and writes what follows from that before giving it back. Or else a watcher could
        # be told that bob has come, and after that be given a list, written down a moment before, in which he is missing.
        self._lock = threading.Lock()

    def handle(self, message: bester.Message) -> None:
        """Answers a user's message."""
        user, data = message.local_user, message.data
        if user is None:  # what we push goes to users of this server alone
            raise bester.refuse("notLocal", "only users of this server can ask who is online")
        if data not in ({"watch": True}, {"watch": False}, {"who": True}) or type(list(data.values())[0]) is not bool:  # 1 == True
            raise bester.refuse("badRequest", USAGE)
        with self._lock:
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
                self._tell({"offline": user}, user)
        for user in came:
            with self._lock:
                self._online.add(user)
                self._tell({"online": user}, user)

    def _tell(self, news: dict[str, str], about: str) -> None:
        others = sorted(self._watchers - {about})
        if others:
            bester.push(bester.send(others, news))


def main() -> None:
    informer = bester.Informer()
    changes = informer.watch()
    online, _ = next(changes)  # everybody who is here already
    presence = Presence(informer, online)

    def follow() -> None:
        for came, went in changes:
            presence.change(came, went)

    bester.serve(presence.handle, envelope=True, background=follow)


if __name__ == "__main__":
    main()
