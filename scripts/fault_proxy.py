"""A network between two ends that can be as bad as networks are, for scripts/federation-trial. On this machine alone.

A thread accepts, and each connection has two, one for each way.
"""
from __future__ import annotations

import collections
import socket
import struct
import threading
import time

THERE, BACK = 0, 1
CHUNK_BYTES = 16 << 10
# A throttled way moves so many chunks in a second, so that it flows.
CHUNKS_PER_SECOND = 50
# So often a write that is stuck looks whether its connection is to end.
LOOK_SECONDS = 0.02
RESET = struct.pack("ii", 1, 0)  # what was not sent is thrown away when the socket is closed, and the other end is told


class Manner:
    """What happens to bytes on one way."""

    def __init__(self):
        self.delay = 0.0  # seconds, at least; a chunk that comes while another waits may take twice as long
        self.held = False
        self.swallowed = False
        self.bytes_per_second = None


class Link:
    """A connection: of who has connected, and to the target."""

    def __init__(self, client, target):
        self.ends = (client, target)
        self.open = 2  # ways that have not ended
        self.torn = False  # bytes are missing in it, so that nothing good can come of it any more
        self.over = False  # whoever works on it lets go of it


class Proxy:
    """The network, on a port of its own that never changes. Connections are reset until there is a target."""

    listen = ("127.0.0.1", 0)  # where whoever is behind it listens
    prefix = ()  # and in front of which words it is started

    def __init__(self):
        # A port that the system has chosen is given away while nobody listens; one that was asked for is not. So another
        # socket is given one, and this one asks for the same.
        with socket.socket() as chosen:
            chosen.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            chosen.bind(("127.0.0.1", 0))
            self.address = chosen.getsockname()
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(self.address)
            self.listener.listen(128)
        self.target = None
        self.door = "open"  # or "reset", "ignored", "refused"
        self.ways = (Manner(), Manner())
        self.links = set()
        self.ended = False
        self.totals = collections.Counter()
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def lead_to(self, target):
        """Where connections lead from now on; None: nowhere."""
        with self.changed:
            self.target = target

    def delay(self, way, seconds):
        self._set(way, "delay", seconds)

    def hold(self, way):
        """Bytes wait until the network heals: as when packets get lost and are sent again."""
        self._set(way, "held", True)

    def throttle(self, way, bytes_per_second):
        self._set(way, "bytes_per_second", max(bytes_per_second, CHUNKS_PER_SECOND))

    def swallow(self, way):
        """Bytes are taken and come nowhere. A connection that has lost some is reset when the network heals."""
        self._set(way, "swallowed", True)

    def cut(self):
        """Ends all connections, as a program does. Others may follow."""
        with self.changed:
            self._end(False, lambda link: True)

    def reset(self):
        """Ends all connections, as a machine does that knows nothing of them. Others may follow."""
        with self.changed:
            self._end(True, lambda link: True)

    def meet(self, door):
        """What meets somebody who connects: "open", "reset" at once, "ignored" until the network heals, or "refused"."""
        with self.changed:
            before, self.door = self.door, door
            if door == "refused" != before:
                self._listen_no_more()
            if before == "refused" != door:
                self.listener.listen(128)
            self.changed.notify_all()

    def heal(self):
        """From now on all is well."""
        with self.changed:
            self.ways = (Manner(), Manner())
            self._end(True, lambda link: link.torn)
        self.meet("open")

    def close(self):
        with self.changed:
            self.ended = True
            self._end(False, lambda link: True)
            self._listen_no_more()
        self.thread.join()
        self.listener.close()

    def _set(self, way, key, value):
        with self.changed:
            setattr(self.ways[way], key, value)
            self.changed.notify_all()

    def _listen_no_more(self):
        try:
            self.listener.shutdown(socket.SHUT_RD)  # accept() returns; the port stays ours
        except OSError:
            pass  # it has been done

    def _end(self, reset, which):
        for link in [link for link in self.links if which(link)]:
            link.over = True
            for end in link.ends:
                try:
                    if reset:
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    # Of a reset nothing must be sent before; whoever reads comes back all the same.
                    end.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
                except OSError:
                    pass  # it has ended by itself
        self.changed.notify_all()

    def _accept(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.ended or self.door not in ("ignored", "refused"))
                if self.ended:
                    return
            try:
                client, _ = self.listener.accept()
            except OSError:
                continue  # it was shut: the door says what to do
            with self.changed:
                # While it was waited for, the door may have become another.
                self.changed.wait_for(lambda: self.ended or self.door != "ignored")
                self.totals["connections"] += 1
                target = self.target if self.door == "open" and not self.ended else None
            self._begin(client, target)

    def _begin(self, client, address):
        try:
            if address is None:
                raise ConnectionRefusedError
            target = socket.create_connection(address, timeout=5)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return
        link = Link(client, target)
        for end in link.ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(LOOK_SECONDS)
        with self.changed:
            self.links.add(link)
        for way in (THERE, BACK):
            threading.Thread(target=self._run, args=(link, way), daemon=True).start()

    def _run(self, link, way):
        source, sink = link.ends if way == THERE else link.ends[::-1]
        try:
            ended_well = self._carry(link, way, source, sink)
        except OSError:
            ended_well = False
        with self.changed:
            if ended_well and not link.over:
                try:
                    sink.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it has ended by itself
            elif not link.over:  # one end has failed, so the other must hear of it
                self._end(True, lambda other: other is link)
            link.open -= 1
            if not link.open:
                self.links.discard(link)
                for end in link.ends:
                    end.close()

    def _carry(self, link, way, source, sink):
        """Whether the stream has come to its end, and all of it to the other side."""
        while True:
            rate = self.ways[way].bytes_per_second
            size = CHUNK_BYTES if rate is None else min(CHUNK_BYTES, max(1, rate // CHUNKS_PER_SECOND))
            try:
                data = source.recv(size)
            except TimeoutError:
                if link.over:
                    return False
                continue
            began = time.monotonic()
            with self.changed:
                # The end of a stream takes as long as bytes do, and is swallowed like them.
                while not link.over:
                    manner = self.ways[way]
                    width = len(data) / manner.bytes_per_second if manner.bytes_per_second else 0
                    left = began + manner.delay + width - time.monotonic()
                    if manner.swallowed or (left <= 0 and not manner.held):
                        break
                    self.changed.wait(None if manner.held else left)
                if link.over:
                    return False
                if self.ways[way].swallowed:
                    link.torn = True
                    self.totals["swallowed"] += len(data)
                    self.changed.notify_all()
                    if not data:
                        self.changed.wait_for(lambda: link.over)
                        return False
                    continue
            if not data:
                return True
            view = memoryview(data)
            while view:
                try:
                    view = view[sink.send(view) :]
                except TimeoutError:
                    if link.over:
                        return False
