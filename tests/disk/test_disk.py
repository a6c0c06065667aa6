#!/usr/bin/env python3
"""Tests of the layer in disk.c and of cut.c: what a power cut leaves of a database, and how it fails when told to.

They run with Python's own SQLite; each database is written by a process of its own, under the layer, which is killed.
"""
from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Adds numbers to a table, and says each when its commit has returned.
WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA journal_mode={sys.argv[3]}")
connection.execute(f"PRAGMA synchronous={sys.argv[2]}")
connection.execute(f"PRAGMA wal_autocheckpoint={sys.argv[6]}")
connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, pad TEXT)")
print("ready", flush=True)
for n in range(int(sys.argv[4]), int(sys.argv[5])):
    connection.execute("INSERT INTO t VALUES (?, ?)", (n, str(n) * 300))
    print(n, flush=True)
sys.stdin.read()
"""


class Disk:
    """A directory with a database, the layer under whoever uses it, and what is on the disk."""

    def __init__(self, directory: str):
        self.home = Path(directory).resolve()
        self.state, self.durable, self.control = self.home / "state", self.home / "durable", self.home / "control"
        self.state.mkdir()
        self.durable.mkdir()
        self.database = self.state / "a.db"

    def run(self, program: str, *arguments: object) -> subprocess.Popen:
        environment = {
            **os.environ,
            "LD_PRELOAD": str(LAYER),
            "BESTER_DISK": str(self.state),
            "BESTER_DISK_IMAGE": str(self.durable),
            "BESTER_DISK_CONTROL": str(self.control),
        }
        words = [sys.executable, "-c", program, *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, env=environment, cwd=self.home, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def killed(self, synchronous: str, first: int, end: int, mode: str = "WAL", checkpoint: int = 6) -> list[int]:
        """Which numbers were committed by a writer that was killed after the last."""
        process = self.run(WRITER, self.database, synchronous, mode, first, end, checkpoint)
        told = []
        for line in process.stdout:
            told.append(line.strip())
            if told[-1] == str(end - 1):
                break
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        if not told or told[-1] != str(end - 1):
            raise AssertionError(f"the writer ended early: {told[-1:]} {errors}")
        return [int(word) for word in told[1:]]

    def cut(self, seed: int, percent: int) -> str:
        return subprocess.run(
            [CUT, self.state, self.durable, str(seed), str(percent)], check=True, text=True, stdout=subprocess.PIPE
        ).stdout

    def told(self) -> list[str]:
        path = Path(f"{self.control}.told")
        return path.read_text().splitlines() if path.exists() else []

    def order(self, words: str) -> None:
        fresh = self.home / "control.fresh"
        fresh.write_text(words + "\n")
        fresh.rename(self.control)

    def numbers(self) -> list[int]:
        """What is in a copy of the database: whoever opens it changes it, and here without the layer."""
        with tempfile.TemporaryDirectory() as directory:
            for path in self.state.iterdir():
                shutil.copy(path, directory)
            with contextlib.closing(sqlite3.connect(Path(directory) / "a.db")) as connection:
                [(found,)] = connection.execute("PRAGMA integrity_check").fetchall()
                if found != "ok":
                    raise AssertionError(found)
                return [n for n, in connection.execute("SELECT n FROM t ORDER BY n")]


class DiskTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.disk = Disk(directory.name)

    def test_what_was_synced_outlives_every_power_cut(self):
        last = 0
        for seed in range(12):
            told = self.disk.killed("FULL", last, last + random.Random(seed).randrange(1, 60))
            self.disk.cut(seed, [0, 50, 10, 90][seed % 4])
            last = told[-1] + 1
            self.assertEqual(self.disk.numbers(), list(range(last)), f"seed {seed}")

    def test_with_a_rollback_journal_too(self):
        last = 0
        for seed in range(8):
            told = self.disk.killed("EXTRA", last, last + 15, "DELETE")
            self.disk.cut(seed, [0, 50][seed % 2])
            last = told[-1] + 1
            self.assertEqual(self.disk.numbers(), list(range(last)), f"seed {seed}")

    def test_without_syncs_a_power_cut_loses_commits(self):
        self.disk.killed("FULL", 0, 1)
        told = self.disk.killed("OFF", 1, 10, checkpoint=1000)
        self.disk.cut(1, 0)
        self.assertLess(len(self.disk.numbers()), 1 + len(told))

    def test_when_the_log_alone_is_not_synced_too(self):
        self.disk.killed("FULL", 0, 1)
        told = self.disk.killed("NORMAL", 1, 4, checkpoint=1000)
        self.disk.cut(1, 0)
        self.assertLess(len(self.disk.numbers()), 1 + len(told))

    def test_without_a_power_cut_nothing_is_lost(self):
        told = self.disk.killed("OFF", 0, 100)
        self.assertEqual(self.disk.numbers(), told)

    def test_a_cut_that_loses_nothing_leaves_all(self):
        self.disk.killed("FULL", 0, 5)
        told = self.disk.killed("OFF", 5, 100)
        self.disk.cut(1, 100)
        self.assertEqual(self.disk.numbers(), list(range(5)) + told)

    def test_what_was_written_before_a_kill_is_saved_by_a_later_sync(self):
        self.disk.killed("FULL", 0, 5)
        self.disk.killed("NORMAL", 5, 9, checkpoint=1000)
        self.disk.killed("FULL", 9, 10)
        self.disk.cut(1, 0)
        self.assertEqual(self.disk.numbers(), list(range(10)))

    def test_a_file_is_there_for_certain_when_its_directory_was_synced(self):
        program = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(fd, b"a")
os.fsync(fd)
if sys.argv[2] == "synced":
    os.fsync(os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY))
os.unlink(sys.argv[1]) if sys.argv[3] == "removed" else None
"""
        cases = [("unsynced", "there", None), ("synced", "there", b"a"), ("synced", "removed", b"a"), ("unsynced", "removed", None)]
        for synced, removed, left in cases:
            with self.subTest((synced, removed)), tempfile.TemporaryDirectory() as directory:
                disk = Disk(directory)
                _, errors = disk.run(program, disk.database, synced, removed).communicate("")
                self.assertEqual(errors, "")
                disk.cut(1, 0)
                self.assertEqual(disk.database.read_bytes() if disk.database.exists() else None, left)

    def test_a_seed_means_the_same_again(self):
        self.disk.killed("FULL", 0, 5)
        self.disk.killed("OFF", 5, 60)
        subprocess.run(["cp", "-a", self.disk.state, self.disk.home / "state2"], check=True)
        subprocess.run(["cp", "-a", self.disk.durable, self.disk.home / "durable2"], check=True)
        first = self.disk.cut(7, 50)
        texts = {path.name: path.read_bytes() for path in self.disk.state.iterdir()}
        for name in ["state", "durable"]:
            subprocess.run(["rm", "-r", self.disk.home / name], check=True)
            (self.disk.home / f"{name}2").rename(self.disk.home / name)
        self.assertEqual(self.disk.cut(7, 50), first)
        self.assertEqual({path.name: path.read_bytes() for path in self.disk.state.iterdir()}, texts)
        self.assertRegex(first, r"a.db-wal: [1-9]\d* of \d+ unsynced")

    def test_every_order_of_failing_is_carried_out(self):
        program = """
import errno, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
place = os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY)
os.fsync(place)
for words in sys.stdin:
    with open("control.fresh", "w") as fresh:
        fresh.write(words)
    os.rename("control.fresh", "control")
    outcomes = []
    for act in [lambda: os.pwrite(fd, b"x" * 1024, 0), lambda: os.write(fd, b"y"), lambda: os.ftruncate(fd, 4096),
                lambda: os.fsync(fd), lambda: os.fdatasync(fd), lambda: os.fsync(place), lambda: os.pwrite(fd, b"x", 0)]:
        try:
            act()
            outcomes.append("-")
        except OSError as error:
            outcomes.append(errno.errorcode[error.errno])
    print(*outcomes, flush=True)
"""
        process = self.disk.run(program, self.disk.database)
        expected = {
            "ok": "- - - - - - -",
            "writes ENOSPC": "ENOSPC ENOSPC ENOSPC - - - ENOSPC",
            "syncs EIO": "- - - EIO EIO EIO -",
            "drops EIO": "- - - EIO EIO EIO -",
            "all EROFS": "EROFS EROFS EROFS EROFS EROFS EROFS EROFS",
            "nth 1 EIO": "EIO - - - - - -",
            "nth 4 EIO": "- - - EIO - - -",
            "from 6 EDQUOT": "- - - - - EDQUOT EDQUOT",
            "nth 8 EIO": "- - - - - - -",
        }
        output, errors = process.communicate("".join(f"{words}\n" for words in expected))
        self.assertEqual(dict(zip(expected, output.splitlines())), expected, errors)
        failed = [word for outcomes in expected.values() for word in outcomes.split() if word != "-"]
        self.assertEqual([line.split(None, 2)[2] for line in self.disk.told()], [os.strerror(getattr(errno, word)) for word in failed])
        self.assertIn(f"sync . {os.strerror(errno.EIO)}", self.disk.told())

    def test_a_failed_sync_saves_nothing_and_the_next_one_does_not_make_up_for_it(self):
        program = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
