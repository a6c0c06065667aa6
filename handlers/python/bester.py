"""Handlers for a bester server in Python: this one file, Python 3.8 or later, nothing to install.

A handler is a program that is given the messages of one type, and says what is to be done about each:

    import bester

    def handle(message):
        if not isinstance(message.data, str):
            return bester.refuse("badRequest", "send me a text")
        return bester.reply(message.data.upper())

    bester.serve(handle)

serve() speaks with the server until there is nothing more to come. The function you give it is called with one Message
at a time, and returns what is to be done:

    bester.reply(data)                 deliver this to the connection that asked
    bester.send(["alice", "bob"], data)   deliver it to these users, on each of their connections
    bester.hand_on("audit", data)      give it to the handler of that type, and do what that one answers
    bester.send_servers(["b.example"], data)   send it to these servers
    bester.nothing()                   nothing; so does None
    bester.refuse("status", data)      nothing, and tell the sender why; this one may also be raised
    [bester.reply(1), bester.send("bob", 2)]   several things, in this order
    bester.send("bob", data, offline="queue")   if bob is away, keep it in his mailbox ("drop": do not), whatever is configured

`data` is whatever json.dumps() takes. Bytes are JSON already and go out as they are: reply(message.raw) is an echo that
changes nothing, while reply(message.data) may turn 1E2 into 100.0. When your function raises an exception, its traceback
goes to the server's log and the sender is told that the message was refused, with the status "internal"; the next
message is handled as if nothing had happened.

**Who is speaking.** With `"envelope": true` in the configuration and serve(handle, envelope=True) a message tells where it
comes from: see Message. Believe `message.local_user`; a name inside the data is only what somebody claims. The two must
agree, or clients could write envelopes of their own: the server says BESTER_ENVELOPE=1 to those that it sends envelopes,
and a handler that takes them and is not told so ends with DO_NOT_RESTART.

**Other servers.** With `"federated": true` beside it, messages come also from the handlers of this type on other servers that
are known to this one, or, if the server is open to all, from anybody. `message.peer` is the server that it comes from, if the
server vouches for it, and `message.peer_user` who is meant over there, as "alice@a.example". reply() goes to the handler on
that server, and send_servers() to those on any others, as a message from us. They are kept on the disk until they have
arrived, though perhaps in another order; the other server may be away for hours.

**Later.** With envelopes, return LATER to answer when you are ready, from any thread: message.answer(bester.reply(...)).
Mind the deadline (`timeoutSeconds`). Your function is never called by two threads at once.

**Unasked.** With envelopes, push(bester.send("bob", data)) has something done though nobody asked; any thread may do so.
If the server takes no more pushes for a moment, the call waits. Others use Informer().push(), which also says what came of it.

**In the background.** serve(..., background=function) runs a function of yours in a thread beside, or each of a list of them. If
one raises an exception the process ends with 1, and the server starts another.

**Asking.** Informer asks the server who is online, and tells when users come and go.

**Printing** is safe: serve() keeps standard input and output for itself, and whatever prints afterwards (you, a library, a
program that you start) prints to standard error, which is the server's log.

**The end.** serve() returns at the end of its input, when the server stops. Clean up after it, or in a `finally` around it,
which SIGTERM reaches too (as SystemExit). Call sys.exit(bester.DO_NOT_RESTART) if starting the handler again is of no
use, because its own configuration is wrong, say; after any other end the server starts it again.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import stat
import struct
import sys
import threading
import time
import traceback
from functools import cached_property, partial
from types import FrameType
from typing import Any, BinaryIO, Callable, Dict, Iterable, Iterator, List, NamedTuple, NoReturn, Optional, Sequence, Set, Tuple, Union

__all__ = [
    "Answer",
    "Command",
    "DO_NOT_RESTART",
    "Informer",
    "InformerError",
    "LATER",
    "Message",
    "Outcome",
    "Refusal",
    "Session",
    "hand_on",
    "nothing",
    "push",
    "refuse",
    "reply",
    "send",
    "send_servers",
    "serve",
]

DO_NOT_RESTART = 125
"""The exit code after which the server does not start a handler again, until `bester handler restart TYPE` or a reload."""

ANSWER_BYTES_MAX = 4 << 20  # what the server takes unless its `frameBytesHandler` says otherwise; serve() can be told
FRAME_BYTES_MAX = 64 << 20  # far more than the server sends unless its `frameBytes` says so; serve() can be told
DEPTH_MAX = 1_000  # of the server's `depth`, to which Python's own limit of recursion is fitted
OUTCOMES_MAX = 4_096  # pushes and answers whose outcome may be awaited at once
CONNECTIONS_MAX = 4_096  # on a UNIX socket that we listen on: what the server's `inFlight` can be at most
END_SECONDS = 4.0  # how long answers that are owed may take at the end; the server's `stopSeconds` is 5
GRACE_SECONDS = 1.0  # how long the main thread may take to its end when the thread in the background has failed
DIGITS_MAX = 4_300  # longer whole numbers become floats, which may be inf: Python's int() is too slow for them, and refuses


# What a handler answers.


class Command:
    """Something that the server is to do. Made by reply(), send() and their like."""

    __slots__ = ("order", "data")

    def __init__(self, order: bytes, data: Optional[bytes]) -> None:
        self.order = order  # the JSON text of "command" and "commandData", without braces
        self.data = data  # encoded at once: a mistake in it shows where it was made, and it may change afterwards

    def __repr__(self) -> str:
        return f"<{self.order.decode()} {self.data!r}>"


class Refusal(Exception):
    """Says no to a message. Return it or raise it."""

    def __init__(self, status: str, data: object = None) -> None:
        super().__init__(status, data)
        if status in ("0", "good", "ok"):
            raise ValueError(f"the status {status!r} would mean that all is well")
        self.status = status
        self.data = data


class Later:
    """The type of LATER."""


LATER = Later()
"""What a function returns that answers with message.answer() some time later."""

Answer = Union[Command, Refusal, Sequence[Command], None]
"""What can be done about a message."""


def reply(data: object, offline: Optional[str] = None) -> Command:
    """Delivers `data` to the connection that asked. `offline` as in send(), should that have gone meanwhile.

    If it was another server that asked, this is send_servers() to that one.
    """
    return Command(b'"command":"reply"' + _offline(offline), _encode(data))


def send(users: Union[str, Iterable[str]], data: object, offline: Optional[str] = None) -> Command:
    """Delivers `data` to these users (or to this one), on each of their connections.

    `offline` says what is done for those who are away: "queue" keeps it in their mailboxes, "drop" does nothing. Without it,
    the handler's configuration says so.
    """
    return Command(b'"command":"sendClients","commandData":' + _encode(_names(users)) + _offline(offline), _encode(data))


def send_servers(servers: Union[str, Iterable[str]], data: object) -> Command:
    """Sends `data` to the handlers of the same type on these servers (or on this one), which are named or given by address.

    Only servers that this one knows can be sent to; others are `unknown` in the outcome.
    """
    return Command(b'"command":"sendServers","commandData":' + _encode(_names(servers)), _encode(data))


def hand_on(type: str, data: object) -> Command:
    """Gives `data` to the handler of that type, whose answer is then carried out."""
    return Command(b'"command":"sendHandler","commandData":' + _encode(type), _encode(data))


def nothing() -> Command:
    """Does nothing; the sender is told that all is well."""
    return Command(b'"command":"none"', None)


def refuse(status: str, data: object = None) -> Refusal:
    """Tells the sender that nothing was done: a word for programs, and what explains it (a sentence for people, say)."""
    return Refusal(status, data)


# What a handler gets.


class Message:
    """A message to be answered.

    `data` is what was sent, and `raw` the same as the bytes of JSON that came; both are always there. The rest is None (or
    0, or False) unless serve() was told envelope=True.
    """

    message_id: Optional[str] = None
    """The server's name for this request."""
    id: Optional[str] = None
    """The sender's name for it, which means nothing and may come again."""
    type: Optional[str] = None
    """The type of the message."""
    hops: int = 0
    """How many times it was sent from one server to another; the servers allow 8. What is said about a message with n of them
    has n + 1 when it gets to the next server, and what is pushed begins anew: do not push because of what a server has sent."""

    scope: Optional[str] = None
    """Where it comes from: "client", "server" (another server) or "handler" (another handler's push)."""
    user: Optional[str] = None
    """Who sent it: a user of `server`. Whether that is true says `verified`; `local_user` is the one to rely on."""
    server: Optional[str] = None
    """The server that the sender is logged in to, or that the handler belongs to. Of another server that is not `verified` it
    is the address that it was sent from."""
    session: Optional[int] = None
    """The sender's connection: a number that is not used again while the server runs."""
    handler: Optional[str] = None
    """The type of the handler whose push led to this."""
    verified: bool = False
    """Whether the server vouches for the above."""

    _answered = False
    _awaited = False  # LATER was returned for it

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    @property
    def local_user(self) -> Optional[str]:
        """The user of this very server who sent it, beyond doubt; None if it was anybody else."""
        return self.user if self.scope == "client" and self.verified else None

    @property
    def peer(self) -> Optional[str]:
        """The other server that sent it, beyond doubt; None if it is not from another server, or from one that is not known."""
        return self.server if self.scope == "server" and self.verified else None

    @property
    def peer_user(self) -> Optional[str]:
        """The user of that server for whom it was sent, by that server's word, as "alice@a.example": it can speak for its own
        users alone. None if it speaks for nobody, or there is no `peer`."""
        return f"{self.user}@{self.server}" if self.peer is not None and self.user is not None else None

    @cached_property
    def data(self) -> Any:
        """What was sent, decoded when it is first asked for."""
        return _decode(self.raw.decode())

    @cached_property
    def raw(self) -> bytes:
        """The JSON of `data`, byte for byte as the sender wrote it."""
        return _cut(self._frame.decode(), "payload", "data").encode()

    _frame = b""  # of the envelope

    def answer(self, answer: Answer, then: Optional[Callable[[Outcome], None]] = None) -> None:
        """Answers now. Any thread may do so, once for each message; who does it later returns LATER from the function
        that serve() calls. `then` is called with what became of it, which only envelopes make possible."""
        if then is not None and self.message_id is None:
            raise RuntimeError("only with an envelope does the server say what became of an answer")
        self._stream.write_and(then, _answer_body(answer, self.message_id), self)

    def _open(self, frame: bytes, envelope: Dict[str, Any]) -> None:
        """Takes over what the envelope tells. It is the server's, which never leaves out what is indexed here."""
        header, payload = envelope["header"], envelope["payload"]
        origin = header["from"]
        self._frame = frame
        self.message_id, self.hops = header["messageId"], header.get("hops", 0)
        self.data, self.id, self.type = payload["data"], payload.get("id"), payload.get("type")
        self.scope, self.user, self.server = origin.get("scope"), origin.get("user"), origin.get("server")
        self.session, self.verified = origin.get("session"), origin.get("verified") is True
        self.handler = origin.get("type")


