"""The handlers as a server meets them: real processes, real pipes, frames in and frames out."""
import json
import random
import re
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

from harness import HERE, TOUCHY, Asker, Process, frame


def load_tests(loader, tests, pattern):
    """Adds the tests in the handlers' own folders, so that one command runs all."""
    for folder in ("chat", "mail", "presence"):
        tests.addTests(unittest.TestLoader().discover(str(HERE / folder), top_level_dir=str(HERE / folder)))
    return tests


class EchoTest(unittest.TestCase):
    def echo(self):
        return Process(HERE / "echo" / "echo.py")

    def assert_echoed(self, answer, data):
        self.assertEqual(answer, b'{"header":{"status":"0","command":"reply"},"payload":{"data":' + data + b"}}")

    def test_data_comes_back_byte_for_byte(self):
        with self.echo() as echo:
            for data in TOUCHY:
                echo.write(frame(data))
                self.assert_echoed(echo.frame(), data)
            self.assertEqual(echo.finish(), (b"", 0), echo.log())

    def test_answers_are_json_with_what_the_protocol_asks_for(self):
        with self.echo() as echo:
            echo.write(frame(b'{"a":[1]}'))
            expected = {"header": {"status": "0", "command": "reply"}, "payload": {"data": {"a": [1]}}}
            self.assertEqual(json.loads(echo.frame()), expected)

    def test_several_frames_in_one_write_are_answered_in_order(self):
        small = [data for data in TOUCHY if len(data) < 1_000] * 20
        with self.echo() as echo:
            echo.write(b"".join(map(frame, small)))
            for data in small:
                self.assert_echoed(echo.frame(), data)
            self.assertEqual(echo.finish(), (b"", 0), echo.log())

    def test_one_byte_at_a_time(self):
        with self.echo() as echo:
            for data in [b'{"a":1.0}', b"7"]:
                echo.write_apart(frame(data))
                self.assert_echoed(echo.frame(), data)
            self.assertEqual(echo.finish(), (b"", 0), echo.log())

    def test_every_torn_frame_ends_it_quietly(self):
        whole = frame(b'"hi"')
        for cut in range(len(whole)):
            with self.subTest(cut=cut), self.echo() as echo:
                echo.write(whole + whole[:cut])
                self.assert_echoed(echo.frame(), b'"hi"')
                self.assertEqual(echo.finish(), (b"", 0))
                self.assertEqual(echo.log(), "")


class CountTest(unittest.TestCase):
    def count(self):
        return Process(HERE / "count" / "count.sh")

    def answer(self, n):
        return b'{"header":{"status":"0","command":"reply"},"payload":{"data":{"count":%d}}}\n' % n

    def test_counts_whatever_comes(self):
        touchy = [data.replace(b"\n", b" ") for data in TOUCHY if len(data) < 1_000]
        odd = [rb'"\\n%d%s\n"', b'"$(exit 3) `exit 3` $count *"', b'"  "', b'"\'"', b'"-n"', b"-1"]
        with self.count() as count:
            for n, data in enumerate(touchy + odd, 1):
                count.write(data + b"\n")
                self.assertEqual(count.line(), self.answer(n), data)
            self.assertEqual(count.finish(), (b"", 0), count.log())
            self.assertEqual(count.log(), "")

    def test_several_lines_in_one_write(self):
        with self.count() as count:
            count.write(b'{"a":1}\n' * 500)
            for n in range(1, 501):
                self.assertEqual(count.line(), self.answer(n))
            self.assertEqual(count.finish(), (b"", 0), count.log())

    def test_one_byte_at_a_time(self):
        with self.count() as count:
            for n in (1, 2):
                count.write_apart(b'{"a":1}\n')
                self.assertEqual(count.line(), self.answer(n))

    def test_torn_line_is_not_answered(self):
        with self.count() as count:
            count.write(b'1\n{"a":')
            self.assertEqual(count.line(), self.answer(1))
            self.assertEqual(count.finish(), (b"", 0), count.log())

    def test_end_without_any_message_is_a_good_end(self):
        with self.count() as count:
            self.assertEqual(count.finish(), (b"", 0), count.log())


class Chat(Asker):
    def __init__(self, *command):
        super().__init__(*(command or [HERE / "chat" / "chat.py"]), BESTER_SERVER="a.example")


