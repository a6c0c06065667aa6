"""Mail: the program with a server's words."""

import json
import re
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

from harness import Asker

HERE = Path(__file__).resolve().parent


class MailTest(unittest.TestCase):
    def setUp(self):
        self.mail = Asker(HERE / "mail.py").__enter__()
        self.addCleanup(self.mail.__exit__, None, None, None)

    def ends_well(self):
        self.assertEqual(self.mail.finish(), (b"", 0), self.mail.log())
        self.assertEqual(self.mail.log(), "")

    def assert_refused(self, data, part, status="badRequest", **origin):
        header, text = self.mail.ask("alice", data, **origin)
        self.assertEqual(header, {"status": status}, data)
        self.assertIn(part, text, data)

    def assert_sent(self, data):
        """`data` is delivered to those named, as from alice and as of now."""
        began = datetime.now(timezone.utc).replace(microsecond=0)
        header, letter = self.mail.ask("alice", data)
        self.assertEqual(header, {"status": "0", "command": "sendClients", "commandData": data["to"]})
        at = datetime.strptime(letter.pop("at"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        self.assertTrue(began <= at <= began + timedelta(seconds=60), at)
        self.assertEqual(letter, {"from": "alice", **data})

    def test_a_text_goes_to_those_named(self):
        self.assert_sent({"to": ["bob"], "text": "hello"})
        self.assert_sent({"to": ["carol", "alice", "bob"], "text": " \u0000 grüße \U0001f600\n"})
        self.ends_well()

    def test_only_users_of_this_server_may_send(self):
        for origin in [{"scope": "server", "server": "b.example"}, {"verified": False}, {"scope": "handler", "type": "x"}]:
            self.assert_refused({"to": ["bob"], "text": "hello"}, "users of this server", "notLocal", **origin)
        self.ends_well()

    def test_other_requests_are_refused(self):
        for data in [None, 1, "hello", [], {}, {"to": ["bob"]}, {"text": "hello"}, {"to": ["bob"], "text": "hello", "from": "eve"}]:
            self.assert_refused(data, '{"to":[NAME,...],"text":TEXT}')
        for to in ["bob", [], None, {"bob": 1}, [1], ["bob", None], [["bob"]]]:
            self.assert_refused({"to": to, "text": "hello"}, "a list of names")
        for text in ["", " \n", None, 1, ["hello"]]:
            self.assert_refused({"to": ["bob"], "text": text}, "not empty")
        for to, text in [("bob", "\ud83d"), ("bob\udc00", "hello")]:
            self.assert_refused({"to": [to], "text": text}, "surrogate")
        self.ends_well()

    def test_limits_are_where_the_readme_says(self):
        names = [f"user{n}" for n in range(101)]
        self.assert_sent({"to": names[:100], "text": "\u0000" * 1_999 + "x"})
        self.assert_refused({"to": names, "text": "hello"}, "100 names")
        self.assert_refused({"to": ["bob"], "text": "x" * 2_001}, "2000 characters")
        self.ends_well()

    def test_readme_shows_what_is_understood(self):
        manual = (HERE / "README.md").read_text()
        table = re.search(r"## What to send\n(.*?)\n## ", manual, re.S).group(1)
        shown = re.findall(r"^\| `(\{.*?\})`", table, re.M)
        self.assertEqual(len(shown), 1)
        self.assert_sent(json.loads(shown[0]))
        called = re.search(r"bester send -u alice -t mail '(.*)'", manual).group(1)
        self.assert_sent(json.loads(called))


if __name__ == "__main__":
    unittest.main()
