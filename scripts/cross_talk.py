#!/usr/bin/env python3
"""The run of scripts/cross-talk: a server, senders, and the handlers that go wrong, which are this program as well.

Each request has a number that no other has, and its answer is that number. So a sender can tell for each delivery whether
it is his, and whether it comes once.
"""
from __future__ import annotations

import collections
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

# "password", hashed as cheaply as can be.
PASSWORD_HASH = "$argon2id$v=19$m=8,t=1,p=1$YmVuY2hiZW5jaGJlbmNoMQ$GPgRwXP4uvGqLqRSWmrCOJnlpTSgNMzp2LY+VIhF6yI"
SENDERS = 8
# Of each sender to each type. All of them together stay below limits.inFlight, or one dead handler would hold up all.
UNDER_WAY = 6
# So long may nothing come, with requests under way.
PATIENCE = 60

# Of each type: arguments for its handler, and keys of its configuration.
TYPES = {
    "stdio": ([], {}),
    "socket": (["socket"], {"transport": "socket"}),
    "single": (["unix=single.sock"], {"transport": "unix", "unixDomainSocketPath": "single.sock", "inFlight": 4}),
    "kept": (["unix=kept.sock"], {"transport": "unix", "unixDomainSocketPath": "kept.sock", "connection": "persistent"}),
    "envelope": (["envelope"], {"envelope": True}),
    "lines": (["lines"], {"framing": "lines"}),
    "three": ([], {"instances": 3}),
}

# What ends a handler, or has it replaced ...
FATAL = ["dies_before", "dies_amid", "dies_after", "twice", "hangs", "late", "prints"]
# ... and what does not.
HARMLESS = ["refuses", "no_json", "nan"]
HARMLESS_ENVELOPE = HARMLESS + ["again", "to_nothing", "to_the_past", "late_one", "forgets"]


class Handler:
    """One that answers well, but for some requests."""

    def __init__(self, options, fatal, harmless):
        self.lines, self.envelope = "lines" in options, "envelope" in options
        self.single = options.get("unix") == "single.sock"
        self.fatal, self.harmless = fatal, harmless
        self.past = collections.deque(maxlen=50)
        self.held = []
        self.lock = threading.Lock()

    def frame(self, text):
        data = text.encode()
        return data + b"\n" if self.lines else struct.pack("<I", len(data)) + data

    def read(self, source):
        if self.lines:
            return source.readline() or None
        prefix = source.read(4)
        return source.read(struct.unpack("<I", prefix)[0]) if len(prefix) == 4 else None

    def serve(self, source, sink):
        while (frame := self.read(source)) is not None:
            request = json.loads(frame)
            about, user = None, None
            if self.envelope:
                about, user = request["header"]["messageId"], request["header"]["from"]["user"]
                request = request["payload"]["data"]
            text = self.answer(request, about, user)
            chance = random.random()
            if chance < self.fatal:
                getattr(self, random.choice(FATAL))(sink, text)
            elif chance < self.fatal + self.harmless:
                getattr(self, random.choice(HARMLESS_ENVELOPE if self.envelope else HARMLESS))(sink, text)
            elif self.envelope and chance > 0.8:
                self.held.append(text)  # for later, when others have come
            else:
                self.write(sink, text)
                self.past.append(about)
            if self.held and (len(self.held) > 5 or random.random() < 0.5):
                random.shuffle(self.held)
                self.write(sink, *self.held)
                self.held.clear()

    def answer(self, data, about, user):
        header = {"status": "0", "command": "reply"}
        if about:
            header["inReplyTo"] = about
            if random.random() < 0.5:
                header.update(command="sendClients", commandData=[user])
        return json.dumps({"header": header, "payload": {"data": data}})

    def write(self, sink, *texts):
        """In one piece."""
        with self.lock:
            sink.write(b"".join(map(self.frame, texts)))
            sink.flush()

    def later(self, sink, text):
        timer = threading.Timer(1.3, self.write, [sink, text])
        timer.daemon = True
        timer.start()

    # What goes wrong.

    def dies_before(self, sink, text):
        os.kill(os.getpid(), random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM]))
        threading.Event().wait()

    def dies_amid(self, sink, text):
        sink.write(self.frame(text)[: random.randrange(1, 40)])
        sink.flush()
        os._exit(random.randrange(3))

    def dies_after(self, sink, text):
        self.write(sink, text)
        os._exit(random.randrange(3))

    def twice(self, sink, text):
        self.write(sink, text, text)

    def hangs(self, sink, text):
        threading.Event().wait()

    def late(self, sink, text):
        """After its time; told to end, it goes on for a moment."""
        time.sleep(random.uniform(0.95, 1.2))
        self.write(sink, text)

    def prints(self, sink, text):
        sink.write(b"hello\n")
        sink.flush()
        self.write(sink, text)

    def refuses(self, sink, text):
        self.write(sink, json.dumps({**json.loads(text), "header": {**json.loads(text)["header"], "status": "1"}}))

    def no_json(self, sink, text):
        self.write(sink, text.replace('"payload"', "payload"))

    def nan(self, sink, text):
        self.write(sink, re.sub(r'"data": "[^"]*"', '"data": NaN', text))

    # With envelopes.

    def again(self, sink, text):
        self.write(sink, text)
        self.write(sink, text)

    def to_nothing(self, sink, text):
        self.write(sink, re.sub(r'"inReplyTo": "[^"]*"', '"inReplyTo": "a.example/0-1"', text))
        self.write(sink, text)

    def to_the_past(self, sink, text):
        """Twice this answer, once to what has its answer already."""
        if self.past:
            self.write(sink, re.sub(r'"inReplyTo": "[^"]*"', f'"inReplyTo": "{self.past[0]}"', text))
        self.write(sink, text)

    def late_one(self, sink, text):
        self.later(sink, text)

    def forgets(self, sink, text):
        pass