class Outcome(NamedTuple):
    """What became of a push, or of an answer."""

    reason: Optional[str]
    """None if all was done; else a word from the server's list of reasons, such as "undelivered"."""
    message: Optional[str]
    """The same for people."""
    delivered: int
    """To how many users it was handed on connections that do not acknowledge."""
    queued: int
    """In how many places on the disk it is: in mailboxes of users who are away, or who have not acknowledged it, and on the
    way to other servers."""
    offline: List[str]
    """Who was not there."""
    unknown: List[str]
    """Who does not exist: users, and servers that are not known."""
    refused: List[str]
    """Whose mailbox is full, and to which servers too much is on the way."""


# Serving.


def serve(
    handle: Callable[[Message], Union[Answer, Later]],
    *,
    envelope: bool = False,
    framing: str = "length",
    transport: str = "stdio",
    path: Optional[str] = None,
    background: Union[None, Callable[[], object], Sequence[Callable[[], object]]] = None,
    frame_bytes_max: int = FRAME_BYTES_MAX,
    answer_bytes_max: int = ANSWER_BYTES_MAX,
) -> None:
    """Answers messages with what `handle` returns, until the server wants no more.

    `envelope`, `framing` ("length" or "lines") and `transport` ("stdio", "socket" or "unix") are those of the handler's
    configuration. With "unix" we listen at `path`, the configuration's unixDomainSocketPath, until SIGTERM.
    `answer_bytes_max` is the server's `frameBytesHandler`; what is longer is an error here, where it costs one message.
    """
    if framing not in ("length", "lines"):
        raise ValueError(f'framing is "length" or "lines", not {framing!r}')
    if transport not in ("stdio", "socket", "unix") or (transport == "unix") != (path is not None):
        raise ValueError('transport is "stdio", "socket", or "unix" with a path')
    if envelope and "BESTER_TYPE" in os.environ and os.environ.get("BESTER_ENVELOPE") != "1":
        print('this handler takes envelopes: give it "envelope": true in the configuration', file=sys.stderr)
        sys.exit(DO_NOT_RESTART)
    # The server may allow data as deep as Python's own limit.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), DEPTH_MAX + 1_500))
    source, sink = _keep_channel(transport)
    open_stream = partial(_Stream, lines=framing == "lines", frame_bytes_max=frame_bytes_max, answer_bytes_max=answer_bytes_max)
    if path is not None:
        with _Listener(path, handle, envelope, open_stream) as listener:
            _start_background(background)
            listener.run()
        _ended.set()
        return
    _on_sigterm(lambda: sys.exit(0))
    stream = open_stream(source, sink)
    if envelope:
        _pushes.stream = stream
    _start_background(background)
    stream.run(handle, envelope, threading.Lock())
    _ended.set()
    stream.close()


