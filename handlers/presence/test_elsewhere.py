"""Who is online on other servers: two of them that are connected in memory, with a clock that the test moves. Nothing gets lost
between them, but it may come late."""
import json
import unittest

import presence
from presence import Presence, bester

A, B = "a.example", "b.example"


class NoInformer:
    """All who have gone are gone."""

    def is_client(self, user):
        return False


class Message:
    """As the module gives it to a handler; what is answered goes to `world`."""

    def __init__(self, world, at, user, data, peer=None, hops=0):
        self.world, self.at, self.data, self.peer, self.hops = world, at, data, peer, hops
        self.local_user = None if peer else user
        self.user = user

    def answer(self, answer, then=None):
        self.world.carry_out(self.at, answer, self, self.hops, then)


class World:
    """Servers with this handler, and what is on the way between them."""

    def __init__(self, *servers):
        self.now = 0.0
        self.cut = False
        self.way = []
        self.got = {}
        self.known = set(servers)
        self.thens = []
        self.handlers = {}
        for server in servers:
            self.start(server, [])

    def start(self, server, online):
        def push(*commands, then=None):
            self.carry_out(server, list(commands), None, 0, then)

        self.handlers[server] = Presence(NoInformer(), online, server, push, lambda: self.now, lambda: 1_000 + self.now)

    def carry_out(self, server, answer, message, hops, then=None):
        if answer is None:
            return
        unknown = []
        for command in answer if isinstance(answer, list) else [answer]:
            order, data = json.loads(b"{" + command.order + b"}"), json.loads(command.data)
            if order["command"] == "sendClients":
                assert order["commandData"], "for nobody"
                for user in order["commandData"]:
                    self.got.setdefault(f"{user}@{server}", []).append(data)
            elif order["command"] == "sendServers" or message.peer:
                for target in order.get("commandData") or [message.peer]:
                    if target in self.known:
                        self.way.append((server, target, hops + 1, data))
                    else:
                        unknown.append(target)
            else:
                self.got.setdefault(f"{message.user}@{server}", []).append(data)
        if then:
            self.thens.append(lambda: then(bester.Outcome(None, None, 0, 0, [], unknown, [])))

    def sends(self, who, data):
        user, server = who.split("@")
        self.handlers[server].handle(Message(self, server, user, data))
        self.settle()
        return self.gets(who)

    def arrive(self, place=0):
        source, target, hops, data = self.way.pop(place)
        assert hops <= 3, data
        self.handlers[target].handle(Message(self, target, None, data, source, hops))

    def settle(self):
        for _ in range(1_000):
            while self.thens:
                self.thens.pop(0)()
            if not self.way or self.cut:
                return
            self.arrive()
        raise AssertionError("it never ends")

    def comes(self, who):
        user, server = who.split("@")
        self.handlers[server].change([user], [])
        self.settle()

    def goes(self, who):
        user, server = who.split("@")
        self.handlers[server].change([], [user])
        self.settle()

    def passes(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + presence.BEAT_SECONDS)
            for handler in self.handlers.values():
                handler.beat()
            self.settle()

    def gets(self, who):
        return self.got.pop(who, [])


