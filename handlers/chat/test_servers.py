"""Rooms that span servers: chats that are connected in memory. Nothing gets lost on the way from one to another, as servers
promise; what is sent may come in another order, as they do not."""
import json
import random
import unittest

import chat
from chat import Pass, Rooms, Send, bester

AT = "2026-05-01T12:00:00Z"
A, B, C = "a.example", "b.example", "c.example"


class Net:
    """Chats on several servers, and what is on the way between them."""

    def __init__(self, *servers):
        self.now = 1_000.0
        self.chats = {}
        self.way = {(source, target): [] for source in servers for target in servers if source != target}
        self.got = {}  # of user@server: all that was delivered and not looked at yet
        self.hops_most = 0
        for server in servers:
            self.start(server)

    def start(self, server):
        """Starts a chat, again perhaps: it has forgotten everything."""
        self.now += 1
        self.chats[server] = Rooms(server, lambda: self.now)

    def sends(self, who, data):
        """A user sends something; the data of the answer, if there is one at once."""
        user, server = who.split("@")
        return self.carry_out(server, user, self.chats[server].handle(user, data, AT), 0)

    def carry_out(self, server, user, acts, hops):
        reply = None
        json.dumps([act.data for act in acts])
        for act in acts:
            if isinstance(act, Pass):
                for target in act.to:
                    assert target != server, act
                    self.hops_most = max(self.hops_most, hops + 1)
                    self.way[server, target].append((hops + 1, user, act.data))
            elif act.to is None:
                assert reply is None
                reply = act.data
            else:
                assert act.to and len(set(act.to)) == len(act.to), act
                for name in act.to:
                    self.got.setdefault(f"{name}@{server}", []).append(act.data)
        return reply

    def arrive(self, source, target, place=0):
        """What is on the way comes to its chat; the one at `place` comes first."""
        hops, user, data = self.way[source, target].pop(place)
        # What a message leads to has the same user, wherever it is sent.
        acts = self.chats[target].hear(source, user if hops == 1 else None, json.loads(json.dumps(data)), hops, AT)
        assert self.carry_out(target, user, acts, hops) is None

    def settle(self, rng=None):
        """All that is on the way comes, in any order if there are dice."""
        count = 0
        while waiting := [pair for pair, messages in self.way.items() if messages]:
            pair = rng.choice(waiting) if rng else waiting[0]
            self.arrive(*pair, rng.randrange(len(self.way[pair])) if rng else 0)
            count += 1
            assert count < 100_000, "it never ends"

    def gets(self, who):
        return self.got.pop(who, [])

    def members(self, server, room="kitchen"):
        room = self.chats[server]._rooms.get(room)
        return sorted(room.members) if room else []

    def stays(self, who):
        user, server = who.split("@")
        return {place: stay.state for place, stay in self.chats[server]._stays.get(user, {}).items()}