def push(*commands: Command, then: Optional[Callable[[Outcome], None]] = None) -> None:
    """Has something done without being asked. It needs envelopes, and standard input and output or a socket as transport.

    `then` is called with what became of it, by the thread that also calls the handler's function.
    """
    stream = _pushes.stream
    if stream is None:
        raise RuntimeError("push() works while serve(..., envelope=True) runs on stdio or socket; Informer().push() always does")
    stream.write_and(then, _answer_body(commands, None))


# Asking the server.


class InformerError(Exception):
    """The server did not do what it was asked; the text is its own."""


class Session(NamedTuple):
    """A connection that is logged in."""

    user: str
    session: int


class Informer:
    """Asks the server things, on a connection of its own which is opened when it is needed. Threads may share it.

    InformerError means that the server refused, an OSError that it could not be reached or did not answer in time.
    """

    def __init__(self, path: Optional[str] = None, timeout: float = 10.0) -> None:
        """`path` is that of the socket, by default what the server has put into the environment."""
        path = path or os.environ.get("BESTER_INFORMER")
        if not path:
            raise InformerError("BESTER_INFORMER is not set: this program was not started by a server, so name the socket's path")
        self.path = path
        self.timeout = timeout
        self._lock = threading.Lock()
        self._line: Optional[_Line] = None

    def list_clients(self) -> List[str]:
        """The names of the users who are logged in."""
        return list(self._ask("listClients"))

    def is_client(self, user: str) -> bool:
        """Whether that user is logged in."""
        return bool(self._ask("isClient", _encode(user)))

    def server_info(self) -> Dict[str, Any]:
        """clientCount, adminInfo and listeners, as the server says them."""
        return dict(self._ask("serverInfo"))

    def sessions(self) -> List[Session]:
        """The connections that are logged in."""
        return [Session(each["user"], each["session"]) for each in self._ask("sessions")]

    def push(self, *commands: Command) -> Outcome:
        """Has something done as if this handler had been asked, and waits for what came of it.

        It is not tried again when the connection breaks: it may have been done already.
        """
        return _outcome(self._ask("push", _answer_body(commands, None), again=False), {})

    def watch(self) -> Iterator[Tuple[List[str], List[str]]]:
        """Who has come and who has gone, again and again. The first time: everybody who is online, and nobody.

        A user comes with the first connection and goes with the last one. It has a connection of its own. If that breaks it is
        opened again, and what has changed meanwhile is told; an OSError is raised when that fails for some seconds.
        """
        line, known, _ = self._watching(set(), 0)
        try:
            yield sorted(known), []
            while True:
                try:
                    event = line.read().get("event", {})
                    came = {event["user"]} - known if event.get("type") == "online" else set()
                    went = {event["user"]} & known if event.get("type") == "offline" else set()
                except OSError:
                    line.close()
                    line, came, went = self._watching(known, 6)
                known = (known | came) - went
                if came or went:
                    yield sorted(came), sorted(went)
        finally:
            line.close()

    def quit(self) -> None:
        """Ends the connection; the next question opens another."""
        with self._lock:
            if self._line is not None:
                self._line.close()
                self._line = None

    def __enter__(self) -> Informer:
        return self

    def __exit__(self, *_: object) -> None:
        self.quit()

    def _ask(self, kind: str, data: Optional[bytes] = None, again: bool = True) -> Any:
        with self._lock:
            was_open = self._line is not None
            try:
                return self._ask_once(kind, data)
            except socket.timeout:
                raise
            except OSError:
                if not was_open or not again:
                    raise
                return self._ask_once(kind, data)  # the server may have closed the connection long ago

    def _ask_once(self, kind: str, data: Optional[bytes]) -> Any:
        self._line = self._line or _Line(self.path, self.timeout)
        try:
            return self._line.ask(kind, data)
        except OSError:
            self._line.close()  # what comes on it next might be a late answer to this question
            self._line = None
            raise

    def _watching(self, known: Set[str], patience: int) -> Tuple[_Line, Set[str], Set[str]]:
        """A connection that tells, and who has come and gone since `known` was true. Tries again `patience` times."""
        delay = 0.1
        while True:
            try:
                line = _Line(self.path, self.timeout)
                try:
                    now = set(line.ask("watchClients"))
                except BaseException:
                    line.close()
                    raise
                line.socket.settimeout(None)  # from here on it is quiet for as long as nobody comes or goes
                return line, now - known, known - now
            except OSError:
                if patience == 0:
                    raise
                patience -= 1
                time.sleep(delay)
                delay *= 2


