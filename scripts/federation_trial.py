#!/usr/bin/env python3
"""The run of scripts/federation-trial: servers that know each other, a bad network between them, and their users.

The handler on each server is this program as well. Its messages say for whom they are; it sends them to that one's server, and
what comes from another server to its own user.
"""
from __future__ import annotations

import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time

from fault_namespaces import Cable, Middle
from fault_proxy import BACK, THERE, Proxy
from ledger import PASSWORD_HASH, Closed, Connection, Refused, built_in, encode

NAMES = ["a.example", "b.example", "c.example"]
SENDERS, RECEIVERS = ["s0", "s1"], ["r0", "r1", "r2"]
WINDOW = 16
# Messages that each sender sends in a second, at most.
RATE = 40
RETRY_SECONDS, RETRY_SECONDS_MAX, REPORT_SECONDS = 1, 5, 4
# So long after the network is well again nothing may be under way any more: one backoff that has begun before, and ...
SETTLE_SECONDS = 30
# Longer than anything else takes. Whoever waits so long tells of it as of something wrong.
PATIENCE = 30
# How long what comes too often may take, when everything has come.
LATE_SECONDS = 2


def handle():
    """The handler."""
    source, sink, here = sys.stdin.buffer, sys.stdout.buffer, os.environ["BESTER_SERVER"]
    while len(prefix := source.read(4)) == 4:
        request = json.loads(source.read(*struct.unpack("<I", prefix)))
        data, origin = request["payload"]["data"], request["header"]["from"]
        header = {"status": "0", "inReplyTo": request["header"]["messageId"]}
        if origin["scope"] == "client" and data["server"] != here:
            header.update(command="sendServers", commandData=[data["server"]])
        elif origin["scope"] == "client" or speaks_for(origin, data["from"]):
            header.update(command="sendClients", commandData=[data["user"]], offline="queue")
        else:
            header["status"] = "forged"
        text = encode({"header": header, "payload": {"data": data}})
        sink.write(struct.pack("<I", len(text)) + text)
        sink.flush()


def speaks_for(origin, sender):
    return origin["scope"] == "server" and origin["verified"] is True and f"{origin.get('user')}@{origin['server']}" == sender


class Message:
    """What a sender sends once, or again with the same id."""

    __slots__ = ("id", "sender", "number", "to", "text", "state", "reason", "seq", "sent_at", "took")

    def __init__(self, id, sender, number, to, text):
        self.id, self.sender, self.number, self.to, self.text = id, sender, number, to, text
        self.state, self.reason, self.seq = "sent", None, None  # the seq by which it came
        self.sent_at, self.took = time.monotonic(), None


class Book:
    """Everything that happened: of each message that it was sent, what its report said, and that it came. Users are called
    name@server. Any thread may tell it something."""

    def __init__(self):
        self.lock = threading.Lock()
        self.messages = {}
        self.of_senders = collections.defaultdict(list)
        self.seqs = {}  # of each receiver and seq: which message it is
        self.last = {}  # of each sender and receiver: the number of the last message that came
        self.highest = collections.Counter()  # of each receiver: the highest seq that came
        self.totals = collections.Counter()
        self.wrong = []

    def note(self, kind, finding):
        with self.lock:
            self.wrong.append((kind, finding))

    def sent(self, id, sender, number, to, text):
        with self.lock:
            message = self.messages[id] = Message(id, sender, number, to, text)
            self.of_senders[sender].append(message)
            self.totals["sent"] += 1
            return message

    def reported(self, id, state, reason):
        """`state` is "good" or "bad"; for good, that is."""
        with self.lock:
            message = self.messages[id]
            if message.state not in ("sent", state):
                self.wrong.append(("reports", f"{id} is {state} after it was {message.state}"))
            elif message.state == "sent":
                message.state, message.reason = state, reason
                self.totals[state if state == "good" else f"bad {reason}"] += 1

    def received(self, who, id, seq, message_id):
        with self.lock:
            message = self.messages.get(id)
            before = self.seqs.setdefault((who, seq), (id, message_id))
            self.highest[who] = max(self.highest[who], seq)
            if message is None:
                self.wrong.append(("ghosts", f"{who} got {id}, which nobody has sent"))
            elif message.to != who:
                self.wrong.append(("misled", f"{who} got {id}, which is for {message.to}"))
            elif before != (id, message_id):
                self.wrong.append(("seq", f"{who} got {id} ({message_id}) with seq {seq}, with which {before[0]} ({before[1]}) had come"))
            elif message.seq is None:
                message.seq, message.took = seq, time.monotonic() - message.sent_at
                self.totals["came"] += 1
                last = self.last.get((message.sender, who), -1)
                self.totals["overtaken"] += message.number < last
                self.last[message.sender, who] = max(last, message.number)
            elif message.seq == seq:
                self.totals["again"] += 1  # as it may be when the acknowledgement was not heard
            else:
                self.wrong.append(("doubled", f"{who} got {id} with seq {message.seq} and again with {seq} ({message_id})"))

    def unresolved(self, sender):
        """What has no report, oldest first."""
        with self.lock:
            return [message for message in self.of_senders[sender] if message.state == "sent"]

    def missing(self):
        """What was reported good and has not come."""
        with self.lock:
            return [message.id for message in self.messages.values() if message.state == "good" and message.seq is None]

    def judge(self):
        """When everything should have come."""
        for id in self.missing():
            self.note("lost", f"{id} for {self.messages[id].to} was reported good and has not come")
        for message in list(self.messages.values()):
            if message.state == "sent":
                self.note("no report", f"{message.id} of {message.sender} has none")
            elif message.state == "bad" and message.seq is not None:
                self.note("ghosts", f"{message.id} was reported bad ({message.reason}) and came")

    def write(self, path):
        with self.lock, open(path, "w") as file:
            for message in self.messages.values():
                line = {key: getattr(message, key) for key in ("id", "sender", "to", "state", "reason", "seq", "took")}
                file.write(json.dumps(line) + "\n")


