"""What the tests of handlers need: a running handler with our ends of its pipes, a server's words, and a server's informer."""

import fcntl
import json
import os
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS_MAX = 30  # a handler that hangs is killed then, and the test sees its output end

# Data that a program which decodes and encodes it again would change.
TOUCHY = [
    b"1e999",
    b"1.0",
    b"-0",
    b"1E+2",
    b"1234567890123456789012345678901234567890",
    b"9" * 5_000,
    rb'"\ud800"',
    rb'"\u0041\/"',
    '"ü€😀"'.encode(),
    b'{"a":1,"a":2,"a":1}',
    b'{"z":1,"y":2,"a":3}',
    b' {\t"spaced" :\n[ 1 ,2 ] } ',
    b"[" * 100 + b"]" * 100,
    b'"' + b"x" * 200_000 + b'"',
    b"null",
    b'""',
]


def frame(body):
    return struct.pack("<I", len(body)) + body


class Process:
    """A running handler, and our ends of its pipes; or of a socket on its descriptor 3."""

    def __init__(self, *command, informer=None, on_descriptor_3=False, **variables):
        self.errors = tempfile.TemporaryFile()
        # With PYTHONUNBUFFERED a forgotten flush would go unnoticed.
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONUNBUFFERED", "BESTER_INFORMER")}
        environment.update(variables)
        if informer is not None:
            environment["BESTER_INFORMER"] = informer.path
        command = [str(part) for part in command]
        stdin = stdout = subprocess.PIPE
        ours = theirs = None
        if on_descriptor_3:
            ours, theirs = socket.socketpair()
            command = ["sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh"] + command
            stdin, stdout = theirs, subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=self.errors, env=environment, bufsize=0)
        self.sink, self.source = self.process.stdin, self.process.stdout
        if ours is not None:
            theirs.close()
            self.sink = self.source = ours.makefile("rwb", buffering=0)
            ours.close()
        self.watchdog = threading.Timer(SECONDS_MAX, self.process.kill)
        self.watchdog.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.watchdog.cancel()
        self.process.kill()
        self.process.wait()
        for file in (self.sink, self.source, self.errors):
            file.close()

    def write(self, data):
        view = memoryview(data)
        while view:
            view = view[self.sink.write(view) :]

    def write_apart(self, data):
        """Writes byte by byte, each only when the handler has taken the one before out of the pipe."""
        for value in data:
            self.write(bytes([value]))
            while self.process.poll() is None:
                (waiting,) = struct.unpack("i", fcntl.ioctl(self.sink, termios.FIONREAD, b"\0" * 4))
                if waiting == 0:
                    break
                os.sched_yield()

    def read(self, size):
        data = b""
        while len(data) < size and (more := self.source.read(size - len(data))):
            data += more
        return data

    def frame(self):
        """The next frame."""
        prefix = self.read(4)
        assert len(prefix) == 4, f"the output ended after {prefix!r}; the handler's errors: {self.log()}"
        (size,) = struct.unpack("<I", prefix)
        assert size < 1 << 22, f"{prefix!r} is no length"
        body = self.read(size)
        assert len(body) == size, f"the output ended in a frame of {size} bytes: {body[:100]!r}"
        return body

    def line(self):
        data = b""
        while not data.endswith(b"\n") and (more := self.source.read(1)):
            data += more
        return data

    def finish(self):
        """Closes the input; what still comes out, and the exit code."""
        self.sink.close()
        rest = self.source.read()
        return rest, self.process.wait()

    def wait_for(self, words):
        """Waits until the log has these words."""
        end = time.monotonic() + SECONDS_MAX
        while words not in self.log():
            assert time.monotonic() < end and self.process.poll() is None, self.log()
            os.sched_yield()

    def log(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")


class Asker(Process):
    """A handler that takes envelopes, with a server's words in front."""

    def __init__(self, *command, **options):
        super().__init__(*command, **options)
        self.counter = 0

    def envelope(self, user, data, hops=0, **origin):
        """The message id and the frame of a request by `user` (of a server, if that is None) with `data` (JSON text)."""
        self.counter += 1
        message_id = f"a.example/5f-{self.counter}"
        origin = {"scope": "client", "user": user, "server": "a.example", "verified": True, "session": 17, **origin}
        origin = {key: value for key, value in origin.items() if value is not None}
        header = json.dumps({"messageId": message_id, "from": origin, "hops": hops}).encode()
        return message_id, frame(b'{"header":' + header + b',"payload":{"type":"chat","data":' + data + b',"id":"c"}}')

    def sends(self, user, data, **origin):
        """Sends `data` as `user`; the message id."""
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        message_id, request = self.envelope(user, data, **origin)
        self.write(request)
        return message_id

    def gets(self):
        """The header and the data of what comes."""
        answer = json.loads(self.frame())
        return answer["header"], answer.get("payload", {}).get("data")

    def ask(self, user, data, **origin):
        """Sends `data` as `user`; the header and data of the answer, which must belong to it."""
        message_id = self.sends(user, data, **origin)
        header, data = self.gets()
        assert header.pop("inReplyTo") == message_id, header
        return header, data


class Informer:
    """A server's informer, which says what the test wants it to say."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self.folder.name, "informer.sock"))
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(SECONDS_MAX)
        self.listener.bind(self.path)
        self.listener.listen()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.folder.cleanup()

    def accept(self):
        """The next connection."""
        return Line(self.listener.accept()[0])


class Line:
    """The server's end of a connection, of the informer's or of one to a handler that listens."""

    def __init__(self, connection):
        connection.settimeout(SECONDS_MAX)
        self.connection = connection
        self.input = connection.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.input.close()
        self.connection.close()

    def frame(self):
        """The next frame, or nothing at the end."""
        prefix = self.input.read(4)
        return self.input.read(*struct.unpack("<I", prefix)) if prefix else b""

    def question(self):
        """The command of the next question."""
        return json.loads(self.frame())["command"]

    def says(self, value):
        self.connection.sendall(frame(json.dumps(value).encode()))

    def answers(self, data):
        self.says({"status": "0", "data": data})