# From here on: how it is done.


class _Stream:
    """A channel to the server: frames in, for one thread, and frames out, for any."""

    def __init__(self, source: int, sink: int, lines: bool, frame_bytes_max: int, answer_bytes_max: int) -> None:
        self.input: BinaryIO = os.fdopen(source, "rb", 1 << 16, closefd=False)
        self.sink = sink
        self.frame_bytes_max = frame_bytes_max
        self.answer_bytes_max = answer_bytes_max
        self.read = self._read_line if lines else self._read_length
        self.lines = lines
        self.closed = False
        self.owed = 0  # answers that LATER has promised
        self.lock = threading.Lock()  # whoever writes has it, and the fields above change under it
        self.settled = threading.Condition(self.lock)

    def run(self, handle: Callable[[Message], Union[Answer, Later]], envelope: bool, turn: threading.Lock) -> None:
        """Handles what comes until the end, and gives answers that are owed then a little time."""
        read = self.read
        try:
            while True:
                frame = read()
                if frame is None:
                    break
                message = Message(self)
                if not envelope:
                    message.raw = frame
                elif not self._open(message, frame, turn):
                    continue
                with turn:
                    answer = self._call(handle, message)
                if answer is not None:
                    try:
                        self.write(answer, message)
                    except RuntimeError:  # another thread has answered meanwhile: LATER should have been returned
                        traceback.print_exc()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server is gone, and so should we
        with self.settled:
            self.settled.wait_for(lambda: not self.owed, END_SECONDS)

    def _call(self, handle: Callable[[Message], Union[Answer, Later]], message: Message) -> Optional[bytes]:
        """What to write after a call of the handler's function: nothing if the message is answered elsewhere."""
        try:
            answer = handle(message)
            if isinstance(answer, Later):
                if message.message_id is None:
                    raise TypeError("LATER needs an envelope: without one, answers are told apart by their order alone")
                with self.lock:
                    message._awaited = not message._answered
                    self.owed += message._awaited
                return None
            if message._answered:
                if answer is not None:
                    raise TypeError(f"the message was answered already, {answer!r} comes too late; return None or LATER")
                return None
            return self._bounded(_answer_body(answer, message.message_id))
        except Refusal as refusal:
            answer = refusal
        except Exception:  # it should cost one message, not the process
            traceback.print_exc()
            answer = Refusal("internal", "the handler has made a mistake; its log says which")
        if message._answered:
            return None
        try:
            return self._bounded(_answer_body(answer, message.message_id))
        except Exception:  # what the refusal explains is no JSON
            traceback.print_exc()
            return _answer_body(Refusal("internal", None), message.message_id)

    def _open(self, message: Message, frame: bytes, turn: threading.Lock) -> bool:
        """Reads an envelope into the message. False if it is none to be answered."""
        try:
            envelope = _decode(frame.decode())
            header = envelope["header"]
            if "messageId" in header:
                message._open(frame, envelope)
                return True
            kind = header.get("messageType")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            # What came may be a user's data, which does not belong into a log.
            _wrong_configuration(
                f"expected a message in an envelope, got something else ({error!r}); "
                'does this handler have "envelope": true, and the right "framing", in the configuration?'
            )
        payload = envelope.get("payload")
        if kind == "statusReport" and isinstance(payload, dict):
            then = _outcomes.pop(payload.get("id"), None)
            if then is not None:
                with turn:
                    try:
                        then(_outcome(payload.get("data"), header))
                    except Exception:
                        traceback.print_exc()
            return False
        print(f"ignored a frame with the messageType {kind!r}, which is not known here", file=sys.stderr)
        return False

    def _read_length(self) -> Optional[bytes]:
        prefix = self.input.read(4)
        if len(prefix) < 4:
            return None
        (size,) = _LENGTH.unpack(prefix)
        if size > self.frame_bytes_max:
            self._too_long(f"of {size} bytes, from {prefix!r},")
        frame = self.input.read(size)
        return frame if len(frame) == size else None

    def _read_line(self) -> Optional[bytes]:
        line = self.input.readline(self.frame_bytes_max + 1)
        if line.endswith(b"\n"):
            return line[:-1]
        if len(line) > self.frame_bytes_max:
            self._too_long("without an end")
        return None

    def _too_long(self, what: str) -> NoReturn:
        sys.exit(
            f"a frame {what} cannot be one of the server's: at most {self.frame_bytes_max} bytes are taken; "
            'is the "framing" in the configuration the one that the handler uses?'
        )

    def _bounded(self, body: bytes) -> bytes:
        if len(body) > self.answer_bytes_max:
            raise ValueError(f"an answer of {len(body)} bytes is too long, serve(..., answer_bytes_max) is {self.answer_bytes_max}")
        return body

    def write_and(self, then: Optional[Callable[[Outcome], None]], body: bytes, message: Optional[Message] = None) -> None:
        """Writes a frame, and has `then` called with what becomes of it."""
        if then is None:
            return self.write(self._bounded(body), message)
        start = b'{"header":{'
        identity = _await_outcome(then)
        try:
            self.write(self._bounded(start + b'"id":' + _encode(identity) + b"," + body[len(start) :]), message)
        except BaseException:
            _outcomes.pop(identity, None)
            raise

    def write(self, body: bytes, message: Optional[Message] = None) -> None:
        """Writes a frame: the answer to `message`, of which there may be only one, or a push."""
        frame = body.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" if self.lines else _LENGTH.pack(len(body)) + body
        with self.lock:
            if message is not None:
                if message._answered:
                    raise RuntimeError("this message was answered already")
                message._answered = True
                if message._awaited:
                    self.owed -= 1
                    self.settled.notify_all()
            if self.closed:
                raise BrokenPipeError("the server has closed this handler's channel")
            size, done = len(frame), os.write(self.sink, frame)
            while done < size:
                done += os.write(self.sink, memoryview(frame)[done:])

    def close(self) -> None:
        """From now on nobody writes; the descriptor may be used for something else."""
        with self.lock:
            self.closed = True