def handle(arguments):
    fatal, harmless, *words = arguments
    options = dict(word.partition("=")[::2] for word in words)
    handler = Handler(options, float(fatal), float(harmless))
    # A handler that is to end says what it has to say all the same.
    signal.signal(signal.SIGTERM, lambda *_: threading.Timer(0.3, os._exit, [0]).start())
    if "unix" in options:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(options["unix"])
        listener.listen(64)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_connection, args=(handler, connection), daemon=True).start()
    try:
        if "socket" in options:
            handler.serve(os.fdopen(3, "rb", closefd=False), os.fdopen(3, "wb", closefd=False))
        else:
            handler.serve(sys.stdin.buffer, sys.stdout.buffer)
    except OSError:
        pass  # the server has given it up
    os._exit(0)


def serve_connection(handler, connection):
    with connection:
        try:
            handler.serve(connection.makefile("rb"), connection.makefile("wb"))
        except OSError:
            pass  # the server has given it up


class Sender(threading.Thread):
    """A connection that sends so many requests to each type."""

    def __init__(self, number, address, each):
        super().__init__(daemon=True)
        self.number, self.each = number, each
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.input = self.socket.makefile("rb")
        self.open = {}  # of each request: its type, and whether it was delivered
        self.wrong = []
        self.outcomes = collections.Counter()

    def send(self, *messages):
        texts = [json.dumps(message).encode() for message in messages]
        self.socket.sendall(b"".join(struct.pack("<I", len(text)) + text for text in texts))

    def get(self):
        prefix = self.input.read(4)
        if len(prefix) < 4:
            raise EOFError("the server closed the connection")
        return json.loads(self.input.read(struct.unpack("<I", prefix)[0]))

    def run(self):
        try:
            self.log_in()
            self.send_all()
            # Whatever comes too often has come by then.
            self.send({"payload": {"type": "builtin", "data": {"command": {"type": "ping"}}, "id": "last"}})
            while (frame := self.get())["payload"].get("id") != "last":
                self.wrong.append(f"after all reports: {frame}")
        except (OSError, EOFError, ValueError) as error:
            self.wrong.append(f"{error!r}, with {len(self.open)} requests without a report: {list(self.open.items())[:5]}")

    def log_in(self):
        login = {"username": f"user{self.number}", "password": "password"}
        self.send({"header": {"authentication": login}, "payload": {"type": "dummy", "data": None}})
        report = self.get()
        if report["header"]["status"] != "good":
            raise ValueError(f"no login: {report}")

    def send_all(self):
        left = {kind: self.each for kind in TYPES}
        under_way = collections.Counter()
        count = 0
        while self.open or any(left.values()):
            messages = []
            for kind in TYPES:
                while left[kind] and under_way[kind] < UNDER_WAY:
                    count += 1
                    left[kind] -= 1
                    under_way[kind] += 1
                    nonce = f"{self.number}:{count}:{random.getrandbits(64):016x}"
                    self.open[nonce] = [kind, False]
                    messages.append({"payload": {"type": kind, "data": nonce, "id": nonce}})
            if messages:
                self.send(*messages)
            kind = self.take(self.get())
            if kind:
                under_way[kind] -= 1

    def take(self, frame):
        """Judges what came; the type if it is a report."""
        payload = frame["payload"]
        nonce = payload.get("id")
        if nonce not in self.open:
            self.wrong.append(f"nothing like that is under way: {frame}")
            return None
        entry = self.open[nonce]
        kind, delivered = entry
        if payload["type"] != kind:
            self.wrong.append(f"of another type than {kind}: {frame}")
        if frame["header"]["messageType"] == "receivedMessage":
            if payload["data"] != nonce:
                self.wrong.append(f"another's answer: {frame}")
            if delivered:
                self.wrong.append(f"delivered twice: {frame}")
            entry[1] = True
            return None
        good = frame["header"]["status"] == "good"
        if good != delivered:
            self.wrong.append(f"{'delivered' if delivered else 'not delivered'}, and its report is {frame}")
        self.outcomes[kind, "good" if good else frame["header"]["reason"]] += 1
        del self.open[nonce]
        return kind