class ElsewhereTest(unittest.TestCase):
    def setUp(self):
        self.world = World(A, B)
        for who in ("alice@a.example", "ann@a.example", "bob@b.example"):
            self.world.comes(who)

    def watching(self, who="alice@a.example", server=B):
        told = self.world.sends(who, {"watch": True, "server": server})
        return told[-1]

    def test_watchers_get_the_list_and_then_the_changes(self):
        told = self.world.sends("alice@a.example", {"watch": True, "server": B})
        self.assertEqual(told, [{"server": B, "watch": True}, {"server": B, "who": ["bob@b.example"], "count": 1}])
        self.world.comes("ben@b.example")
        self.assertEqual(self.world.gets("alice@a.example"), [{"online": "ben@b.example"}])
        # The second watcher has the list at once, and nobody is asked for it.
        told = self.world.sends("ann@a.example", {"watch": True, "server": B})
        self.assertEqual(told, [{"server": B, "who": ["ben@b.example", "bob@b.example"], "count": 2}])
        self.world.goes("bob@b.example")
        for who in ("alice@a.example", "ann@a.example"):
            self.assertEqual(self.world.gets(who), [{"offline": "bob@b.example"}])
        self.assertEqual(self.world.gets("bob@b.example"), [])

    def test_the_own_server_is_watched_as_ever(self):
        self.assertEqual(self.watching(server=A), {"who": ["alice", "ann"], "count": 2})
        self.world.comes("carol@a.example")
        self.assertEqual(self.world.gets("alice@a.example"), [{"online": "carol"}])

    def test_a_server_that_nobody_watches_any_more_is_told(self):
        self.watching()
        self.watching("ann@a.example")
        self.assertEqual(self.world.sends("alice@a.example", {"watch": False, "server": B}), [{"server": B, "watch": False}])
        self.assertEqual(set(self.world.handlers[B]._wanted), {A})
        self.world.goes("ann@a.example")
        self.assertEqual(self.world.handlers[B]._wanted, {})
        self.assertEqual(self.world.handlers[A]._elsewhere, {})

    def test_news_go_on_for_as_long_as_they_are_wanted(self):
        self.watching()
        self.world.passes(3_600)
        self.assertEqual(self.world.gets("alice@a.example"), [])  # nothing has changed
        self.world.comes("ben@b.example")
        self.assertEqual(self.world.gets("alice@a.example"), [{"online": "ben@b.example"}])

    def test_who_is_gone_for_long_gets_no_more_news(self):
        self.watching()
        self.world.cut = True
        self.world.passes(presence.EXPIRE_SECONDS + presence.REFRESH_SECONDS)
        waiting = len(self.world.way)
        self.assertEqual(waiting, 1)  # one question, however long it takes
        self.world.comes("ben@b.example")
        self.world.goes("ben@b.example")
        self.assertEqual(len(self.world.way), waiting)
        self.assertEqual(self.world.gets("alice@a.example"), [{"server": B, "who": None}])
        self.world.cut = False
        self.world.comes("ben@b.example")
        self.assertEqual(self.world.gets("alice@a.example"), [{"server": B, "who": ["ben@b.example", "bob@b.example"], "count": 2}])

    def test_a_handler_that_was_started_anew_is_told_what_it_needs(self):
        self.watching()
        self.world.start(B, ["ben"])  # bob has gone meanwhile, and nobody remembers who wants to know
        self.world.passes(presence.REFRESH_SECONDS + presence.BEAT_SECONDS)
        self.assertEqual(self.world.gets("alice@a.example"), [{"offline": "bob@b.example"}, {"online": "ben@b.example"}])
        # The one who wanted it is: news that nobody wants end.
        self.world.start(A, ["alice"])
        self.world.comes("carl@b.example")
        self.assertEqual((self.world.gets("alice@a.example"), self.world.handlers[B]._wanted), ([], {}))

    def test_late_news_are_no_news(self):
        self.watching()
        self.world.cut = True
        self.world.goes("bob@b.example")
        self.world.comes("bob@b.example")
        self.world.arrive(1)
        self.world.arrive(0)
        self.assertEqual(self.world.gets("alice@a.example"), [])
        self.assertEqual(self.world.handlers[A]._elsewhere[B].online, {"bob"})

    def test_a_late_list_is_no_news(self):
        self.watching()
        self.world.cut = True
        self.world.passes(presence.REFRESH_SECONDS + presence.BEAT_SECONDS)
        self.world.arrive()  # the question; and now the list with bob alone is on its way
        self.world.comes("ben@b.example")
        self.world.arrive(1)
        self.assertEqual(self.world.gets("alice@a.example"), [{"online": "ben@b.example"}])
        self.world.arrive()
        self.assertEqual((self.world.gets("alice@a.example"), self.world.way), ([], []))

    def test_who_is_not_on_a_list_that_is_too_long_has_not_gone(self):
        many = [f"u{n:05}" for n in range(presence.NAMES_ELSEWHERE_MAX)]
        self.world.start(B, many)
        self.watching()
        self.world.start(B, ["anton", *many])
        self.world.passes(presence.REFRESH_SECONDS + presence.BEAT_SECONDS)
        self.assertEqual(self.world.gets("alice@a.example"), [{"online": "anton@b.example"}])

    def test_many_changes_are_told_as_a_list(self):
        self.watching()
        here = [f"u{n}" for n in range(presence.CHANGES_MAX + 1)]
        self.world.start(B, here)
        self.world.passes(presence.REFRESH_SECONDS + presence.BEAT_SECONDS)
        (told,) = self.world.gets("alice@a.example")
        self.assertEqual((told["server"], told["count"], len(told["who"])), (B, len(here), len(here)))

    def test_lists_are_bounded(self):
        many = [f"u{n:063}" for n in range(presence.NAMES_ELSEWHERE_MAX + 3)]
        long = "s" * 253
        self.world.known.add(long)
        self.world.start(long, many)
        told = self.watching(server=long)
        self.assertEqual((told["count"], len(told["who"])), (len(many), presence.NAMES_ELSEWHERE_MAX))
        self.assertLess(len(json.dumps(told)), 1 << 20)
        self.world.passes(presence.REFRESH_SECONDS + presence.BEAT_SECONDS)
        self.world.handlers[long].change(["zoe"], [])
        self.world.settle()
        self.assertEqual(self.world.gets("alice@a.example"), [{"online": f"zoe@{long}"}])
        self.assertEqual(len(self.world.handlers[A]._elsewhere[long].online), presence.NAMES_ELSEWHERE_MAX)

    def test_watches_and_servers_are_bounded(self):
        for n in range(presence.SERVERS_MAX):
            self.world.known.add(f"s{n}")
            self.world.cut = True
            self.watching(server=f"s{n}")
        with self.assertRaises(bester.Refusal) as caught:
            self.watching(server="one-more")
        self.assertEqual(caught.exception.status, "full")
        most, presence.WATCHES_ELSEWHERE_MAX = presence.WATCHES_ELSEWHERE_MAX, presence.SERVERS_MAX
        try:
            self.watching(server="s0")  # who watches already takes no more
            with self.assertRaises(bester.Refusal):
                self.watching("ann@a.example", "s0")
        finally:
            presence.WATCHES_ELSEWHERE_MAX = most
        handler = self.world.handlers[B]
        for n in range(presence.WANTED_MAX):
            handler.handle(Message(self.world, B, None, {"news": True}, f"s{n}", 1))
        with self.assertRaises(bester.Refusal):
            handler.handle(Message(self.world, B, None, {"news": True}, "one-more", 1))
        handler.handle(Message(self.world, B, None, {"news": True}, "s0", 1))
        self.world.now += presence.EXPIRE_SECONDS
        handler.handle(Message(self.world, B, None, {"news": True}, "one-more", 1))
        self.assertEqual(set(handler._wanted), {"one-more"})

    def test_a_server_that_is_not_known_is_not_watched(self):
        told = self.world.sends("alice@a.example", {"watch": True, "server": "nowhere"})
        self.assertEqual(told, [{"server": "nowhere", "watch": True}, {"server": "nowhere", "watch": False}])
        self.assertEqual(self.world.handlers[A]._elsewhere, {})
        # Nor is one that has ceased to be.
        self.watching()
        self.world.known.remove(B)
        self.world.passes(presence.REFRESH_SECONDS + presence.BEAT_SECONDS)
        self.assertEqual(self.world.gets("alice@a.example"), [{"server": B, "watch": False}])

    def test_what_makes_no_sense_is_refused(self):
        self.watching()
        wrong = [None, 1, [], {}, "news", {"news": 1}, {"news": None}, {"news": True, "more": 1}, {"watch": True}, {"who": True}]
        wrong += [{"here": here, "count": 9, "number": 9} for here in (None, "bob", ["Bob"], ["b@c"], [1], ["a"] * 2_001)]
        wrong += [{"here": ["bob"], "count": count, "number": 9} for count in (None, 0, "1", 1.0, True, -1)]
        wrong += [{"here": ["bob"], "count": 1, "number": number} for number in (None, 0, -1, 1.5, "1", True)]
        wrong += [{"came": None, "went": [], "number": 9}, {"came": [], "went": ["B"], "number": 9}, {"came": [], "number": 9}]
        for data in wrong:
            with self.subTest(data=data), self.assertRaises(bester.Refusal):
                self.world.handlers[A].handle(Message(self.world, A, None, data, B, 1))
        self.assertEqual(self.world.handlers[A]._elsewhere[B].online, {"bob"})
        self.assertEqual(self.world.gets("alice@a.example"), [])


if __name__ == "__main__":
    unittest.main()