class _Listener:
    """The UNIX socket that we listen on, and a thread for each connection: the server opens one for each message, or one for all."""

    def __init__(
        self, path: str, handle: Callable[[Message], Union[Answer, Later]], envelope: bool, open_stream: Callable[[int, int], _Stream]
    ) -> None:
        self.path, self.handle, self.envelope, self.open_stream = path, handle, envelope, open_stream
        self.turn = threading.Lock()  # whoever calls the handler's function has it
        self.places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self.lock = threading.Lock()
        self.open: Dict[socket.socket, threading.Thread] = {}
        self.stopping = False
        self.failure: Optional[BaseException] = None
        self.listener = socket.socket(socket.AF_UNIX)
        _remove_stale(path)
        self.listener.bind(path)
        self.listener.listen(socket.SOMAXCONN)
        _on_sigterm(self.stop)

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        try:
            os.unlink(self.path)
        except OSError:
            pass  # somebody else has done it

    def stop(self) -> None:
        self.stopping = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # accept() returns
        except OSError:
            pass  # the second time

    def run(self) -> None:
        """Accepts until it is to stop; what is under way then is answered."""
        while not self.stopping:
            self.places.acquire()
            try:
                connection, _ = self.listener.accept()
            except OSError:
                if self.stopping:
                    break
                raise
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
            with self.lock:
                self.open[connection] = thread
            thread.start()
        with self.lock:
            threads = list(self.open.values())
            for connection in self.open:
                try:
                    connection.shutdown(socket.SHUT_RD)  # whoever waits there for another message sees the end
                except OSError:
                    pass  # the server has closed it
        end = time.monotonic() + END_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        if self.failure is not None:
            raise self.failure

    def _converse(self, connection: socket.socket) -> None:
        try:
            stream = self.open_stream(connection.fileno(), connection.fileno())
            try:
                stream.run(self.handle, self.envelope, self.turn)
            finally:
                stream.close()
        except BaseException as failure:  # SystemExit above all, which would end only this thread
            self.failure = failure
            self.stop()
        finally:
            with self.lock:
                del self.open[connection]
                connection.close()
            self.places.release()


