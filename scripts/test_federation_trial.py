"""What scripts/federation-trial relies on: its network, and its book."""

import socket
import threading
import time
import unittest

from fault_proxy import BACK, THERE, Proxy
from federation_trial import Book

PATIENCE = 20


class Echo:
    """Sends back what it gets, on each connection, to its end."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.echo, args=(connection,), daemon=True).start()

    def echo(self, connection):
        try:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
        except OSError:
            pass  # however it ends
        connection.close()

    def close(self):
        self.listener.shutdown(socket.SHUT_RD)
        self.listener.close()


class ProxyTest(unittest.TestCase):
    def setUp(self):
        self.echo, self.proxy = Echo(), Proxy()
        self.addCleanup(self.echo.close)
        self.addCleanup(self.proxy.close)
        self.proxy.lead_to(self.echo.address)

    def connect(self):
        connection = socket.create_connection(self.proxy.address, timeout=PATIENCE)
        self.addCleanup(connection.close)
        return connection

    def read(self, connection, size):
        data = b""
        while len(data) < size and (more := connection.recv(size - len(data))):
            data += more
        return data

    def assert_echoes(self, connection, data=b"well"):
        connection.sendall(data)
        self.assertEqual(self.read(connection, len(data)), data)

    def assert_silent(self, connection):
        connection.settimeout(0.05)
        with self.assertRaises(TimeoutError):
            connection.recv(1)
        connection.settimeout(PATIENCE)

    def wait_until(self, true):
        with self.proxy.changed:
            end = time.monotonic() + PATIENCE
            while not true():
                self.assertLess(time.monotonic(), end)
                self.proxy.changed.wait(0.01)

    def test_everything_passes_to_the_end(self):
        data = bytes(range(251)) * 4_000
        connection = self.connect()
        sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
        sender.start()
        self.assertEqual(self.read(connection, len(data) + 1), data)
        sender.join()
        self.wait_until(lambda: not self.proxy.links)

    def test_without_a_target_connections_are_reset(self):
        self.proxy.lead_to(None)
        with self.assertRaises(ConnectionResetError):
            self.connect().recv(1)

    def test_delay_and_throttle(self):
        connection = self.connect()
        for way in (THERE, BACK):
            self.proxy.delay(way, 0.15)
            began = time.monotonic()
            self.assert_echoes(connection)
            self.assertGreaterEqual(time.monotonic() - began, 0.15)
            self.proxy.heal()
            self.proxy.throttle(way, 100_000)
            began = time.monotonic()
            self.assert_echoes(self.connect(), b"x" * 20_000)
            self.assertGreaterEqual(time.monotonic() - began, 0.19)
            self.proxy.heal()

    def test_what_is_held_comes_when_it_heals(self):
        connection = self.connect()
        for way in (THERE, BACK):
            self.proxy.hold(way)
            connection.sendall(b"held")
            self.assert_silent(connection)
            self.proxy.heal()
            self.assertEqual(self.read(connection, 4), b"held")

    def test_what_is_swallowed_comes_nowhere_and_what_is_torn_is_reset(self):
        for way in (THERE, BACK):
            torn, whole = self.connect(), self.connect()
            for connection in (torn, whole):
                self.assert_echoes(connection)
            before = self.proxy.totals["swallowed"]
            self.proxy.swallow(way)
            torn.sendall(b"lost")
            self.wait_until(lambda: self.proxy.totals["swallowed"] == before + 4)
            self.assert_silent(torn)
            self.proxy.heal()
            with self.assertRaises(ConnectionResetError):
                torn.recv(1)
            self.assert_echoes(whole)

    def test_cut_and_reset(self):
        connection = self.connect()
        self.assert_echoes(connection)
        self.proxy.cut()
        self.assertEqual(connection.recv(1), b"")
        connection = self.connect()
        self.assert_echoes(connection)
        self.proxy.reset()
        with self.assertRaises(ConnectionResetError):
            connection.recv(1)
        self.wait_until(lambda: not self.proxy.links)

    def test_doors(self):
        before = self.connect()
        self.assert_echoes(before)
        self.proxy.meet("refused")
        with self.assertRaises(ConnectionRefusedError):
            self.connect()
        self.assert_echoes(before)
        self.proxy.meet("reset")
        with self.assertRaises(ConnectionResetError):
            self.connect().recv(1)
        self.proxy.meet("ignored")
        two = [self.connect(), self.connect()]
        for connection in two:
            connection.sendall(b"hello")
            self.assert_silent(connection)
        self.proxy.heal()
        for connection in two:
            self.assertEqual(self.read(connection, 5), b"hello")


class BookTest(unittest.TestCase):
    def setUp(self):
        self.book = Book()
        for number in range(3):
            self.book.sent(f"m{number}", "s0@a.example", number, "r0@b.example", b"")

    def kinds(self):
        return [kind for kind, _ in self.book.wrong]

    def test_what_is_good_and_came_once_is_right(self):
        for number in range(2):
            self.book.reported(f"m{number}", "good", None)
            self.book.received("r0@b.example", f"m{number}", number + 1, f"a.example/1-{number}")
        self.book.received("r0@b.example", "m1", 2, "a.example/1-1")  # again, with the same number
        self.book.reported("m2", "bad", "peerRefused")
        self.book.judge()
        self.assertEqual((self.kinds(), self.book.totals["again"]), ([], 1))
        self.assertEqual((self.book.missing(), self.book.unresolved("s0@a.example")), ([], []))

    def test_what_is_wrong_is_found(self):
        self.book.reported("m0", "good", None)
        self.book.judge()
        self.assertEqual(self.kinds(), ["lost", "no report", "no report"])
        for kind, arguments in [
            ("ghosts", ("r0@b.example", "m9", 1, "a.example/1-9")),
            ("misled", ("r1@b.example", "m0", 1, "a.example/1-0")),
        ]:
            self.book.wrong.clear()
            self.book.received(*arguments)
            self.assertEqual(self.kinds(), [kind])
        self.book.wrong.clear()
        self.book.received("r0@b.example", "m1", 2, "a.example/1-1")
        self.book.received("r0@b.example", "m1", 3, "a.example/1-1")
        self.assertEqual(self.kinds(), ["doubled"])
        self.book.wrong.clear()
        self.book.received("r0@b.example", "m2", 2, "a.example/1-2")
        self.assertEqual(self.kinds(), ["seq"])
        self.book.wrong.clear()
        self.book.received("r0@b.example", "m2", 4, "a.example/1-2")
        self.book.reported("m2", "bad", "peerRefused")
        self.book.judge()
        self.assertEqual(self.kinds(), ["lost", "no report", "ghosts"])

    def test_what_has_no_report_is_to_be_sent_again(self):
        self.book.reported("m1", "good", None)
        self.assertEqual([message.id for message in self.book.unresolved("s0@a.example")], ["m0", "m2"])
        self.assertEqual(self.book.missing(), ["m1"])


if __name__ == "__main__":
    unittest.main()
