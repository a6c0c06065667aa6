"""Who is online: the program with a server's words, and an informer that says who comes and goes."""

import json
import re
import unittest
from pathlib import Path

from harness import Asker, Informer, frame

HERE = Path(__file__).resolve().parent


class PresenceTest(unittest.TestCase):
    def setUp(self):
        self.informer = self.enter(Informer())
        self.presence = self.enter(Asker(HERE / "presence.py", informer=self.informer, BESTER_SERVER="a.example"))
        self.events = self.enter(self.informer.accept())
        self.assertEqual(self.events.question(), {"type": "watchClients"})
        self.events.answers(["alice", "bob"])
        self.questions = None

    def enter(self, manager):
        self.addCleanup(manager.__exit__, None, None, None)
        return manager.__enter__()

    def ask(self, user, data, **origin):
        return self.presence.ask(user, data, **origin)

    def comes(self, user):
        self.events.says({"event": {"type": "online", "user": user}})

    def goes(self, user, back_already=False):
        """The user's last connection ends; what the handler asks about that is answered."""
        self.events.says({"event": {"type": "offline", "user": user}})
        if self.questions is None:
            self.questions = self.enter(self.informer.accept())
        self.assertEqual(self.questions.question(), {"type": "isClient", "data": user})
        self.questions.answers(back_already)

    def assert_told(self, users, data):
        self.assertEqual(self.presence.gets(), ({"status": "0", "command": "sendClients", "commandData": users}, data))

    def ends_well(self):
        self.assertEqual(self.presence.finish(), (b"", 0), self.presence.log())
        self.assertEqual(self.presence.log(), "")

    def test_who_just_asks(self):
        self.assertEqual(self.ask("alice", {"who": True}), ({"status": "0", "command": "reply"}, {"who": ["alice", "bob"], "count": 2}))
        self.comes("carol")  # of which alice is told nothing
        self.ends_well()

    def test_watchers_are_told_until_they_have_enough(self):
        self.assertEqual(self.ask("alice", {"watch": True})[1], {"who": ["alice", "bob"], "count": 2})
        self.comes("carol")
        self.assert_told(["alice"], {"online": "carol"})
        self.assertEqual(self.ask("carol", {"watch": True})[1], {"who": ["alice", "bob", "carol"], "count": 3})
        self.goes("bob")
        self.assert_told(["alice", "carol"], {"offline": "bob"})
        self.assertEqual(self.ask("alice", {"watch": False})[1], {"watch": False})
        self.comes("bob")
        self.assert_told(["carol"], {"online": "bob"})
        self.assertEqual(self.ask("alice", {"who": True})[1], {"who": ["alice", "bob", "carol"], "count": 3})
        self.ends_well()

    def test_watching_twice_is_told_once(self):
        for _ in range(2):
            self.ask("alice", {"watch": True})
        self.comes("carol")
        self.assert_told(["alice"], {"online": "carol"})
        self.ends_well()

    def test_watching_ends_with_going_offline(self):
        self.ask("alice", {"watch": True})
        self.ask("bob", {"watch": True})
        self.goes("alice")
        self.assert_told(["bob"], {"offline": "alice"})
        self.comes("alice")
        self.assert_told(["bob"], {"online": "alice"})
        self.ends_well()

    def test_who_is_back_at_once_and_asks_again_is_not_forgotten(self):
        self.ask("alice", {"watch": True})
        self.goes("alice", back_already=True)
        self.comes("alice")
        self.comes("carol")
        self.assert_told(["alice"], {"online": "carol"})

    def test_who_asks_is_online_even_before_we_hear_of_it(self):
        self.assertEqual(self.ask("carol", {"watch": True})[1], {"who": ["alice", "bob", "carol"], "count": 3})
        self.comes("carol")  # nobody needs to be told about themselves
        self.comes("dave")
        self.assert_told(["carol"], {"online": "dave"})

    def test_changes_are_caught_up_with_when_the_informer_comes_back(self):
        self.ask("alice", {"watch": True})
        self.events.close()
        self.events = self.enter(self.informer.accept())
        self.events.question()
        self.events.answers(["alice", "carol"])
        with self.informer.accept() as questions:
            self.assertEqual(questions.question(), {"type": "isClient", "data": "bob"})
            questions.answers(False)
            self.assert_told(["alice"], {"offline": "bob"})
            self.assert_told(["alice"], {"online": "carol"})

    def test_only_users_of_this_server_may_ask(self):
        unknown = {"scope": "server", "server": "192.0.2.1:2224", "verified": False}
        ourselves = {"scope": "server", "server": "a.example"}
        for origin in [unknown, ourselves, {"verified": False}, {"scope": "handler", "type": "x"}]:
            self.assertEqual(self.ask("alice", {"watch": True}, **origin)[0], {"status": "notLocal"}, origin)
        self.comes("carol")
        self.ends_well()

    def test_other_requests_are_refused(self):
        wrong = [None, 1, "who", [], {}, {"watch": 1}, {"watch": 0}, {"watch": 1.0}, {"watch": None}, {"who": False}, {"who": "bob"}]
        wrong += [{"watch": True, "who": True}, {"online": "bob"}, {"who": True, "server": "b.example"}, {"news": True}]
        wrong += [{"watch": 1, "server": "b.example"}] + [{"watch": True, "server": name} for name in (None, 1, "", "b example", [])]
        for data in wrong:
            header, text = self.ask("alice", data)
            self.assertEqual(header, {"status": "badRequest"}, data)
            self.assertIn('{"watch":true}', text)
        self.ends_well()

    def test_readme_shows_what_is_understood(self):
        manual = (HERE / "README.md").read_text()
        table = re.search(r"## What to send\n(.*?)\n## ", manual, re.S).group(1)
        shown = re.findall(r"^\| `(\{.*?\})`", table, re.M)
        self.assertEqual(len(shown), 5)
        for data in shown:
            self.assertEqual(self.ask("alice", json.loads(data))[0]["status"], "0", data)

    def test_watching_another_server(self):
        header, _ = self.ask("alice", {"watch": True, "server": "b.example"})
        reply, request = header["commands"]
        self.assertEqual(reply, {"command": "reply", "payload": {"data": {"server": "b.example", "watch": True}}})
        news = {"command": "sendServers", "commandData": ["b.example"], "payload": {"data": {"news": True}}}
        self.assertEqual(request, news)
        other = {"scope": "server", "server": "b.example", "session": None, "hops": 2}
        header, told = self.ask(None, {"here": ["bob"], "count": 1, "number": 7}, **other)
        self.assertEqual(header, {"status": "0", "command": "sendClients", "commandData": ["alice"]})
        self.assertEqual(told, {"server": "b.example", "who": ["bob@b.example"], "count": 1})
        self.goes("alice")  # and nobody is left who wants to know
        self.assertEqual(self.presence.gets(), ({"status": "0", "command": "sendServers", "commandData": ["b.example"]}, {"news": False}))
        self.ends_well()

    def test_a_server_that_is_not_known_is_told_to_who_asked(self):
        header, _ = self.ask("alice", {"watch": True, "server": "nowhere"})
        data = {"delivered": 1, "queued": 0, "names": {"offline": [], "unknown": ["nowhere"], "refused": []}}
        report = {"header": {"status": "bad", "reason": "peerUnknown", "messageType": "statusReport"}}
        self.presence.write(frame(json.dumps({**report, "payload": {"type": "presence", "data": data, "id": header["id"]}}).encode()))
        self.assert_told(["alice"], {"server": "nowhere", "watch": False})
        self.ends_well()

    def test_telling_another_server(self):
        other = {"scope": "server", "server": "b.example", "session": None, "hops": 1}
        header, here = self.ask("alice", {"news": True}, **other)
        self.assertEqual(header, {"status": "0", "command": "reply"})
        number = here.pop("number")
        self.assertEqual(here, {"here": ["alice", "bob"], "count": 2})
        self.comes("carol")
        header, told = self.presence.gets()
        self.assertEqual(header, {"status": "0", "command": "sendServers", "commandData": ["b.example"]})
        self.assertGreater(told.pop("number"), number)
        self.assertEqual(told, {"came": ["carol"], "went": []})
        self.assertEqual(self.ask(None, {"news": False}, **other)[0], {"status": "0", "command": "none"})
        self.comes("dave")
        self.ends_well()


if __name__ == "__main__":
    unittest.main()