class _Line:
    """A connection to the informer."""

    def __init__(self, path: str, timeout: float) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(path)
        except OSError as error:
            self.socket.close()
            raise ConnectionError(f"cannot reach the server's informer at {path}: {error}") from error
        self.input = self.socket.makefile("rb")

    def ask(self, kind: str, data: Optional[bytes] = None) -> Any:
        question = b'{"command":{"type":' + _encode(kind) + (b"" if data is None else b',"data":' + data) + b"}}"
        self.socket.sendall(_LENGTH.pack(len(question)) + question)
        answer = self.read()
        if answer.get("status") != "0":
            raise InformerError(answer.get("message") or f"the informer answered {kind} with {answer!r}")
        return answer.get("data")

    def read(self) -> Dict[str, Any]:
        prefix = self.input.read(4)
        (size,) = _LENGTH.unpack(prefix) if len(prefix) == 4 else (0,)
        if size > FRAME_BYTES_MAX:
            raise ConnectionError(f"the informer began a frame of {size} bytes, which cannot be meant")
        frame = self.input.read(size)
        if len(prefix) < 4 or len(frame) < size:
            raise ConnectionResetError("the server has closed the informer's connection")
        value = _decode(frame.decode())
        if not isinstance(value, dict):
            raise ConnectionError(f"the informer answered {frame[:64]!r}, which is no object")
        return value

    def close(self) -> None:
        self.input.close()
        self.socket.close()


