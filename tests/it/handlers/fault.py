#!/usr/bin/env python3
"""A handler that does what its requests say: a request's data is a list of steps, [VERB, ARGUMENT...], see Steps.

Arguments: `lines` for frames that are lines, `socket` for descriptor 3, `unix=PATH` to listen there,
`begin=STEPS` for steps that are taken before anything is read, `stubborn` for one who does not hear SIGTERM.
"""
from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import struct
import sys
import threading
import time


class Channel:
    """Frames from and to the server."""

    def __init__(self, source, sink, lines, number=0):
        self.source, self.sink, self.lines, self.number = source, sink, lines, number

    def read(self):
        if self.lines:
            return self.source.readline() or None
        prefix = self.source.read(4)
        return self.source.read(struct.unpack("<I", prefix)[0]) if len(prefix) == 4 else None

    def raw(self, data):
        self.sink.write(data)
        self.sink.flush()

    def write(self, *texts):
        """Frames, in one piece."""
        self.raw(b"".join(map(self.frame, texts)))

    def frame(self, text):
        data = text.encode("utf-8", "surrogateescape")
        return data + b"\n" if self.lines else struct.pack("<I", len(data)) + data


class Steps:
    """What can be done about one request."""

    kept: list["Steps"] = []

    def __init__(self, channel, request):
        self.channel, self.request = channel, request
        envelope = isinstance(request, dict) and "header" in request
        self.about = request["header"]["messageId"] if envelope else None

    def take(self, steps):
        for verb, *arguments in steps:
            getattr(self, verb)(*arguments)

    def say(self, text):
        """A frame with this text; $ABOUT is the messageId."""
        self.channel.write(text.replace("$ABOUT", self.about or ""))

    def flood(self, text, thousands):
        """The same frame, thousands of times."""
        frame = struct.pack("<I", len(text)) + text.encode("ascii")
        for _ in range(thousands):
            self.channel.raw(frame * 1000)

    def answer(self, data, command="reply"):
        header = {"status": "0", "command": command}
        if self.about is not None:
            header["inReplyTo"] = self.about
        return json.dumps({"header": header, "payload": {"data": data}})

    def reply(self, data):
        self.channel.write(self.answer(data))

    def twice(self, data):
        """Two answers at once."""
        self.channel.write(self.answer(data), self.answer(data))

    def late(self, data):
        """Answers when it is told to terminate, which it must be too stubborn for."""
        signal.sigwait({signal.SIGTERM})
        self.reply(data)

    def waste(self, size):
        """A long answer that reaches nobody."""
        self.channel.write(self.answer("x" * size, "none"))

    def hand_on(self, kind, data):
        header = {"status": "0", "command": "sendHandler", "commandData": kind, "inReplyTo": self.about}
        self.channel.write(json.dumps({"header": header, "payload": {"data": data}}))

    def round(self):
        """The same to the same handler again."""
        self.hand_on(self.request["payload"]["type"], self.request["payload"]["data"])

    def echo(self):
        self.reply(self.request)

    def skip(self, text):
        pass

    def number(self):
        """Which connection this is."""
        self.reply(self.channel.number)

    def outcome(self):
        """Replies with the next frame, which tells what became of something that was said with an id."""
        self.reply(json.loads(self.channel.read()))

    def fill(self, size):
        self.reply("x" * size)

    def keep(self):
        self.kept.append(self)

    def release(self, *data):
        """Replies to what was kept, the last first."""
        for value in data:
            self.kept.pop().reply(value)

    def raw(self, text):
        self.channel.raw(text.encode("latin-1"))

    def exit(self, code):
        os._exit(code)

    def exit_unless(self, path, code):
        if not os.path.exists(path):
            os._exit(code)

    def if_there(self, path, steps):
        if os.path.exists(path):
            self.take(steps)

    def kill(self, number):
        os.kill(os.getpid(), number)
        signal.pause()

    def stop(self):
        os.kill(os.getpid(), signal.SIGSTOP)

    def hang(self):
        """Takes everything but what cannot be ignored."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        while True:
            signal.pause()

    def meet(self, path):
        """Waits until somebody opens this FIFO for writing."""
        with open(path, "rb") as fifo:
            fifo.read()

    def print(self, text, times=1):
        """To standard error."""
        os.write(2, (text * times).encode("utf-8", "surrogateescape"))

    def close(self, descriptor):
        os.close(descriptor)

    def shut(self):
        """Ends the connection."""
        raise OSError

    def work(self, seconds):
        time.sleep(seconds)

    def pause(self):
        threading.Event().wait()

    def fork(self):
        """Leaves somebody behind who holds all that this process holds; writes his process id to `left-TYPE`."""
        child = os.fork()
        if child == 0:
            while True:
                signal.pause()
        note("left-" + os.environ["BESTER_TYPE"], child)

    def daemonise(self):
        """The same, and he goes on in a session of his own when this process has ended."""
        ready, said = os.pipe()
        if os.fork() == 0:
            os.setsid()
            note("left-" + os.environ["BESTER_TYPE"], os.getpid())
            os.close(said)
        else:
            os.close(said)
            os.read(ready, 1)
            os._exit(0)

    def look(self, *tries):
        """What this process is like, and which of these it can do: `informer`, connect to it; `reopen`, open its standard
        error by its name."""
        listed = [int(name) for name in os.listdir("/proc/self/fd")]  # and the one for listing them, closed by now
        descriptors = sorted(number for number in listed if os.path.lexists(f"/proc/self/fd/{number}"))
        self.reply({
            "descriptors": descriptors,
            "environment": dict(os.environ),
            "directory": os.getcwd(),
            "pid": os.getpid(),
            "group": os.getpgid(0),
            "arguments": sys.argv[1:],
            "user": os.getresuid(),
            "groups": [os.getresgid(), os.getgroups()],
            "tried": {name: attempt(name) for name in tries},
        })


def attempt(name):
    """Why it does not go, if it does not."""
    try:
        if name == "informer":
            with socket.socket(socket.AF_UNIX) as informer:
                informer.connect(os.environ["BESTER_INFORMER"])
        else:
            os.close(os.open("/dev/stderr", os.O_WRONLY))
    except OSError as error:
        return str(error)
    return None


def note(name, text):
    """Writes a file in one step."""
    with open(name + ".new", "w") as file:
        file.write(str(text))
    os.rename(name + ".new", name)


def serve(channel):
    while (frame := channel.read()) is not None:
        request = json.loads(frame)
        steps = Steps(channel, request)
        steps.take(request["payload"]["data"] if steps.about is not None else request)


def serve_connection(connection, lines, number):
    with connection:
        try:
            serve(Channel(connection.makefile("rb"), connection.makefile("wb"), lines, number))
        except OSError:
            pass  # the server gave the connection up


def main():
    words = [word.partition("=") for word in sys.argv[1:]]
    options = {name: value for name, _, value in words}
    lines = "lines" in options
    if "stubborn" in options:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Steps(None, None).take(json.loads(options.get("begin", "[]")))
    if "unix" in options:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(options["unix"])
        listener.listen(64)
        for number in itertools.count(1):
            connection, _ = listener.accept()
            threading.Thread(target=serve_connection, args=(connection, lines, number), daemon=True).start()
    if "socket" in options:
        print("this goes nowhere", flush=True)
        source, sink = os.fdopen(3, "rb", closefd=False), os.fdopen(3, "wb", closefd=False)
    else:
        source, sink = sys.stdin.buffer, sys.stdout.buffer
    serve(Channel(source, sink, lines))
    for stay in options.get("stay", "").split():  # after the end of the input
        note("ended-input", os.getpid())
        Steps(None, None).take([[stay]])


if __name__ == "__main__":
    main()
