"""The books of scripts/ledger: what was sent, what was promised, what came, and whether that is right.

No sockets and no threads are in here but for one lock: everybody tells the Book what happened, and it judges at once what can
be judged at once. That something is missing can only be told at the end of a round.
"""
from __future__ import annotations

import collections
import os
import threading

ROUNDS_KEPT = 2
"""What is older was acknowledged, and the acknowledgement followed by a whole round: it must not come again."""


class Message:
    """What one sender sends once, or again with the same id."""

    __slots__ = ("id", "sender", "number", "to", "text", "size", "round", "state", "counts", "bad_before", "again", "sentinel")

    def __init__(self, sender, number, to, size, text, around, sentinel=False):
        self.id = f"{sender}-{number}"
        self.sender, self.number, self.to, self.size, self.text, self.round = sender, number, to, size, text, around
        self.state = "sent"
        self.counts = None
        self.bad_before = False
        self.again = False
        self.sentinel = sentinel


class Session:
    """A login of a user, as the books see it."""

    __slots__ = ("user", "name", "ack", "after", "run", "began", "ended", "orderly", "seq", "numbers")

    def __init__(self, user, name, ack, after, run, began):
        self.user, self.name, self.ack, self.after, self.run, self.began = user, name, ack, after, run, began
        self.ended = None
        self.orderly = False
        self.seq = 0  # the last that came
        self.numbers = {}  # of each sender: the last of his messages that came


class Reception:
    __slots__ = ("session", "seq", "at")

    def __init__(self, session, seq, at):
        self.session, self.seq, self.at = session, seq, at