class _Pushes:
    """Where push() goes."""

    stream: Optional[_Stream] = None


_LENGTH = struct.Struct("<I")
_pushes = _Pushes()
_ended = threading.Event()  # serve() has come to its end
_outcomes: Dict[object, Callable[[Outcome], None]] = {}
_outcomes_lock = threading.Lock()
_outcomes_asked = 0

_compact = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _whole_number(digits: str) -> Union[int, float]:
    return int(digits) if len(digits) <= DIGITS_MAX else float(digits)


_loads = json.JSONDecoder().decode
_loads_long = json.JSONDecoder(parse_int=_whole_number).decode
_scan = json.JSONDecoder(parse_int=float).raw_decode  # for where a value ends, not for what it is


def _encode(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    try:
        return _compact(data).encode()
    except UnicodeEncodeError:  # half a surrogate pair: JSON can write it, UTF-8 cannot
        return _ascii(data).encode()


def _decode(text: str) -> Any:
    if not hasattr(sys, "get_int_max_str_digits"):  # a Python that would try, and take minutes for a million digits
        return _loads_long(text)
    try:
        return _loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a whole number with more digits than int() takes
        return _loads_long(text)


def _cut(text: str, *path: str) -> str:
    """The JSON text of the value at `path` in that of an object."""

    def space(at: int) -> int:
        while text[at] in " \t\r\n":
            at += 1
        return at

    start = end = space(0)
    for name in path:
        at = start + 1
        while True:
            key, at = _scan(text, space(at))
            start = space(space(at) + 1)  # behind the colon
            _, end = _scan(text, start)
            if key == name:
                break
            at = space(end) + 1  # behind the comma
    return text[start:end]


def _names(names: Union[str, Iterable[str]]) -> List[str]:
    return [names] if isinstance(names, str) else list(names)


def _offline(offline: Optional[str]) -> bytes:
    if offline is None:
        return b""
    if offline not in ("drop", "queue"):
        raise ValueError(f'offline is "drop" or "queue", not {offline!r}')
    return b',"offline":' + _encode(offline)


def _answer_body(answer: Answer, message_id: Optional[str]) -> bytes:
    """The JSON text of an answer, or of a push if it belongs to no message."""
    about = b"" if message_id is None else b',"inReplyTo":' + _encode(message_id)
    if isinstance(answer, (list, tuple)) and len(answer) == 1:
        answer = answer[0]
    if answer is None:
        answer = nothing()
    if isinstance(answer, Command):
        payload = b"" if answer.data is None else b',"payload":{"data":' + answer.data + b"}"
        return b'{"header":{"status":"0"' + about + b"," + answer.order + b"}" + payload + b"}"
    if isinstance(answer, Refusal):
        payload = b"" if answer.data is None else b',"payload":{"data":' + _encode(answer.data) + b"}"
        return b'{"header":{"status":' + _encode(answer.status) + about + b"}" + payload + b"}"
    if not isinstance(answer, (list, tuple)) or not all(isinstance(each, Command) for each in answer):
        raise TypeError(f"{answer!r} is no answer; it is made with reply(), send(), hand_on(), nothing(), refuse(), or a list of those")
    commands = b",".join(
        b"{" + each.order + (b"" if each.data is None else b',"payload":{"data":' + each.data + b"}") + b"}" for each in answer
    )
    return b'{"header":{"status":"0"' + about + b',"commands":[' + commands + b"]}}"


def _await_outcome(then: Callable[[Outcome], None]) -> str:
    """The header.id under which `then` waits for its outcome."""
    global _outcomes_asked
    with _outcomes_lock:
        if len(_outcomes) >= OUTCOMES_MAX:
            raise RuntimeError(f"{OUTCOMES_MAX} outcomes are awaited already")
        _outcomes_asked += 1
        identity = str(_outcomes_asked)
        _outcomes[identity] = then
    return identity


def _outcome(data: object, header: Dict[str, Any]) -> Outcome:
    """What a report, or the informer, says about a push."""
    told = data if isinstance(data, dict) else {}
    names = told.get("names", {})
    offline, unknown, refused = (list(names.get(group, [])) for group in ("offline", "unknown", "refused"))
    reason = None if header.get("status", "good") == "good" else header.get("reason", "unknown")
    return Outcome(reason, told.get("message"), told.get("delivered", 0), told.get("queued", 0), offline, unknown, refused)


def _keep_channel(transport: str) -> Tuple[int, int]:
    """Descriptors for frames alone. Who prints, here or in a program that we start, prints to the log; who reads gets nothing."""
    if transport == "socket":
        try:
            is_socket = stat.S_ISSOCK(os.fstat(3).st_mode)
        except OSError:
            is_socket = False
        if not is_socket:
            _wrong_configuration('descriptor 3 is no socket; this handler needs "transport": "socket" in the configuration')
        os.set_inheritable(3, False)
        source = sink = 3
    elif transport == "stdio":
        source, sink = os.dup(0), os.dup(1)
    else:
        source = sink = -1
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout.flush()  # what was printed so far, if that is waiting still
    sys.stdout = sys.stderr
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(line_buffering=True)  # which it is by itself from Python 3.9 on
    return source, sink


def _wrong_configuration(what: str) -> NoReturn:
    print(what, file=sys.stderr, flush=True)
    sys.exit(DO_NOT_RESTART)


def _start_background(functions: Union[None, Callable[[], object], Sequence[Callable[[], object]]]) -> None:
    for work in (functions,) if callable(functions) else functions or ():
        _start_thread(work)


def _start_thread(work: Callable[[], object]) -> None:
    def run() -> None:
        try:
            work()
        except BaseException:
            # A server that stops closes one thing after the other. If this was about one of them, the main thread is at
            # its end very soon.
            if not _ended.wait(GRACE_SECONDS):
                traceback.print_exc()
                os._exit(1)

    threading.Thread(target=run, daemon=True).start()


def _on_sigterm(stop: Callable[[], object]) -> None:
    """SIGTERM stops us in good order, unless the program has its own ideas about it."""

    def stopped(_signal: int, _frame: Optional[FrameType]) -> None:
        stop()

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stopped)


def _remove_stale(path: str) -> None:
    """Removes a socket that nobody listens at any more, and nothing else."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        except OSError:
            pass  # there is none, or bind() will say what is there
        else:
            sys.exit(f"{path} is in use: another handler listens there")