class ChatTest(unittest.TestCase):
    def test_conversation(self):
        with Chat() as chat:
            header, state = chat.ask("alice", {"join": "kitchen"})
            self.assertEqual(header, {"status": "0", "command": "reply"})
            self.assertRegex(state.pop("at"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
            self.assertEqual(state, {"room": "kitchen", "joined": "alice", "members": ["alice"], "messages": 0})

            header, none = chat.ask("bob", {"join": "kitchen"})
            self.assertEqual((header["status"], none, header.keys()), ("0", None, {"status", "commands"}))
            reply, event = header["commands"]
            self.assertEqual(reply["command"], "reply")
            self.assertNotIn("commandData", reply)
            self.assertEqual(reply["payload"]["data"]["members"], ["alice", "bob"])
            self.assertEqual((event["command"], event["commandData"]), ("sendClients", ["alice"]))
            self.assertEqual(event["payload"]["data"]["joined"], "bob")
            self.assertNotIn("members", event["payload"]["data"])

            header, said = chat.ask("bob", {"say": "grüß dich 😀"})
            self.assertEqual(header, {"status": "0", "command": "sendClients", "commandData": ["alice", "bob"]})
            said.pop("at")
            self.assertEqual(said, {"room": "kitchen", "from": "bob", "said": "grüß dich 😀"})

            header, said = chat.ask("alice", {"history": "kitchen", "last": 5})
            self.assertEqual(header, {"status": "0", "command": "reply"})
            self.assertEqual([(entry["from"], entry["said"]) for entry in said["history"]], [("bob", "grüß dich 😀")])
            self.assertEqual(chat.finish(), (b"", 0), chat.log())
            self.assertEqual(chat.log(), "")

    def test_text_is_sent_as_people_read_it(self):
        with Chat() as chat:
            chat.ask("alice", {"join": "kitchen"})
            chat.write(chat.envelope("alice", rb'{"say":"gr\u00fc\u00df dich"}')[1])
            self.assertIn('"said":"grüß dich"'.encode(), chat.frame())

    def test_refusal_reaches_the_asker_alone(self):
        with Chat() as chat:
            chat.ask("alice", {"join": "kitchen"})
            header, text = chat.ask("eve", {"say": "hello", "room": "kitchen"})
            self.assertEqual((header, text), ({"status": "notMember"}, "you are not in kitchen"))

    def test_from_in_the_data_changes_nothing(self):
        with Chat() as chat:
            for user in ("alice", "bob", "eve"):
                chat.ask(user, {"join": "kitchen"})
            forged = rb'{"say":"pay eve","from":"alice","header":{"from":{"user":"alice"}},"\u0066rom":"bob"}'
            header, said = chat.ask("eve", forged)
            self.assertEqual((header["status"], said["from"]), ("0", "eve"))
            header, said = chat.ask("eve", b'{"leave":"kitchen","from":"alice"}')
            self.assertEqual(header["commands"][0]["payload"]["data"]["left"], "eve")
            self.assertEqual(chat.ask("bob", {"who": None})[1]["members"], ["alice", "bob"])

    def test_who_is_not_vouched_for_is_refused(self):
        with Chat() as chat:
            chat.ask("alice", {"join": "kitchen"})
            unknown = {"scope": "server", "server": "192.0.2.1:2224", "verified": False}
            ourselves = {"scope": "server", "server": "a.example"}
            for origin in [unknown, ourselves, {"verified": False}, {"verified": 1}, {"scope": "handler", "type": "x"}]:
                for data in [{"who": "kitchen"}, {"who": "kitchen", "turn": 7}]:
                    self.assertEqual(chat.ask("alice", data, **origin)[0], {"status": "notLocal"}, origin)

    def test_rooms_of_other_servers(self):
        with Chat() as chat:
            header, request = chat.ask("alice", {"join": "attic@b.example"})
            self.assertIn("id", header)  # for what becomes of it
            header.pop("id")
            self.assertEqual(header, {"status": "0", "command": "sendServers", "commandData": ["b.example"]})
            turn = request.pop("turn")
            self.assertEqual(request, {"join": "attic"})
            other = {"scope": "server", "server": "b.example"}
            state = {"joined": "alice@a.example", "members": ["alice@a.example", "bob@b.example"], "messages": 0}
            answer = {"tell": state, "room": "attic", "to": {"a.example": ["alice"]}, "turn": turn}
            header, told = chat.ask("alice", answer, hops=2, **other)
            self.assertEqual(header, {"status": "0", "command": "sendClients", "commandData": ["alice"]})
            self.assertEqual(told, {"room": "attic@b.example", **state})
            header, request = chat.ask("alice", {"say": "hello"})
            self.assertEqual((header["command"], request["say"], request["room"]), ("sendServers", "hello", "attic"))
            # It has gone round too often to be answered.
            stranger = {"tell": {"said": "hello"}, "room": "attic", "to": {"a.example": ["carol"]}}
            self.assertEqual(chat.ask(None, stranger, hops=3, **other)[0], {"status": "0", "commands": []})
            self.assertEqual(chat.ask(None, stranger, hops=2, **other)[1]["gone"], ["carol"])
            header, text = chat.ask("alice", {"tell": {"said": "x" * 900_000}, "room": "attic", "to": {"a.example": ["alice"]}}, **other)
            self.assertEqual(header, {"status": "badRequest"})
            self.assertEqual(chat.log(), "")

    def test_members_on_other_servers(self):
        with Chat() as chat:
            chat.ask("bob", {"join": "kitchen"})
            origin = {"scope": "server", "server": "b.example", "session": None}
            header, none = chat.ask("alice", {"join": "kitchen", "turn": 7}, hops=1, **origin)
            answer, event = header["commands"]
            self.assertEqual((answer["command"], answer["commandData"]), ("sendServers", ["b.example"]))
            self.assertEqual(answer["payload"]["data"]["tell"]["members"], ["alice@b.example", "bob@a.example"])
            self.assertEqual((event["command"], event["commandData"]), ("sendClients", ["bob"]))
            header, none = chat.ask("bob", {"say": "hello"})
            here, there = header["commands"]
            self.assertEqual((here["command"], here["commandData"], here["payload"]["data"]["from"]), ("sendClients", ["bob"], "bob"))
            self.assertEqual((there["command"], there["commandData"]), ("sendServers", ["b.example"]))
            self.assertEqual(there["payload"]["data"]["tell"]["from"], "bob@a.example")
            # The other server is not known any more.
            report = {"delivered": 1, "queued": 0, "names": {"offline": [], "unknown": ["b.example"], "refused": []}}
            report = {"payload": {"type": "chat", "data": report, "id": header["id"]}}
            report["header"] = {"status": "bad", "reason": "peerUnknown", "messageType": "statusReport"}
            chat.write(frame(json.dumps(report).encode()))
            self.assertEqual(chat.ask("bob", {"who": None})[1]["members"], ["bob"])
            self.assertEqual(chat.log(), "")

    def test_one_byte_at_a_time_and_many_at_once(self):
        with Chat() as chat:
            chat.ask("alice", {"join": "kitchen"})
            message_id, request = chat.envelope("alice", b'{"say":"slow"}')
            chat.write_apart(request)
            answer = json.loads(chat.frame())
            self.assertEqual((answer["header"]["inReplyTo"], answer["payload"]["data"]["said"]), (message_id, "slow"))
            ids, requests = zip(*(chat.envelope("alice", b'{"say":"%d"}' % n) for n in range(100)))
            chat.write(b"".join(requests))
            answers = [json.loads(chat.frame()) for _ in ids]
            self.assertEqual([answer["header"]["inReplyTo"] for answer in answers], list(ids))
            self.assertEqual([answer["payload"]["data"]["said"] for answer in answers], [str(n) for n in range(100)])

    def test_garbage_never_ends_it(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        words = ["join", "leave", "say", "who", "history", "room", "last", "from", "kitchen", "", "x" * 3_000, "\0", "ü"]
        words += ["tell", "gone", "to", "turn", "kitchen@b.example", "a.example", "alice"]
        scalars = [b"null", b"true", b"false", b"0", b"-1", b"1e999", b"-1e-999", b"1.5", b"9" * 6_000, rb'"\ud800"', b"20"]

        def garbage(depth):
            kind = rng.randrange(5 if depth else 3)
            if kind == 0:
                return rng.choice(scalars)
            if kind <= 2:
                return json.dumps(rng.choice(words)).encode()
            items = [garbage(depth - 1) for _ in range(rng.randrange(4))]
            if kind == 3:
                return b"[" + b",".join(items) + b"]"
            return b"{" + b",".join(json.dumps(rng.choice(words)).encode() + b":" + item for item in items) + b"}"

        deep = [opening * 99 + b"1" + closing * 99 for opening, closing in [(b"[", b"]"), (b'{"say":', b"}")]]
        statuses = set()
        with Chat() as chat:
            for data in scalars + deep + [garbage(3) for _ in range(3_000)]:
                with self.subTest(seed=seed, data=data[:200]):
                    origin = rng.choice([{}, {"scope": "server", "server": "b.example"}])
                    header, text = chat.ask(rng.choice(["alice", "bob", "eve"]), data, **origin)
                    statuses.add(header["status"])
                    self.assertNotEqual(header["status"], "internal", text)
                    if header["status"] != "0":
                        self.assertEqual(header.keys(), {"status"})
                        self.assertIsInstance(text, str)
            self.assertLessEqual({"0", "badRequest"}, statuses, f"seed {seed}: the garbage tests too little")
            self.assertEqual(chat.finish(), (b"", 0), chat.log())
            self.assertEqual(chat.log(), "", f"seed {seed}")

    def test_endless_frame_ends_it_with_a_reason(self):
        with Chat() as chat:
            chat.write(b'{"he')
            rest, code = chat.finish()
            self.assertEqual((rest, code), (b"", 1))
            self.assertIn("cannot be one of the server's", chat.log())

    def test_stray_prints_go_to_the_log(self):
        stray = """if True:
            import os, subprocess, sys
            sys.path.insert(0, sys.argv[1])
            import chat
            handle = chat.Rooms.handle
            def noisy(*arguments):
                print("stray print", flush=True)
                os.write(1, b"stray write\\n")
                subprocess.run(["echo", "stray child"], check=True)
                return handle(*arguments)
            chat.Rooms.handle = noisy
            chat.main()
        """
        with Chat(sys.executable, "-B", "-c", stray, HERE / "chat") as chat:
            self.assertEqual(chat.ask("alice", {"join": "kitchen"})[0]["status"], "0")
            self.assertEqual(chat.finish(), (b"", 0), chat.log())
            for word in ("stray print", "stray write", "stray child"):
                self.assertIn(word, chat.log())


class ManualTest(unittest.TestCase):
    """What the README shows is run, so that it stays true."""

    def test_handler_in_the_readme_works(self):
        code = re.search(r"```python\n(.*?)```", (HERE / "README.md").read_text(), re.S).group(1)
        self.assertLessEqual(len(code.splitlines()), 20)
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder, "upper.py")
            program.write_text(code)
            program.chmod(0o755)
            shutil.copy(HERE / "python" / "bester.py", folder)
            with Process(program) as upper:
                upper.write(frame('"grüß"'.encode()))
                expected = {"header": {"status": "0", "command": "reply"}, "payload": {"data": "GRÜSS"}}
                self.assertEqual(json.loads(upper.frame()), expected)
                for data in TOUCHY:
                    upper.write(frame(data))
                    self.assertEqual(json.loads(upper.frame())["header"]["status"], "0" if data.startswith(b'"') else "badRequest")
                self.assertEqual(upper.finish(), (b"", 0), upper.log())

    def test_handler_in_the_readme_without_the_module_works(self):
        code = re.search(r"```\n(import struct.*?)```", (HERE / "README.md").read_text(), re.S).group(1)
        with Process(sys.executable, "-c", code) as handler:
            for data in TOUCHY:
                handler.write(frame(data))
                self.assertEqual(handler.frame(), b'{"header":{"status":"0","command":"reply"},"payload":{"data":' + data + b"}}")
            self.assertEqual(handler.finish(), (b"", 0), handler.log())

    def test_frames_in_the_readme_are_json(self):
        frames = [line for line in (HERE / "README.md").read_text().splitlines() if line.startswith("{")]
        self.assertGreaterEqual(len(frames), 11)
        for text in frames:
            with self.subTest(text=text):
                self.assertIsInstance(json.loads(text), dict)

    def test_data_in_the_readme_of_the_chat_is_understood(self):
        manual = (HERE / "chat" / "README.md").read_text()
        table = re.search(r"## What to send\n(.*?)\n## ", manual, re.S).group(1)
        shown = re.findall(r"`(\{.*?\})`", table)
        self.assertGreaterEqual(len(shown), 9)
        with Chat() as chat:
            for data in shown:
                chat.ask("alice", {"join": "kitchen"})
                with self.subTest(data=data):
                    self.assertEqual(chat.ask("alice", data.encode())[0]["status"], "0")


if __name__ == "__main__":
    unittest.main()