place = os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY)
os.write(fd, b"a" * 512)
os.fsync(fd)
os.fsync(place)
os.write(fd, b"b" * 512)
with open("control", "w") as control:
    control.write(sys.argv[2] + " EIO")
try:
    os.fsync(fd)
    sys.exit("no error")
except OSError:
    pass
print(os.pread(fd, 1024, 0).decode(), flush=True)
os.unlink("control")
os.write(fd, b"c" * 512)
os.fsync(fd)
"""
        for order, seen in {"syncs": b"a" * 512 + b"b" * 512, "drops": b"a" * 512}.items():
            with self.subTest(order), tempfile.TemporaryDirectory() as directory:
                disk = Disk(directory)
                output, errors = disk.run(program, disk.database, order).communicate("")
                self.assertEqual((output.strip().encode(), errors), (seen, ""))
                disk.cut(1, 0)
                self.assertEqual(disk.database.read_bytes(), b"a" * 512 + bytes(512) + b"c" * 512)

    def test_a_database_is_whole_after_whatever_fails(self):
        program = WRITER.replace("for n in", "failed = 0\nfor n in").replace(
            """    connection.execute("INSERT INTO t VALUES (?, ?)", (n, str(n) * 300))
    print(n, flush=True)
""",
            """    try:
        connection.execute("INSERT INTO t VALUES (?, ?)", (n, str(n) * 300))
        print(n, flush=True)
    except sqlite3.Error as error:
        break
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
""",
        )
        for error in ["EIO", "ENOSPC"]:
            for n in range(1, 400):
                with tempfile.TemporaryDirectory() as directory:
                    disk = Disk(directory)
                    disk.killed("FULL", 0, 2)
                    disk.order(f"nth {n} {error}")
                    output, _ = disk.run(program, disk.database, "FULL", "WAL", 2, 10, 6).communicate("")
                    told = [int(word) for word in output.split() if word != "ready"]
                    disk.cut(n, n % 3 * 50)
                    found = disk.numbers()
                    self.assertEqual(found[: 2 + len(told)], [0, 1, *told], f"{n} {error}")
                    self.assertLessEqual(len(found), 3 + len(told))
                    if not disk.told():
                        break
            else:
                self.fail("there is no end to it")
            self.assertGreater(n, 25)


def build(directory: str) -> None:
    global LAYER, CUT
    LAYER, CUT = Path(directory) / "disk.so", Path(directory) / "disk-cut"
    strict = ["-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", "-shared", "-fPIC", *strict, "-o", LAYER, HERE / "disk.c", "-ldl", "-lpthread"], check=True)
    subprocess.run(["cc", *strict, "-o", CUT, HERE / "cut.c"], check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as built:
        build(built)
        unittest.main()