class ServersTest(unittest.TestCase):
    def setUp(self):
        self.net = Net(A, B, C)

    def joined(self, *people, room="kitchen", home=B):
        for who in people:
            self.net.sends(who, {"join": room if who.endswith(f"@{home}") else f"{room}@{home}"})
            self.net.settle()
        for who in people:
            self.net.gets(who)

    def refusal(self, who, data):
        with self.assertRaises(bester.Refusal) as caught:
            self.net.sends(who, data)
        return caught.exception.status

    def test_joining_elsewhere_is_answered_and_told_to_all(self):
        self.joined("bob@b.example", "carol@c.example")
        self.assertIsNone(self.net.sends("alice@a.example", {"join": "kitchen@b.example"}))
        self.assertEqual(self.net.stays("alice@a.example"), {"kitchen@b.example": "joining"})
        self.net.settle()
        everyone = ["alice@a.example", "bob@b.example", "carol@c.example"]
        event = {"room": "kitchen@b.example", "joined": "alice@a.example", "at": AT}
        self.assertEqual(self.net.gets("alice@a.example"), [{**event, "members": everyone, "messages": 0}])
        self.assertEqual(self.net.gets("carol@c.example"), [event])
        self.assertEqual(self.net.gets("bob@b.example"), [{**event, "room": "kitchen"}])
        self.assertEqual(self.net.stays("alice@a.example"), {"kitchen@b.example": "joined"})
        self.assertEqual(self.net.members(B), ["alice@a.example", "bob", "carol@c.example"])

    def test_what_is_said_reaches_everyone_once_and_in_one_message_to_all_servers(self):
        people = ["bob@b.example", "alice@a.example", "ann@a.example", "carol@c.example"]
        self.joined(*people)
        self.net.sends("alice@a.example", {"say": "hello"})  # she is in no other room, so she need not name it
        self.net.arrive(A, B)
        self.assertEqual([len(self.net.way[B, each]) for each in (A, C)], [1, 1])
        self.assertIs(self.net.way[B, A][0][2], self.net.way[B, C][0][2])
        self.net.settle()
        said = {"room": "kitchen@b.example", "from": "alice@a.example", "said": "hello", "at": AT}
        for who in people[1:]:
            self.assertEqual(self.net.gets(who), [said], who)
        self.assertEqual(self.net.gets("bob@b.example"), [{**said, "room": "kitchen"}])
        self.net.sends("bob@b.example", {"say": "welcome"})
        self.net.settle()
        self.assertEqual(self.net.gets("bob@b.example")[0]["from"], "bob")
        self.assertEqual(self.net.gets("ann@a.example")[0]["from"], "bob@b.example")

    def test_asking_elsewhere(self):
        self.joined("bob@b.example", "alice@a.example")
        self.net.sends("bob@b.example", {"say": "one"})
        self.net.sends("alice@a.example", {"say": "two"})
        self.net.settle()
        self.net.gets("alice@a.example")
        for data, expected in [
            ({"who": None}, {"members": ["alice@a.example", "bob@b.example"]}),
            ({"history": "kitchen@b.example", "last": 2}, {"history": [
                {"from": "bob@b.example", "said": "one", "at": AT}, {"from": "alice@a.example", "said": "two", "at": AT}]}),
            ({"leave": "kitchen@b.example"}, {"left": "alice@a.example", "at": AT}),
        ]:
            self.assertIsNone(self.net.sends("alice@a.example", data))
            self.net.settle()
            self.assertEqual(self.net.gets("alice@a.example"), [{"room": "kitchen@b.example", **expected}])
        self.assertEqual(self.net.members(B), ["bob"])
        self.assertEqual(self.net.gets("bob@b.example")[-1], {"room": "kitchen", "left": "alice@a.example", "at": AT})
        self.assertEqual(self.net.stays("alice@a.example"), {})

    def test_the_own_server_may_be_named(self):
        self.net.sends("alice@a.example", {"join": "kitchen@a.example"})
        self.assertEqual(self.net.members(A), ["alice"])
        self.assertEqual(self.net.sends("alice@a.example", {"who": "kitchen@a.example"})["room"], "kitchen")

    def test_mistakes_are_refused_where_they_are_made(self):
        self.joined("bob@b.example", "alice@a.example")
        for who, data, status in [
            ("ann@a.example", {"say": "x", "room": "kitchen@b.example"}, "notMember"),
            ("ann@a.example", {"who": "kitchen@b.example"}, "notMember"),
            ("ann@a.example", {"leave": "kitchen@b.example"}, "notMember"),
            ("alice@a.example", {"say": "", "room": "kitchen@b.example"}, "badRequest"),
            ("alice@a.example", {"say": "x" * (chat.TEXT_MAX + 1), "room": "kitchen@b.example"}, "badRequest"),
            ("alice@a.example", {"history": "kitchen@b.example", "last": 0}, "badRequest"),
            *[("alice@a.example", {"join": name}, "badRequest") for name in ("kitchen@", "@b.example", "kitchen@b@c", "Kitchen@b", "a@" + "b" * 254)],
        ]:
            self.assertEqual(self.refusal(who, data), status, data)
        self.assertFalse(any(self.net.way.values()))

    def test_refusals_come_back_to_the_asker(self):
        self.net.sends("alice@a.example", {"join": "kitchen@b.example"})
        self.assertEqual(self.refusal("alice@a.example", {"say": "too early"}), "notMember")
        self.net.settle()
        (told,) = self.net.gets("alice@a.example")
        self.assertEqual((told["room"], told["refused"]), ("kitchen@b.example", "notFound"))
        self.assertIn("kitchen", told["because"])
        self.assertEqual(self.net.stays("alice@a.example"), {})
        self.assertEqual(self.net.members(B), [])

    def test_joining_twice_is_joining_once(self):
        self.joined("bob@b.example", "alice@a.example", "alice@a.example")
        self.assertEqual(self.net.members(B), ["alice@a.example", "bob"])
        self.assertEqual(len([event for event in self.net.gets("bob@b.example") if "joined" in event]), 0)

    # When one of them was started anew.

    def test_a_home_that_has_forgotten_its_rooms_says_so_to_the_next_speaker(self):
        self.joined("bob@b.example", "alice@a.example")
        self.net.start(B)
        self.net.sends("alice@a.example", {"say": "anybody?"})
        self.net.settle()
        self.assertEqual([told["refused"] for told in self.net.gets("alice@a.example")], ["notMember"])
        self.assertEqual(self.net.stays("alice@a.example"), {})
        self.joined("bob@b.example", "alice@a.example")
        self.assertEqual(self.net.members(B), ["alice@a.example", "bob"])

    def test_a_server_that_has_forgotten_its_users_has_them_removed(self):
        self.joined("bob@b.example", "alice@a.example", "carol@c.example")
        self.net.start(A)
        self.net.sends("bob@b.example", {"say": "hello"})
        self.net.settle()
        self.assertEqual(self.net.gets("alice@a.example"), [])
        left = {"left": "alice@a.example", "at": AT}
        self.assertEqual(self.net.gets("bob@b.example")[-1], {"room": "kitchen", **left})
        self.assertEqual(self.net.gets("carol@c.example")[-1], {"room": "kitchen@b.example", **left})
        self.assertEqual(self.net.members(B), ["bob", "carol@c.example"])

    def test_who_joins_again_is_not_removed_by_what_was_said_before(self):
        self.joined("bob@b.example", "alice@a.example")
        self.net.start(A)
        self.net.sends("bob@b.example", {"say": "hello"})
        self.net.arrive(B, A)  # and now "gone" is on its way
        self.net.sends("alice@a.example", {"join": "kitchen@b.example"})
        self.net.arrive(A, B, 1)  # and is overtaken
        self.net.settle()
        self.assertEqual(self.net.members(B), ["alice@a.example", "bob"])
        self.assertEqual(self.net.stays("alice@a.example"), {"kitchen@b.example": "joined"})

    def test_what_gone_leads_to_ends(self):
        self.joined("bob@b.example", "alice@a.example", "carol@c.example")
        self.net.start(A)
        self.net.start(C)
        self.net.sends("alice@a.example", {"join": "kitchen@b.example"})
        self.net.settle()
        self.assertLessEqual(self.net.hops_most, 5)
        self.net.sends("bob@b.example", {"say": "hello"})
        self.net.settle()
        self.assertEqual(self.net.members(B), ["alice@a.example", "bob"])

    # In another order.

    def test_leaving_may_overtake_joining(self):
        self.joined("bob@b.example")
        self.net.sends("alice@a.example", {"join": "kitchen@b.example"})
        self.net.sends("alice@a.example", {"leave": "kitchen@b.example"})
        self.net.arrive(A, B, 1)
        self.net.settle()
        self.assertEqual((self.net.members(B), self.net.stays("alice@a.example")), (["bob"], {}))

    def test_joining_again_may_overtake_leaving(self):
        self.joined("bob@b.example", "alice@a.example")
        self.net.sends("alice@a.example", {"leave": "kitchen@b.example"})
        self.net.sends("alice@a.example", {"join": "kitchen@b.example"})
        self.net.arrive(A, B, 1)
        self.net.settle()
        self.assertEqual(self.net.members(B), ["alice@a.example", "bob"])
        self.assertEqual(self.net.stays("alice@a.example"), {"kitchen@b.example": "joined"})

    def test_a_late_join_changes_nothing_for_who_has_joined_again(self):
        self.joined("bob@b.example")
        for verb, turn in [("join", 9), ("join", 5), ("leave", 7)]:
            self.net.chats[B].hear(A, "alice", {verb: "kitchen", "turn": turn}, 1, AT)
            self.assertEqual(self.net.members(B), ["alice@a.example", "bob"])

    def test_who_is_leaving_hears_no_more_of_the_room(self):
        self.joined("bob@b.example", "alice@a.example")
        self.net.sends("alice@a.example", {"leave": None})
        self.net.sends("bob@b.example", {"say": "is she gone?"})
        self.net.arrive(B, A)
        self.assertEqual(self.net.gets("alice@a.example"), [])
        self.net.settle()
        self.assertEqual([list(told)[1] for told in self.net.gets("alice@a.example")], ["left"])

    def test_leaving_twice_does_not_wait_for_an_answer(self):
        self.joined("bob@b.example", "alice@a.example")
        self.assertIsNone(self.net.sends("alice@a.example", {"leave": None}))
        self.assertEqual(self.net.stays("alice@a.example"), {"kitchen@b.example": "leaving"})
        self.assertEqual(self.net.sends("alice@a.example", {"leave": None})["left"], "alice@a.example")
        self.assertEqual(self.net.stays("alice@a.example"), {})
        self.net.settle()
        self.assertEqual(self.net.members(B), ["bob"])

    def test_random_conversations_agree_in_the_end(self):
        for _ in range(20):
            seed = random.randrange(1 << 32)
            with self.subTest(seed=seed):
                self.random_conversation(random.Random(seed))

    def random_conversation(self, rng):
        net = Net(A, B, C)
        people = [f"{name}@{server}" for name in ("alice", "bob") for server in (A, B, C)]
        said = {}  # the text: by whom, and where
        for server in (A, B, C):
            net.sends(f"keeper@{server}", {"join": "kitchen"})
        restarts = 0
        for step in range(400):
            net.now += rng.choice([0, 0, 0.001, 1])
            who, home = rng.choice(people), rng.choice([A, B, C])
            place = f"kitchen@{home}"
            data = rng.choice([{"join": place}, {"join": place}, {"leave": place}, {"who": place}] + 3 * [{"say": str(step), "room": place}])
            try:
                net.sends(who, data)
                if "say" in data:
                    said[str(step)] = who, home
            except bester.Refusal:
                pass
            if rng.random() < 0.01:
                restarts += 1
                net.start(home)
                net.sends(f"keeper@{home}", {"join": "kitchen"})
            for _ in range(rng.randrange(4)):
                waiting = [pair for pair, messages in net.way.items() if messages]
                if waiting:
                    pair = rng.choice(waiting)
                    net.arrive(*pair, rng.randrange(min(4, len(net.way[pair]))))
        net.settle(rng)
        # Whoever is in a room that has forgotten them learns it when they speak, and whoever has forgotten a room when it speaks.
        for _ in range(3):
            for who in people:
                for place in net.stays(who):
                    try:
                        net.sends(who, {"say": "last", "room": place})
                    except bester.Refusal:
                        self.assertNotEqual(net.stays(who)[place], "joined")
            for server in (A, B, C):
                net.sends(f"keeper@{server}", {"say": "last", "room": "kitchen"})
            net.settle(rng)
        for home in (A, B, C):
            abroad = {who for who in net.members(home) if "@" in who}
            here = {who for who in people if net.stays(who).get(f"kitchen@{home}") == "joined"}
            self.assertEqual(abroad, here)
        for who in people:
            self.assertLessEqual(set(net.stays(who).values()), {"joined"} if not restarts else {"joined", "joining", "leaving"})
            heard = [(event["said"], event["from"], event["room"]) for event in net.gets(who) if event.get("said", "last") != "last"]
            self.assertEqual(len(set(heard)), len(heard), "heard twice")
            _, server = who.split("@")
            for text, speaker, room in heard:
                by, home = said[text]
                expected = (by.replace(f"@{server}", ""), "kitchen") if home == server else (by, f"kitchen@{home}")
                self.assertEqual((speaker, room), expected)
        self.assertLessEqual(net.hops_most, 5)

    # What one server may do to another.

    def test_bounds(self):
        rooms = self.net.chats[B]
        self.joined("bob@b.example")
        for n in range(chat.MEMBERS_PER_SERVER_MAX):
            rooms.hear(A, f"u{n}", {"join": "kitchen", "turn": 5}, 1, AT)
        (answer,) = rooms.hear(A, "late", {"join": "kitchen", "turn": 5}, 1, AT)
        self.assertEqual(answer.data["tell"]["refused"], "full")
        acts = rooms.hear(C, "carol", {"join": "kitchen", "turn": 5}, 1, AT)
        self.assertNotIn("refused", acts[0].data["tell"])
        for n in range(chat.ROOMS_PER_USER_MAX):
            self.net.sends("alice@a.example", {"join": f"r{n}@b.example"})
        self.assertEqual(self.refusal("alice@a.example", {"join": "one-more@c.example"}), "full")
        self.assertEqual(self.refusal("alice@a.example", {"join": "one-more"}), "full")
        stays, chat.STAYS_MAX = chat.STAYS_MAX, chat.ROOMS_PER_USER_MAX + 1
        try:
            self.net.sends("ann@a.example", {"join": "r@b.example"})
            self.assertEqual(self.refusal("ann@a.example", {"join": "s@b.example"}), "full")
            self.net.sends("ann@a.example", {"leave": "r@b.example"})
            self.net.sends("ann@a.example", {"leave": "r@b.example"})
            self.net.sends("ann@a.example", {"join": "s@b.example"})
        finally:
            chat.STAYS_MAX = stays

    def test_answers_at_their_worst_fit(self):
        rooms = self.net.chats[B]
        server = "s" * 253
        for user in ("bob", *(f"{n:064}" for n in range(chat.MEMBERS_MAX - chat.MEMBERS_PER_SERVER_MAX - 1))):
            rooms.handle(user, {"join": "kitchen"}, AT)
        for n in range(chat.MEMBERS_PER_SERVER_MAX):
            rooms.hear(server, f"{n:064}", {"join": "kitchen", "turn": 5}, 1, AT)
        for _ in range(chat.HISTORY_MAX):
            acts = rooms.hear(server, f"{1:064}", {"say": "\x01" * chat.TEXT_MAX, "room": "kitchen", "turn": 6}, 1, AT)
        for data in [{"who": "kitchen"}, {"history": "kitchen", "last": chat.HISTORY_MAX}]:
            acts += rooms.hear(server, f"{1:064}", {**data, "turn": 7}, 1, AT)
        gone = [f"{n:064}" for n in range(chat.MEMBERS_PER_SERVER_MAX)]
        (told,) = self.net.chats[A].hear(B, None, {"tell": {}, "room": "kitchen", "to": {A: gone}}, 1, AT)
        self.assertEqual(len(told.data["gone"]), chat.GONE_MAX)
        removed = rooms.hear(server, None, {"gone": gone, "room": "kitchen", "turn": 8}, 3, AT)
        for act in acts:
            self.assertLess(len(json.dumps(act.data, ensure_ascii=False).encode()), chat.TOLD_BYTES_MAX)
        self.assertLess(len(json.dumps(removed, ensure_ascii=False).encode()), 4 << 20)

    def test_a_server_speaks_for_its_own_users_and_rooms_alone(self):
        self.joined("bob@b.example", "alice@a.example")
        a, b = self.net.chats[A], self.net.chats[B]
        # c.example tells alice something about a room of b's.
        event = {"room": "kitchen@b.example", "from": "bob@b.example", "said": "pay eve", "at": AT, "evil": 1}
        acts = a.hear(C, "eve", {"tell": event, "room": "kitchen", "to": {A: ["alice"]}}, 1, AT)
        self.assertEqual([type(act) for act in acts], [Pass])
        self.assertEqual(acts[0].data["gone"], ["alice"])
        # b.example itself tells her, and what it adds is left out.
        (act,) = a.hear(B, "eve", {"tell": event, "room": "kitchen", "to": {A: ["alice"]}}, 1, AT)
        self.assertEqual(act, Send(["alice"], {key: value for key, value in event.items() if key != "evil"}))
        # c.example has bob and alice leave.
        for user in ("bob", "alice"):
            b.hear(C, user, {"leave": "kitchen", "turn": chat.TURN_MAX - 1}, 1, AT)
            b.hear(C, None, {"gone": [user, f"{user}@a.example"[:3]], "room": "kitchen", "turn": chat.TURN_MAX - 1}, 1, AT)
        self.assertEqual(self.net.members(B), ["alice@a.example", "bob"])
        (answer,) = b.hear(C, "alice", {"who": "kitchen", "turn": 9}, 1, AT)
        self.assertEqual(answer.data["tell"]["refused"], "notMember")

    def test_what_makes_no_sense_is_refused_and_changes_nothing(self):
        self.joined("bob@b.example", "alice@a.example")
        wrong = [None, 1, "join", [], {}, {"join": "kitchen"}, {"join": "kitchen", "leave": "kitchen", "turn": 9}]
        wrong += [{"join": name, "turn": 9} for name in (None, 1, "", "Kitchen", "kitchen@a.example", ["kitchen"], {})]
        wrong += [{"join": "kitchen", "turn": turn} for turn in (None, 0, -1, 1.5, True, "9", chat.TURN_MAX, [])]
        wrong += [{"gone": names, "room": "kitchen", "turn": 9} for names in (None, "alice", ["Alice"], ["a@b"], [1], ["a"] * 501)]
        wrong += [{"gone": ["alice"], "turn": 9}, {"gone": ["alice"], "room": "kitchen"}, {"say": "x", "turn": 9}]
        wrong += [{"tell": event, "room": "kitchen", "to": {B: ["bob"]}} for event in (None, 1, "x", [])]
        wrong += [{"tell": {}, "room": "kitchen", "to": to} for to in (None, [], {B: "bob"}, {B: ["Bob"]}, {B: ["bob"] * 501}, {B: None})]
        for data in wrong:
            with self.subTest(data=data), self.assertRaises(bester.Refusal):
                self.net.chats[B].hear(A, "eve", data, 1, AT)
        for user in (None, "", "Eve", "eve@c.example", "e" * 65):
            with self.subTest(user=user), self.assertRaises(bester.Refusal):
                self.net.chats[B].hear(A, user, {"join": "kitchen", "turn": 9}, 1, AT)
        for text in ("", 7, "x" * (chat.TEXT_MAX + 1), "\ud800"):
            (answer,) = self.net.chats[B].hear(A, "alice", {"say": text, "room": "kitchen", "turn": 9}, 1, AT)
            self.assertEqual(answer.data["tell"]["refused"], "badRequest")
        self.assertEqual(self.net.members(B), ["alice@a.example", "bob"])

    def test_servers_that_there_are_not_are_forgotten(self):
        self.joined("bob@b.example", "alice@a.example", "carol@c.example")
        self.net.sends("alice@a.example", {"join": "kitchen@c.example"})
        self.net.chats[B].forget({A})
        self.assertEqual(self.net.members(B), ["bob", "carol@c.example"])
        self.net.chats[A].forget([C])
        self.assertEqual(self.net.stays("alice@a.example"), {"kitchen@b.example": "joined"})
        self.net.chats[A].forget([B])
        self.assertEqual((self.net.chats[A]._stays, self.net.chats[A]._stays_count), ({}, 0))


if __name__ == "__main__":
    unittest.main()