class Server:
    """In a directory of its own."""

    def __init__(self, program, directory, fatal, harmless):
        self.log = []
        types = {}
        for kind, (arguments, keys) in TYPES.items():
            arguments = ["handler", str(fatal), str(harmless), *arguments]
            program_keys = {"handlerBinary": os.path.abspath(__file__), "arguments": arguments}
            types[kind] = {**program_keys, "timeoutSeconds": 1, "queueSeconds": 30, **keys}
        config = {
            "server": {"name": "a.example", "stateDirectory": "state"},
            "network": {"tcp4": {"address": "127.0.0.1", "port": 0}},
            "handlers": {"typeMap": types},
        }
        with open(os.path.join(directory, "bester.conf"), "w") as file:
            json.dump(config, file)
        lines = [json.dumps({"name": f"user{number}", "password": PASSWORD_HASH}) + "\n" for number in range(SENDERS)]
        importing = [program, "user", "import", "-"]
        subprocess.run(importing, input="".join(lines), cwd=directory, text=True, check=True, stdout=subprocess.DEVNULL)
        # The system's own Python, where there is one, starts ten times as fast as a wrapper that looks for another.
        environment = {**os.environ, "PATH": "/usr/bin:/bin:" + os.environ.get("PATH", "")}
        self.process = subprocess.Popen(
            [program, "serve", "-c", "bester.conf"], cwd=directory, env=environment, stderr=subprocess.PIPE, text=True
        )
        self.address = None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"listening on tcp4://127\.0\.0\.1:(\d+)", line):
                self.address = ("127.0.0.1", int(found[1]))
            if "is ready" in line:
                break
        else:
            sys.exit("the server does not start:\n" + "".join(self.log))
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def stop(self):
        self.process.terminate()
        code = self.process.wait()
        self.reader.join()
        return code


def run(requests, program):
    each = -(-requests // (SENDERS * len(TYPES)))  # rounded up
    # A death costs a type more than a second, so there are so many in each and no more.
    of_type = each * SENDERS
    deaths = min(80, max(6, of_type / 150))
    seed = random.randrange(1 << 32)
    random.seed(seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        server = Server(program, directory, deaths / of_type, min(0.05, 3 * deaths / of_type))
        try:
            senders = [Sender(number, server.address, each) for number in range(SENDERS)]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
        finally:
            code = server.stop()
    took = time.monotonic() - began
    outcomes = sum((sender.outcomes for sender in senders), collections.Counter())
    wrong = [f"user{sender.number}: {words}" for sender in senders for words in sender.wrong]
    if code != 0:
        wrong.append(f"the server ended with {code}")
    wrong += [f"the server's log: {line.strip()}" for line in server.log if "panicked" in line]
    expected = of_type * len(TYPES)
    if outcomes.total() != expected:
        wrong.append(f"{expected} requests had {outcomes.total()} reports")
    tell(outcomes, "".join(server.log), took)
    for words in wrong[:20]:
        print(f"WRONG {words}")
    print(f"{len(wrong)} things were wrong" if wrong else "each request had one report, and nobody had another's answer")
    return 1 if wrong else 0


def tell(outcomes, log, took):
    reasons = sorted({reason for _, reason in outcomes} - {"good"})
    columns = ["type", "starts", "good", *reasons]
    rows = []
    for kind in TYPES:
        starts = len(re.findall(rf"handler {kind} started", log))
        rows.append([kind, starts, *(outcomes[kind, reason] for reason in ["good", *reasons])])
    rows.append(["all", *(sum(row[place] for row in rows) for place in range(1, len(columns)))])
    widths = [max(len(str(row[place])) for row in [columns, *rows]) for place in range(len(columns))]
    for row in [columns, *rows]:
        print("  ".join(str(value).rjust(width) for value, width in zip(row, widths)))
    print(f"{outcomes.total()} requests in {took:.0f} s")


if __name__ == "__main__":
    if sys.argv[1] == "handler":
        handle(sys.argv[2:])
    else:
        sys.exit(run(int(sys.argv[1]), sys.argv[2]))
