#!/usr/bin/env python3
"""The run of scripts/ledger: a server that is killed, and its users. What they have seen is judged in ledger_book.py."""
from __future__ import annotations

import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from ledger_book import Book, Message

# "password", hashed as cheaply as can be.
PASSWORD_HASH = "$argon2id$v=19$m=8,t=1,p=1$YmVuY2hiZW5jaGJlbmNoMQ$GPgRwXP4uvGqLqRSWmrCOJnlpTSgNMzp2LY+VIhF6yI"
SENDERS = ["s0", "s1", "s2", "s3"]
DEDUPE = {"s0", "s1"}
USERS = ["r0", "r1", "r2", "r3", "r4", "r5"]
# What each of them is in a round; which of them acknowledge changes from round to round.
AWAY, STOPPED, LIVE = USERS[:2], USERS[2], USERS[3:]
WINDOW = 24
# Longer than anything takes. Whoever waits so long tells of it as of something wrong.
PATIENCE = 30
# So long a restart may take until somebody has logged in.
RESTART_SECONDS = 1.0
# How long what is missing may still take when the last message has come.
LATE_SECONDS = 3


class Closed(Exception):
    """The server has closed the connection."""


class Refused(Exception):
    """The server does not let somebody log in."""


class Connection:
    """Frames, to and from."""

    def __init__(self, address):
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
        else:
            self.socket = socket.socket(socket.AF_INET)
            # A reader that stops is to be felt by the server soon.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        if not isinstance(address, str):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.lock = threading.Lock()

    def send(self, *texts):
        frames = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        try:
            with self.lock:
                self.socket.sendall(frames)
        except OSError:
            raise Closed from None

    def get(self, seconds=PATIENCE):
        """The next frame; None if there is none in time."""
        until = time.monotonic() + seconds
        while True:
            if len(self.buffer) >= 4:
                (length,) = struct.unpack_from("<I", self.buffer)
                if len(self.buffer) >= 4 + length:
                    text = bytes(self.buffer[4 : 4 + length])
                    del self.buffer[: 4 + length]
                    return json.loads(text)
            left = until - time.monotonic()
            if left <= 0:
                return None
            try:
                self.socket.settimeout(left)
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                return None
            except OSError:
                raise Closed from None
            if not data:
                raise Closed
            self.buffer += data

    def log_in(self, user, options):
        header = {"authentication": {"username": user, "password": "password"}, "scope": "client"}
        if options:
            header["options"] = options
        self.send(encode({"header": header, "payload": {"type": "dummy", "data": None}}))
        report = self.get()
        if report is None or report["header"]["status"] != "good":
            self.close()
            raise Refused(f"{user} cannot log in with {options}: {report}")

    def close(self):
        self.socket.close()

    def cut(self):
        """Has whoever reads come back."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed


def encode(value):
    return json.dumps(value, separators=(",", ":")).encode()


def built_in(kind, arguments, id=None):
    payload = {"type": "builtin", "data": {"command": {"type": kind, "args": arguments}}}
    if id:
        payload["id"] = id
    return encode({"payload": payload})


class Server:
    """In a directory of its own, over several runs."""

    def __init__(self, program, home, power):
        self.program, self.home, self.power = program, home, power
        self.state = os.path.join(home, "state")
        self.socket = os.path.join(self.state, "bester.sock")
        self.process = None
        self.address = None
        self.slowest = 0.0
        self.small = False
        lines = [encode({"name": name, "password": PASSWORD_HASH}) + b"\n" for name in [*SENDERS, *USERS, "control"]]
        self.configure(False)
        importing = [program, "user", "import", "-"]
        subprocess.run(importing, input=b"".join(lines), cwd=home, check=True, stdout=subprocess.DEVNULL)
        if power:
            self.build_disk()

    def configure(self, small):
        """`small`: mailboxes that overflow."""
        self.small = small
        config = {
            "server": {"name": "a.example", "stateDirectory": "state"},
            "network": {"tcp4": {"address": "127.0.0.1", "port": 0}, "unix": {"address": "state/bester.sock"}},
            "limits": {"mailboxMessages": 100 if small else 1_000_000, "mailboxBytes": 16 << 20 if small else 1 << 30},
            "handlers": {"typeMap": {"post": {
                "handlerBinary": self.program, "arguments": ["bench-handler"], "offline": "queue", "inFlight": 64, "queue": 4096,
            }}},
        }
        with open(os.path.join(self.home, "bester.conf"), "w") as file:
            json.dump(config, file)

    def build_disk(self):
        here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "disk")
        self.layer, self.cutter = os.path.join(self.home, "disk.so"), os.path.join(self.home, "disk-cut")
        self.durable = os.path.join(self.home, "durable")
        os.mkdir(self.durable)
        for words in [["-shared", "-fPIC", "-o", self.layer, "disk.c", "-ldl", "-lpthread"], ["-o", self.cutter, "cut.c"]]:
            subprocess.run(["cc", "-O2", *words], cwd=here, check=True)

    def start(self):
        """Gives the seconds until the first login, tried without pause."""
        environment = dict(os.environ)
        if self.power:
            environment.update(LD_PRELOAD=self.layer, BESTER_DISK=self.state, BESTER_DISK_IMAGE=self.durable)
        log = open(os.path.join(self.home, "log"), "ab")
        began = time.monotonic()
        place = log.tell()
        words = [self.program, "serve", "-c", "bester.conf"]
        self.process = subprocess.Popen(words, cwd=self.home, env=environment, stderr=log, stdout=subprocess.DEVNULL)
        log.close()
        while True:
            try:
                probe = Connection(self.socket)
                probe.log_in("control", None)
                break
            except (OSError, Closed):
                if self.process.poll() is not None or time.monotonic() - began > PATIENCE:
                    raise SystemExit(f"the server does not start:\n{self.log(place)}") from None
                time.sleep(0.002)
        took = time.monotonic() - began
        probe.close()
        if self.power and not os.listdir(self.durable):
            raise SystemExit(f"there is no layer under the files of {self.program}; is it linked statically?")
        while not (found := re.search(r"listening on tcp4://127\.0\.0\.1:(\d+)", self.log(place))):
            time.sleep(0.002)
        self.address = ("127.0.0.1", int(found[1]))
        self.slowest = max(self.slowest, took)
        return took

    def log(self, place=0):
        with open(os.path.join(self.home, "log"), errors="replace") as file:
            file.seek(place)
            return file.read()

    def kill(self, dice):
        self.process.kill()
        self.process.wait()
        if not self.power:
            return ""
        seed, percent = dice.getrandbits(32), dice.choice([0, 0, 10, 50, 90])
        with open(os.path.join(self.home, "cuts"), "a") as log:
            words = [self.cutter, self.state, self.durable, str(seed), str(percent)]
            log.write(f"seed {seed}, {percent} %\n")
            log.flush()
            subprocess.run(words, check=True, stdout=log)
        return f", power cut that leaves {percent} % of what was not synced"

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE + 10)


class Sender:
    """Sends until the server is gone; with dedupe, sends again what has no report, also in between."""

    def __init__(self, name, book, server, seed):
        self.name, self.book, self.server = name, book, server
        self.dice = random.Random(seed)
        self.count = 0
        self.dedupe = name in DEDUPE

    def message(self):
        self.count += 1
        chance = self.dice.random()
        if chance < 0.85:
            to = [self.dice.choice(USERS)]
        elif chance < 0.95:
            kept = sorted(self.book.acks | self.book.away)
            to = self.dice.sample(kept, self.dice.randrange(2, len(kept) + 1))
        else:
            to = list(USERS)
        large = 0.25 if to == [STOPPED] else 0.03
        size = self.dice.randrange(20_000, 60_000) if self.dice.random() < large else self.dice.randrange(0, 200)
        return make(self.name, self.count, to, size, self.book.round)

    def connect(self):
        connection = Connection(self.server.address if self.dice.random() < 0.5 else self.server.socket)
        connection.log_in(self.name, {"dedupe": True} if self.dedupe else None)
        return connection

    def traffic(self):
        """Until the connection ends because of the server."""
        again = []
        try:
            while True:
                connection = self.connect()
                # Only with dedupe it can be repeated, so only then this side ends it.
                leave = self.dice.expovariate(1.5) if self.dedupe else PATIENCE
                self.exchange(connection, again, time.monotonic() + leave, True)
                connection.close()
                again = self.book.unresolved(self.name)
        except (OSError, Closed):
            pass  # the server is gone
        except Refused as error:
            refused(self.book, error)

    def settle(self):
        """After a restart: everything that has no report is sent again, and nothing else."""
        if not self.dedupe:
            return
        connection = self.connect()
        left = self.exchange(connection, self.book.unresolved(self.name), time.monotonic() + PATIENCE, False)
        if left:
            self.book.note("reports", f"{self.name} gets no report on {sorted(left)[:5]}, {len(left)} in all, in {PATIENCE} s")
        connection.close()

    def exchange(self, connection, again, until, more):
        """Sends what was sent before, and `more`; gives what has no report in the end."""
        again = collections.deque(again)
        open = {}
        first = set()
        while time.monotonic() < until and (more or again or open):
            texts = []
            while len(open) < WINDOW and (again or more):
                if again:
                    message = again.popleft()
                else:
                    message = self.message()
                    first.add(message.id)
                self.book.sent(message)
                open[message.id] = message
                texts.append(message.text)
            if texts:
                connection.send(*texts)
            frame = connection.get(max(0.01, min(0.5, until - time.monotonic())))
            while frame is not None:
                self.take(frame, open, first)
                frame = connection.get(0) if connection.buffer else None
        return open

    def take(self, frame, open, first):
        header, id = frame["header"], frame["payload"].get("id")
        if header["messageType"] == "draining":
            return
        if header["messageType"] != "statusReport" or id not in open:
            self.book.note("reports", f"{self.name} got {frame}")
            return
        self.book.reported(open.pop(id), frame, id in first)


def refused(book, error):
    """While the server stops it may say so."""
    if "'draining'" not in str(error):
        book.note("logins", str(error))


def make(sender, number, to, size, around, sentinel=False):
    id = f"{sender}-{number}"
    inner = {"id": id, "pad": "x" * size}
    if sentinel:
        inner["end"] = True
    data = b'{"to":' + encode(to) + b',"data":' + encode(inner) + b"}"
    text = b'{"payload":{"type":"post","data":' + data + b',"id":"' + id.encode() + b'"}}'
    return Message(sender, number, to, size, text, around, sentinel)


class Receiver(threading.Thread):
    """A session of a user."""

    names = collections.Counter()

    def __init__(self, user, book, server, dice, ack, after, manners):
        super().__init__(daemon=True)
        self.user, self.book, self.server, self.ack = user, book, server, ack
        self.dice = random.Random(dice.getrandbits(64))
        self.manners = manners  # "reads", "stopped" or "drains"
        self.names[user] += 1
        self.end = threading.Event()  # the last message of the round has come
        self.thaw = threading.Event()  # one that has stopped reads again
        self.leave = None
        self.pending = 0  # the highest seq that is not acknowledged
        self.since = 0  # how many are not
        self.connection = Connection(server.address if self.dice.random() < 0.7 else server.socket)
        options = {"ack": True} if ack else {}
        if after is not None:
            options["after"] = after
        # Before the login: what comes with its report belongs to this session.
        self.session = book.began(user, f"{user}/{self.names[user]}", ack, after)
        self.connection.log_in(user, options or None)

    def run(self):
        orderly = False
        try:
            if self.manners == "stopped":
                self.thaw.wait()
            orderly = self.read()
        except (Closed, OSError):
            pass  # the server is gone, or we are told to go
        except (ValueError, KeyError, TypeError) as error:
            self.book.note("frames", f"{self.session.name} cannot read what it got: {error!r}")
        finally:
            self.book.ended(self.session, orderly)
            self.connection.close()

    def read(self):
        """Gives whether the server said goodbye."""
        batch = 1 if self.manners == "drains" and self.dice.random() < 0.2 else self.dice.randrange(1, 60)
        hold = 0 if self.manners == "drains" else self.dice.choice([0, 0, 0.05, 0.5, PATIENCE])
        held = 0.0
        leaving = False
        while True:
            frame = self.connection.get(0.02)
            now = time.monotonic()
            if frame is not None:
                if frame["payload"].get("id") == "bye":
                    return True
                if self.take(frame) and self.since == 1:
                    held = now
            idle = frame is None
            # At the latest when the server could not send more, for it would wait for us as we for it.
            if not leaving and (self.since >= batch or idle) and now >= held + hold:
                self.acknowledge()
            if self.dice.random() < 0.002 and self.manners == "reads":
                time.sleep(self.dice.uniform(0, 0.05))
            if self.leave is not None and now >= self.leave[0] and not leaving:
                if not self.leave[1]:
                    return False
                if self.dice.random() < 0.5 or self.manners == "drains":
                    self.acknowledge()
                self.connection.send(built_in("close", {}, "bye"))
                leaving = True

    def acknowledge(self):
        if self.ack and self.since:
            self.book.acknowledging(self.session, self.pending)
            self.connection.send(built_in("ack", {"seq": self.pending}))
            self.since = 0

    def take(self, frame):
        header, payload = frame["header"], frame["payload"]
        if header["messageType"] == "draining":
            return False
        if header["messageType"] != "receivedMessage" or payload["type"] != "post":
            self.book.note("frames", f"{self.session.name} got {str(frame)[:300]}")
            return False
        data = payload["data"]
        seq = header.get("seq")
        self.book.received(self.session, data["id"], len(data["pad"]), seq, header.get("redelivered"))
        if self.ack and isinstance(seq, int):
            self.pending = max(self.pending, seq)
            self.since += 1
        if "end" in data and data["id"] == self.awaited:
            self.end.set()
        return True

    awaited = None

    def go(self, orderly, seconds=0.0):
        """Ends the session some time later. Without acknowledgements it always says goodbye and reads what comes until
        then: what the server has written, and nobody has read, counts as taken."""
        self.leave = (time.monotonic() + seconds, orderly or not self.ack)


class Crowd:
    """All receivers of a round, who come and go."""

    def __init__(self, book, server, dice):
        self.book, self.server, self.dice = book, server, dice
        self.over = threading.Event()
        self.sessions = []

    def log_in(self, user, manners):
        ack = user in self.book.acks
        after = None
        if ack and self.dice.random() < 0.5:
            # All that is in the books is taken care of, acknowledged or not.
            after = self.book.highest[user] or None
        receiver = Receiver(user, self.book, self.server, self.dice, ack, after, manners)
        self.sessions.append(receiver)
        return receiver

    def traffic(self):
        """Until the server is gone."""
        try:
            self.log_in(STOPPED, "stopped").start()
            current = {}
            for user in LIVE:
                current[user] = self.log_in(user, "reads")
                current[user].start()
            while not self.over.wait(self.dice.uniform(0.02, 0.3)):
                user = self.dice.choice(LIVE)
                old = current[user]
                twice = self.dice.random() < 0.4  # two sessions for a while
                orderly = self.dice.random() < 0.5
                old.go(orderly, self.dice.uniform(0.05, 0.3) if twice else 0)
                if not twice:
                    old.join(PATIENCE)
                current[user] = self.log_in(user, "reads")
                current[user].start()
        except (OSError, Closed):
            pass  # the server is gone
        except Refused as error:
            refused(self.book, error)

    def finish(self):
        """The server is gone. What it had written before can still be read."""
        for receiver in self.sessions:
            if receiver.manners == "stopped" and receiver.ack and self.dice.random() < 0.5:
                receiver.connection.cut()
            receiver.thaw.set()
        for receiver in self.sessions:
            receiver.join(PATIENCE)
            if receiver.is_alive():
                self.book.note("stuck", f"the connection of {receiver.session.name} does not end with the server")
                receiver.connection.cut()

    def drain(self, senders, control):
        """Everybody logs in and gets what there is; the last of it is a message that is sent when all others are."""
        order = list(USERS)
        self.dice.shuffle(order)
        receivers = []
        settling = [threading.Thread(target=sender.settle) for sender in senders]
        for thread in settling:
            thread.start()
        for user in order:
            receivers.append(self.log_in(user, "drains"))
        ends = control.prepare(receivers)
        for receiver in receivers:
            receiver.start()
        for thread in settling:
            thread.join()
        control.send(ends)
        until = time.monotonic() + PATIENCE
        for receiver in receivers:
            if not receiver.end.wait(max(0, until - time.monotonic())):
                alive = "" if receiver.is_alive() else ", and its connection has ended"
                self.book.note("stuck", f"{receiver.session.name} does not get the last message, {receiver.awaited}{alive}")
        until = time.monotonic() + LATE_SECONDS
        while (missing := self.book.missing()) and time.monotonic() < until:
            time.sleep(0.05)
        self.book.lost(missing)
        for receiver in receivers:
            receiver.go(True)
        for receiver in receivers:
            receiver.join(PATIENCE)
            if receiver.is_alive():
                self.book.note("stuck", f"{receiver.session.name} is not let go")
                receiver.connection.cut()


class Control:
    """Sends each user the message that ends a round."""

    def __init__(self, book, server):
        self.book, self.server = book, server
        self.count = 0

    def prepare(self, receivers):
        ends = {}
        for receiver in receivers:
            self.count += 1
            message = make("control", self.count, [receiver.user], 0, self.book.round, sentinel=True)
            receiver.awaited = message.id
            ends[message.id] = message
        return ends

    def send(self, ends):
        connection = Connection(self.server.socket)
        connection.log_in("control", None)
        for message in ends.values():
            self.book.sent(message)
            until = time.monotonic() + PATIENCE
            while True:
                connection.send(message.text)
                frame = connection.get()
                if frame is None:
                    self.book.note("stuck", f"there is no report on {message.id}")
                    break
                if frame["header"]["status"] == "good":
                    self.book.reported(message, frame, False)
                    break
                # His mailbox may be full until he has read what is in it.
                if not frame["header"].get("temporary") or time.monotonic() > until:
                    self.book.note("reports", f"{message.id} gets {frame}")
                    break
                time.sleep(0.01)
        connection.close()


def round_of(number, book, server, senders, control, dice, restart_seconds):
    """Gives words about it."""
    acks = [user for place, user in enumerate(USERS) if (place + number) % 2 == 0]
    book.new_round(number, acks, AWAY, server.small)
    crowd = Crowd(book, server, dice)
    traffic = [threading.Thread(target=crowd.traffic)] + [threading.Thread(target=sender.traffic) for sender in senders]
    for thread in traffic:
        thread.start()
    clean = dice.random() < 0.1
    time.sleep(dice.uniform(0.1, 1.5))
    words = ""
    if clean:
        began = time.monotonic()
        try:
            code = server.stop()
        except subprocess.TimeoutExpired:
            book.note("stop", f"the server does not stop in {PATIENCE + 10} s")
            server.process.kill()
            code = server.process.wait()
        words = f", told to stop: {time.monotonic() - began:.2f} s"
        if code != 0:
            book.note("stop", f"the server ended with {code}")
    else:
        if server.process.poll() is not None:
            book.note("stop", f"the server ended by itself with {server.process.returncode}")
        words = server.kill(dice)
    crowd.over.set()
    for thread in traffic:
        thread.join()
    crowd.finish()
    server.configure(dice.random() < 0.2)
    took = server.start()
    book.new_run(clean, server.small)
    if took > restart_seconds:
        book.note("slow", f"{took:.2f} s from the start to the first login")
    Crowd(book, server, dice).drain(senders, control)
    return f"{took * 1000:.0f} ms until a login{words}{', small mailboxes' if server.small else ''}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--power", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--restart-seconds", type=float, default=RESTART_SECONDS)
    parser.add_argument("rounds", type=int)
    parser.add_argument("program")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    dice = random.Random(options.seed)
    home = os.path.realpath(tempfile.mkdtemp(prefix="ledger-"))
    books = os.path.join(home, "books")
    os.mkdir(books)
    book = Book(books)
    # A thread of ours that fails must not look like one that has nothing to find fault with.
    threading.excepthook = lambda told: (book.note("harness", repr(told.exc_value)), threading.__excepthook__(told))
    began = time.monotonic()
    server = Server(os.path.abspath(options.program), home, options.power)
    done = 0
    try:
        server.start()
        book.new_run(True, False)
        senders = [Sender(name, book, server, dice.getrandbits(64)) for name in SENDERS]
        control = Control(book, server)
        for number in range(1, options.rounds + 1):
            seen = len(book.wrong)
            words = round_of(number, book, server, senders, control, dice, options.restart_seconds)
            done = number
            if number <= 3 or number % 10 == 0 or len(book.wrong) > seen:
                totals = book.totals
                print(f"round {number}: {totals['good']} good of {totals['sent']}, {totals['got']} came; {words}", flush=True)
            for kind, finding in book.wrong[seen:][:10]:
                print(f"WRONG {kind}: {finding}", flush=True)
            if len(book.wrong) > 200:
                print("that is enough")
                break
    finally:
        if server.process and server.process.poll() is None:
            server.process.kill()
            server.process.wait()
    took = time.monotonic() - began
    panics = [line for line in server.log().splitlines() if "panicked" in line]
    for line in panics[:5]:
        print(f"WRONG panic: {line}")
    totals = book.totals
    print(f"{done} rounds in {took:.0f} s; slowest restart {server.slowest * 1000:.0f} ms until a login")
    print("; ".join(f"{key} {totals[key]}" for key in sorted(totals)))
    kinds = collections.Counter(kind for kind, _ in book.wrong)
    names = ["lost", "ghosts", "doubled", "out of order", "seq", "came back"]
    print(", ".join(f"{name} {kinds[name]}" for name in names + sorted(set(kinds) - set(names))))
    bad = bool(book.wrong or panics)
    if bad or options.keep:
        print(f"the books, the server's log and its files are in {home}")
    else:
        shutil.rmtree(home)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