class Server:
    """In a directory of its own, over several runs, with a network in front of it for the other servers."""

    def __init__(self, program, name, home, alone, proxy):
        self.program, self.name, self.alone, self.proxy = program, name, alone, proxy
        self.home = os.path.join(home, name)
        self.socket = os.path.join(self.home, "state", "bester.sock")
        self.process = None
        self.lock = threading.Lock()  # whoever starts or ends it has it
        os.mkdir(self.home)
        config = {
            "server": {"name": name, "stateDirectory": "state"},
            "network": {"unix": {"address": "state/bester.sock"}},
            "limits": {
                "peerRetrySeconds": RETRY_SECONDS, "peerRetrySecondsMax": RETRY_SECONDS_MAX, "peerReportSeconds": REPORT_SECONDS,
                "outboxMessages": 1_000_000, "outboxBytes": 1 << 30, "mailboxMessages": 1_000_000, "mailboxBytes": 1 << 30,
                "dedupeMinutes": 600,
            },
            "handlers": {"typeMap": {"post": {
                "handlerBinary": os.path.abspath(__file__), "arguments": ["handler"], "envelope": True, "federated": True,
                "queue": 4096, "queueSeconds": 30,
            }}},
        }
        if not alone:
            config["network"]["tls"] = dict(zip(("address", "port"), proxy.listen))
            config["federation"] = {"mode": "peers", "address": "{}:{}".format(*self.proxy.address)}
        with open(os.path.join(self.home, "bester.conf"), "w") as file:
            json.dump(config, file, indent=2)
        lines = [encode({"name": user, "password": PASSWORD_HASH}) + b"\n" for user in [*SENDERS, *RECEIVERS, "control"]]
        self.run("user", "import", "-", input=b"".join(lines))

    def run(self, *words, input=b""):
        """A command, to its end; what it printed."""
        done = subprocess.run([*self.proxy.prefix, self.program, *words], input=input, cwd=self.home, capture_output=True, timeout=PATIENCE)
        if done.returncode != 0:
            raise SystemExit(f"{self.name}: bester {' '.join(words)} ends with {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode()

    def start(self):
        with self.lock, open(os.path.join(self.home, "log"), "ab") as log:
            place = log.tell()
            began = time.monotonic()
            words = [*self.proxy.prefix, self.program, "serve", "-c", "bester.conf"]
            self.process = subprocess.Popen(words, cwd=self.home, stderr=log, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            listening = r"listening on unix:()" if self.alone else r"listening on tls://[0-9.]+:(\d+)"
            while not (found := re.search(listening, self.log(place))) or not self.is_up():
                if self.process.poll() is not None or time.monotonic() - began > PATIENCE:
                    raise SystemExit(f"{self.name} does not start:\n{self.log(place)}")
                time.sleep(0.01)
            if not self.alone:
                self.proxy.lead_to(("127.0.0.1", int(found[1])))

    def is_up(self):
        try:
            connection = Connection(self.socket)
            connection.log_in("control", None)
            connection.close()
            return True
        except (OSError, Closed, Refused):
            return False

    def end(self, how, seconds=PATIENCE + 10):
        """How it ended."""
        with self.lock:
            self.proxy.lead_to(None)
            self.process.send_signal(how)
            try:
                return self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                return None

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.proxy.close()

    def log(self, place=0):
        with open(os.path.join(self.home, "log"), errors="replace") as file:
            file.seek(place)
            return file.read()

    def outbox(self):
        """How many messages wait for other servers."""
        database = sqlite3.connect(f"file:{self.home}/state/bester.db?mode=ro", uri=True, timeout=PATIENCE)
        try:
            return database.execute("SELECT count(*) FROM outbox").fetchone()[0]
        finally:
            database.close()


def introduce(one, other, cards):
    """Makes two servers known to each other: by an invitation, or by both their cards."""
    if cards:
        for this, that in ((one, other), (other, one)):
            this.run("peer", "add", "-c", "bester.conf", token(that.run("peer", "show", "-c", "bester.conf"), "bester-peer"))
    else:
        other.run("peer", "join", "-c", "bester.conf", token(one.run("peer", "invite", "-c", "bester.conf"), "bester-join"))


def token(text, kind):
    found = re.search(rf"\b{kind}/\S+", text)
    if not found:
        raise SystemExit(f"there is no {kind} in what was printed: {text}")
    return found[0]


class Sender(threading.Thread):
    """Writes to users of all servers. Without a report a message is sent again, with the same id: dedupe makes one of them."""

    def __init__(self, trial, server, user, seed):
        super().__init__(daemon=True)
        self.trial, self.server, self.user = trial, server, user
        self.who = f"{user}@{server.name}"
        self.dice = random.Random(seed)
        self.count = 0
        self.more = True

    def message(self):
        self.count += 1
        id = f"{self.who}-{self.count}"
        target = self.dice.choice([name for name in self.trial.names if name != self.server.name] or self.trial.names)
        user = self.dice.choice(RECEIVERS)
        size = self.dice.randrange(5_000, 50_000) if self.dice.random() < 0.03 else self.dice.randrange(200)
        data = {"id": id, "from": self.who, "server": target, "user": user, "pad": "x" * size}
        text = encode({"payload": {"type": "post", "data": data, "id": id}})
        return self.trial.book.sent(id, self.who, self.count, f"{user}@{target}", text)

    def run(self):
        while (left := self.trial.book.unresolved(self.who)) or self.more:
            try:
                connection = Connection(self.server.socket)
                try:
                    connection.log_in(self.user, {"dedupe": True})
                    self.exchange(connection, collections.deque(left))
                finally:
                    connection.close()
            except (OSError, Closed, Refused):
                if self.trial.over.wait(0.05):  # the server is gone; it will be back
                    return

    def exchange(self, connection, again):
        open, next_at = {}, time.monotonic()
        while again or open or self.more:
            while len(open) < WINDOW and (again or (self.more and time.monotonic() >= next_at)):
                if again:
                    message = again.popleft()
                else:
                    message = self.message()
                    next_at = max(next_at, time.monotonic() - 1) + self.dice.uniform(0, 2 / RATE)
                open[message.id] = message
                connection.send(message.text)
            frame = connection.get(0.02)
            while frame is not None:
                self.take(frame, open, again)
                frame = connection.get(0) if connection.buffer else None
            if self.trial.over.is_set():
                return

    def take(self, frame, open, again):
        header, id = frame["header"], frame["payload"].get("id")
        if header["messageType"] == "draining":
            return
        message = open.pop(id, None)
        if header["messageType"] != "statusReport" or message is None:
            self.trial.book.note("reports", f"{self.who} got {str(frame)[:300]}")
        elif header["status"] == "good":
            self.trial.book.reported(id, "good", None)
        elif header.get("temporary"):
            self.trial.book.totals[f"later {header['reason']}"] += 1
            time.sleep(0.05)
            again.append(message)
        else:
            self.trial.book.reported(id, "bad", header["reason"])


class Receiver(threading.Thread):
    """Acknowledges what it gets, comes and goes, and sometimes goes before it has acknowledged."""

    def __init__(self, trial, server, user, seed):
        super().__init__(daemon=True)
        self.trial, self.server, self.user = trial, server, user
        self.who = f"{user}@{server.name}"
        self.dice = random.Random(seed)

    def run(self):
        while not self.trial.over.is_set():
            try:
                connection = Connection(self.server.socket)
                try:
                    self.read(connection)
                finally:
                    connection.close()
            except (OSError, Closed, Refused):
                self.trial.over.wait(0.05)  # the server is gone; it will be back

    def read(self, connection):
        options = {"ack": True}
        if (highest := self.trial.book.highest[self.who]) and self.dice.random() < 0.5:
            options["after"] = highest
        connection.log_in(self.user, options)
        batch, pending, since = self.dice.randrange(1, 30), 0, 0
        until = time.monotonic() + self.dice.uniform(1, 10)
        while not self.trial.over.is_set() and (time.monotonic() < until or self.trial.settling.is_set()):
            frame = connection.get(0.05)
            if frame is not None and self.take(frame):
                pending, since = frame["header"]["seq"], since + 1
            if since and (frame is None or since >= batch):
                connection.send(built_in("ack", {"seq": pending}))
                since = 0

    def take(self, frame):
        header, payload = frame["header"], frame["payload"]
        if header["messageType"] == "draining":
            return False
        if header["messageType"] != "receivedMessage" or payload["type"] != "post":
            self.trial.book.note("frames", f"{self.who} got {str(frame)[:300]}")
            return False
        self.trial.book.received(self.who, payload["data"]["id"], header["seq"], header["messageId"])
        return True


class Trial:
    """All of it."""

    def __init__(self, options, home):
        self.options, self.home = options, home
        self.dice = random.Random(options.seed)
        self.names = NAMES[: options.servers]
        self.book = Book()
        self.over = threading.Event()
        self.settling = threading.Event()
        self.servers = []
        self.faults = [self.partition, self.lost_reports, self.lost_messages, self.slow, self.narrow, self.refused]
        self.faults += [self.cut, self.reset, self.killed, self.killed, self.stopped]
        self.middle = None
        if options.namespaces:
            self.middle = Middle()
            self.faults = [self.partition, self.lost_reports, self.lost_messages, self.narrow, self.refused, self.killed, self.stopped]
        if options.faults:
            self.faults = [getattr(self, name) for name in options.faults.split(",")]

    def prepare(self):
        for name in self.names:
            proxy = Cable(self.middle) if self.middle else Proxy()
            self.servers.append(Server(os.path.abspath(self.options.program), name, self.home, len(self.names) == 1, proxy))
        for server in self.servers:
            server.start()
        for place, one in enumerate(self.servers):
            for other in self.servers[place + 1 :]:
                introduce(one, other, self.options.cards)
        people = [(Sender, user) for user in SENDERS] + [(Receiver, user) for user in RECEIVERS]
        self.people = [kind(self, server, user, self.dice.getrandbits(64)) for server in self.servers for kind, user in people]
        for person in self.people:
            person.start()

    def trouble(self):
        """One fault after the other, with a little peace between them."""
        end = time.monotonic() + self.options.seconds
        while time.monotonic() < end:
            time.sleep(self.dice.uniform(0.5, 2))
            server, fault = self.dice.choice(self.servers), self.dice.choice(self.faults)
            seconds = self.dice.uniform(*self.options.partition)
            before, began = len(self.book.wrong), time.monotonic()
            words = fault(server, seconds)
            server.proxy.heal()
            totals = self.book.totals
            print(
                f"{began - end + self.options.seconds:6.1f} s: {server.name} {words}; "
                f"{totals['sent']} sent, {totals['good']} good, {totals['came']} came",
                flush=True,
            )
            for kind, finding in self.book.wrong[before:][:10]:
                print(f"WRONG {kind}: {finding}", flush=True)

    # What goes wrong.

    def partition(self, server, seconds):
        """Nothing passes, and nobody is told."""
        for way in (THERE, BACK):
            server.proxy.hold(way)
        server.proxy.meet("ignored")
        time.sleep(seconds)
        return f"cannot be reached for {seconds:.1f} s"

    def lost_reports(self, server, seconds):
        server.proxy.swallow(BACK)
        time.sleep(seconds)
        return f"is not heard for {seconds:.1f} s"

    def lost_messages(self, server, seconds):
        server.proxy.swallow(THERE)
        time.sleep(seconds)
        return f"hears nothing for {seconds:.1f} s"

    def slow(self, server, seconds):
        delay = self.dice.uniform(0.05, 0.5)
        for way in (THERE, BACK):
            server.proxy.delay(way, delay)
        time.sleep(seconds)
        return f"is {delay * 1000:.0f} ms away for {seconds:.1f} s"

    def narrow(self, server, seconds):
        rate = self.dice.randrange(5_000, 50_000)
        server.proxy.throttle(self.dice.choice([THERE, BACK]), rate)
        time.sleep(seconds)
        return f"is behind {rate} bytes/s for {seconds:.1f} s"

    def refused(self, server, seconds):
        server.proxy.meet(self.dice.choice(["refused", "reset"]))
        server.proxy.reset()
        time.sleep(seconds)
        return f"takes no connections for {seconds:.1f} s"

    def cut(self, server, seconds):
        return self.again_and_again(server.proxy.cut, "is cut off")

    def reset(self, server, seconds):
        return self.again_and_again(server.proxy.reset, "has its connections reset")

    def again_and_again(self, act, words):
        times = self.dice.randrange(1, 6)
        for _ in range(times):
            act()
            time.sleep(self.dice.uniform(0, 0.5))
        return f"{words}, {times} times"

    def killed(self, server, seconds):
        server.end(signal.SIGKILL)
        away = self.dice.choice([0, self.dice.uniform(0, seconds)])
        time.sleep(away)
        server.start()
        return f"is killed, and back after {away:.1f} s"

    def stopped(self, server, seconds):
        code = server.end(signal.SIGTERM)
        if code != 0:
            self.book.note("stop", f"{server.name} ended with {code}" if code is not None else f"{server.name} does not stop")
        server.start()
        return "is stopped and started"

    # The end of it.

    def settle(self):
        """The network is well: everything must come now. Gives the seconds that this took."""
        began = time.monotonic()
        self.settling.set()
        for person in self.people:
            person.more = False
        limit = SETTLE_SECONDS + RETRY_SECONDS_MAX * 1.2
        while True:
            waiting = {server.name: server.outbox() for server in self.servers if not server.alone}
            senders = [person.who for person in self.people if isinstance(person, Sender) and person.is_alive()]
            took = time.monotonic() - began
            if not any(waiting.values()) and not senders and not self.book.missing():
                break
            if took > limit:
                for name, count in waiting.items():
                    if count:
                        self.book.note("outbox", f"{count} messages still wait at {name} after {took:.0f} s")
                break
            time.sleep(0.1)
        time.sleep(LATE_SECONDS)
        self.book.judge()
        self.over.set()
        for person in self.people:
            person.join(PATIENCE)
            if person.is_alive():
                self.book.note("stuck", f"{person.who} does not come to an end")
        return took

    def close(self):
        self.over.set()
        for server in self.servers:
            server.close()
        if self.middle:
            self.middle.close()


def seconds_range(text):
    least, _, most = text.partition("-")
    least, most = float(least), float(most or least)
    if not 0 <= least <= most <= 600:
        raise ValueError(text)
    return least, most


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", type=int, choices=(1, 2, 3), default=2)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--partition", type=seconds_range, default=(1, 6))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--faults")
    parser.add_argument("--cards", action="store_true")
    parser.add_argument("--namespaces", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("program")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    home = os.path.realpath(tempfile.mkdtemp(prefix="federation-"))
    trial = Trial(options, home)
    book = trial.book
    # A thread of ours that fails must not look like one that has nothing to find fault with.
    threading.excepthook = lambda told: (book.note("harness", repr(told.exc_value)), threading.__excepthook__(told))
    # Whatever happens, it ends.
    limit = options.seconds + options.partition[1] + 4 * PATIENCE + SETTLE_SECONDS * 3
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(SystemExit(f"not done in {limit:.0f} s")))
    signal.setitimer(signal.ITIMER_REAL, limit)
    began, took, done = time.monotonic(), 0.0, False
    try:
        trial.prepare()
        trial.trouble()
        took = trial.settle()
        done = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        panics = [line for server in trial.servers if server.process for line in server.log().splitlines() if "panicked" in line]
        trial.close()
        book.write(os.path.join(home, "book"))
        bad = bool(book.wrong or panics or not done)
        if bad or options.keep:
            print(f"the book, and the servers' logs and files, are in {home}", flush=True)
        else:
            shutil.rmtree(home)
    for line in panics[:5]:
        print(f"WRONG panic: {line}")
    for kind, finding in book.wrong[:20]:
        print(f"WRONG {kind}: {finding}")
    took_each = sorted(message.took for message in book.messages.values() if message.took is not None)
    if took_each:
        half, most = took_each[len(took_each) // 2], took_each[-1]
        print(f"{time.monotonic() - began:.0f} s; half of the messages came within {half * 1000:.0f} ms, the last after {most:.1f} s")
    print(f"{took:.1f} s from the last fault until all had come and all outboxes were empty")
    print("; ".join(f"{key} {book.totals[key]}" for key in sorted(book.totals)))
    kinds = collections.Counter(kind for kind, _ in book.wrong)
    names = ["lost", "doubled", "ghosts", "misled", "seq", "outbox"]
    print(", ".join(f"{name} {kinds[name]}" for name in names + sorted(set(kinds) - set(names))))
    if not took_each:
        print("nothing came at all")
        bad = True
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["handler"]:
        handle()
    else:
        sys.exit(main())