class Book:
    """Everything that happened. Each method may be called by any thread; the order of the calls is the order of things."""

    def __init__(self, directory):
        self.directory = directory
        self.lock = threading.Lock()
        self.files = {}
        self.clock = 0
        self.run = 0
        self.round = 0
        self.messages = {}
        self.old = set()
        self.got = collections.defaultdict(dict)  # of each user: of each id: a list of receptions
        self.seqs = collections.defaultdict(dict)  # of each user: of each seq: an id
        self.highest = collections.defaultdict(int)  # of each user: the highest seq among first receptions
        self.numbers = collections.defaultdict(dict)  # of each user who acknowledges: of each sender: the last that was new
        self.wrong = []
        self.totals = collections.Counter()
        self.clean = False  # whether the last run ended as it should
        self.away = set()  # who was away in the whole of the traffic of this round
        self.acks = set()  # who acknowledges in this round
        self.small = False  # whether mailboxes may be full in this round

    def _write(self, who, line):
        if who not in self.files:
            path = os.path.join(self.directory, who)
            self.files[who] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(self.files[who], line.encode())

    def _tick(self):
        self.clock += 1
        return self.clock

    def _wrong(self, kind, words):
        self.wrong.append((kind, f"round {self.round}: {words}"))

    def note(self, kind, words):
        """Something is wrong that is not in the books."""
        with self.lock:
            self._wrong(kind, words)

    def new_round(self, number, acks, away, small):
        with self.lock:
            self.round, self.acks, self.away, self.small = number, set(acks), set(away), small
            for id in [id for id, message in self.messages.items() if message.round <= number - ROUNDS_KEPT]:
                message = self.messages.pop(id)
                self.old.add(id)
                for user in message.to:
                    self.got[user].pop(id, None)

    def new_run(self, clean, small):
        """The server was started again; whether it had ended well before, and whether mailboxes may be full now."""
        with self.lock:
            self.run += 1
            self.clean = clean
            self.small |= small

    # Senders.

    def sent(self, message):
        with self.lock:
            again = message.again = message.id in self.messages
            self.messages[message.id] = message
            self._write(message.sender, f"{'again' if again else 'sent'} {message.id} to {','.join(message.to)} {message.size}\n")
            self.totals["sent again" if again else "sent"] += 1

    def reported(self, message, frame, first_run):
        """`first_run`: the report came in the run in which the message was sent first, so who is away is known."""
        header, data = frame["header"], frame["payload"].get("data")
        with self.lock:
            if header["status"] != "good":
                self._write(message.sender, f"bad {message.id} {header.get('reason')} {header.get('temporary')}\n")
                if message.state == "good":
                    self._wrong("reports", f"{message.id} was good and is now {frame}")
                message.state, message.bad_before = "bad", True
                self.totals[f"bad {header.get('reason')}"] += 1
                return
            counts = {key: data[key] for key in ["delivered", "queued", "offline", "unknown", "refused"]}
            self._write(message.sender, f"good {message.id} {counts['delivered']} {counts['queued']}\n")
            if message.state == "good" and message.counts != counts:
                self._wrong("reports", f"{message.id} was {message.counts} and is now {counts}")
            message.state, message.counts = "good", counts
            self.totals["good"] += 1
            self.totals["queued"] += counts["queued"]
            self.totals["delivered"] += counts["delivered"]
            if counts["queued"] + counts["delivered"] != len(message.to) or counts["unknown"] or counts["refused"] or counts["offline"]:
                self._wrong("counts", f"{message.id} to {message.to} is good with {counts}")
            must = [user for user in message.to if user in self.acks or (first_run and user in self.away)]
            if counts["queued"] < len(must):
                self._wrong("counts", f"{message.id} to {message.to} is good with {counts}, and {must} are to be queued for")

    # Receivers.

    def began(self, user, name, ack, after):
        with self.lock:
            session = Session(user, name, ack, after, self.run, self._tick())
            self._write(user, f"login {name} ack={ack} after={after}\n")
            return session

    def ended(self, session, orderly):
        """`orderly`: the server has said goodbye."""
        with self.lock:
            if session.ended is None:
                session.ended, session.orderly = self._tick(), orderly
                self._write(session.user, f"end {session.name} {'orderly' if orderly else ''}\n")

    def acknowledging(self, session, seq):
        with self.lock:
            self._write(session.user, f"ack {session.name} {seq}\n")
            self.totals["acks"] += 1

    def received(self, session, id, size, seq, redelivered):
        """Before it is acknowledged. Gives the message, or None if there is no such message."""
        with self.lock:
            return self._received(session, id, size, seq, redelivered)

    def _received(self, session, id, size, seq, redelivered):
        user, name = session.user, session.name
        self._write(user, f"got {id} {seq} {redelivered} {name}\n")
        self.totals["got"] += 1
        what = f"{user} ({name}) got {id} with seq {seq}, redelivered {redelivered}"
        message = self.messages.get(id)
        if message is None:
            self._wrong("came back" if id in self.old else "ghosts", what)
            return None
        if user not in message.to:
            self._wrong("ghosts", f"{what}, which was to {message.to}")
            return message
        if size != message.size:
            self._wrong("changed", f"{what}, of {size} bytes instead of {message.size}")
        # The first time it may have been refused, for all or for some, and the sender was not there any longer to be told.
        free = message.bad_before or (message.again and self.small)
        before = self.got[user].setdefault(id, [])
        reception = Reception(session, seq, self._tick())
        last = session.numbers.get(message.sender, 0)
        if message.number <= last and not free:
            self._wrong("out of order", f"{what} after {message.sender}-{last}")
        session.numbers[message.sender] = max(last, message.number)
        if session.ack:
            self._judge_seq(session, message, seq, redelivered, before, free, what)
        elif seq is not None:
            self._wrong("seq", f"{what} without ack")
        if before:
            self.totals["came again"] += 1
        if redelivered:
            self.totals["redelivered"] += 1
        before.append(reception)
        return message

    def _judge_seq(self, session, message, seq, redelivered, before, free, what):
        user = session.user
        if not isinstance(seq, int) or not isinstance(redelivered, bool):
            self._wrong("seq", f"{what}, which are not of these types")
            return
        if seq <= session.seq:
            self._wrong("seq", f"{what} after {session.seq}")
        session.seq = max(seq, session.seq)
        if session.after is not None and seq <= session.after:
            self._wrong("came back", f"{what} after a login with after {session.after}")
        owner = self.seqs[user].setdefault(seq, message.id)
        if owner != message.id:
            self._wrong("seq", f"{what}, which {owner} had")
        others = {reception.seq for reception in before if reception.seq is not None} - {seq}
        if others and not free:
            self._wrong("doubled", f"{what} and with seq {others} before")
        same = [reception for reception in before if reception.seq == seq]
        if same:
            self._judge_again(session, redelivered, same, what)
            return
        if seq <= self.highest[user]:
            self._wrong("seq", f"{what}, which is new, after {self.highest[user]}")
        self.highest[user] = max(seq, self.highest[user])
        last = self.numbers[user].get(message.sender, 0)
        if message.number < last and not free:
            self._wrong("out of order", f"{what}, which is new, after {message.sender}-{last}")
        self.numbers[user][message.sender] = max(last, message.number)
        if redelivered and self.clean and user in self.away and message.round == self.round and not message.sentinel:
            self._wrong("redelivered", f"{what}, which is new, after a run that ended well and in which {user} was away")

    def _judge_again(self, session, redelivered, before, what):
        """It may come again, but must say so, unless the earlier session may still have been there for the server."""
        if redelivered:
            return
        for earlier in before:
            other = earlier.session
            if other is session:
                self._wrong("doubled", f"{what}, again in this session")
            elif other.run < session.run:
                self._wrong("doubled", f"{what}, again after a restart")
            elif other.orderly and other.ended < session.began:
                self._wrong("doubled", f"{what}, again after {other.name} had ended")
            else:
                continue
            return

    # At the end of a round.

    def missing(self):
        """What was promised and did not come: pairs of message and user."""
        with self.lock:
            lost = []
            for message in self.messages.values():
                if message.state == "good" and message.round == self.round:
                    all_queued = message.counts["queued"] == len(message.to)
                    for user in message.to:
                        if (all_queued or user in self.acks) and not self.got[user].get(message.id):
                            lost.append((message, user))
            return lost

    def lost(self, pairs):
        with self.lock:
            for message, user in pairs:
                self._wrong("lost", f"{message.id} to {message.to} was good with {message.counts}, and {user} never got it")

    def unresolved(self, sender):
        """What a sender has no report on, in order."""
        with self.lock:
            mine = [m for m in self.messages.values() if m.sender == sender and m.state == "sent" and m.round == self.round]
            return sorted(mine, key=lambda message: message.number)
