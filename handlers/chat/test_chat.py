"""The rooms without any input or output: what alice, bob and eve do, and who is told what."""
import json
import random
import unittest

import chat
from chat import Rooms, Send, bester

AT = "2026-05-01T12:00:00Z"


class World:
    """Rooms with a clock that stands still."""

    def __init__(self):
        self.rooms = Rooms("a.example")

    def sends(self, user, data):
        return self.rooms.handle(user, data, AT)

    def refusal(self, user, data):
        """The refusal that `data` is met with."""
        try:
            sends = self.sends(user, data)
        except bester.Refusal as refusal:
            return refusal
        raise AssertionError(f"{data!r} was not refused but led to {sends}")

    def members(self, user, room):
        return self.sends(user, {"who": room})[0].data["members"]


class RoomsTest(unittest.TestCase):
    def setUp(self):
        self.world = World()

    def joined(self, *users, room="kitchen"):
        for user in users:
            self.world.sends(user, {"join": room})

    def assert_refused(self, user, data, status, part):
        refusal = self.world.refusal(user, data)
        self.assertEqual(refusal.status, status, f"{data!r}: {refusal.data}")
        self.assertIn(part, refusal.data)

    # join

    def test_first_to_join_makes_the_room(self):
        sends = self.world.sends("alice", {"join": "kitchen"})
        state = {"room": "kitchen", "joined": "alice", "at": AT, "members": ["alice"], "messages": 0}
        self.assertEqual(sends, [Send(None, state)])

    def test_joining_answers_with_the_state_and_tells_the_others(self):
        self.joined("alice", "eve")
        self.world.sends("alice", {"say": "hello"})
        state = {"room": "kitchen", "joined": "bob", "at": AT, "members": ["alice", "bob", "eve"], "messages": 1}
        event = {"room": "kitchen", "joined": "bob", "at": AT}
        self.assertEqual(self.world.sends("bob", {"join": "kitchen"}), [Send(None, state), Send(["alice", "eve"], event)])

    def test_joining_again_tells_nobody(self):
        self.joined("alice", "bob")
        sends = self.world.sends("bob", {"join": "kitchen"})
        self.assertEqual([send.to for send in sends], [None])
        self.assertEqual(sends[0].data["members"], ["alice", "bob"])

    def test_room_names_follow_the_rule(self):
        for name in ["k", "0", "a.b_c-d", "k" * 32]:
            self.world.sends("alice", {"join": name})
        for name in ["", " ", "Kitchen", "k" * 33, ".k", "-k", "k\n", "küche", "٣", None, 7, True, [], {}, ["kitchen"]]:
            self.assert_refused("alice", {"join": name}, "badRequest", "room's name")

    # leave

    def test_leaving_answers_and_tells_the_others(self):
        self.joined("alice", "bob")
        event = {"room": "kitchen", "left": "bob", "at": AT}
        self.assertEqual(self.world.sends("bob", {"leave": "kitchen"}), [Send(None, event), Send(["alice"], event)])
        self.assertEqual(self.world.members("alice", "kitchen"), ["alice"])

    def test_room_ends_with_its_last_member(self):
        self.joined("alice")
        self.world.sends("alice", {"say": "secret"})
        self.assertEqual([send.to for send in self.world.sends("alice", {"leave": "kitchen"})], [None])
        self.joined("eve")
        self.assertEqual(self.world.sends("eve", {"history": "kitchen"})[0].data["history"], [])

    # say

    def test_everyone_in_the_room_hears_it_including_the_speaker(self):
        self.joined("alice", "bob")
        self.joined("eve", room="cellar")
        sends = self.world.sends("alice", {"say": "hello", "room": "kitchen"})
        said = {"room": "kitchen", "from": "alice", "said": "hello", "at": AT}
        self.assertEqual(sends, [Send(["alice", "bob"], said)])

    def test_from_in_the_data_changes_nothing(self):
        self.joined("alice", "bob", "eve")
        honest = self.world.sends("eve", {"say": "pay eve"})
        forged = self.world.sends("eve", {"say": "pay eve", "from": "alice", "user": "alice", "at": "1999"})
        self.assertEqual(forged, honest)
        self.assertEqual(forged[0].data["from"], "eve")

    def test_texts_have_bounds(self):
        self.joined("alice")
        self.world.sends("alice", {"say": "x" * chat.TEXT_MAX})
        self.assert_refused("alice", {"say": "x" * (chat.TEXT_MAX + 1)}, "badRequest", "characters")
        for text in ["", " \n\t", None, 1, 1.5, True, [], ["hello"], {}]:
            self.assert_refused("alice", {"say": text}, "badRequest", "not empty")
        self.assert_refused("alice", {"say": "half \ud83d"}, "badRequest", "surrogate")
        self.world.sends("alice", {"say": "whole \U0001f600"})

    # which room

    def test_room_may_be_left_out_while_there_is_exactly_one(self):
        self.assert_refused("alice", {"say": "hello"}, "notMember", "no room")
        self.joined("alice")
        self.assertEqual(self.world.sends("alice", {"say": "hello"})[0].data["room"], "kitchen")
        self.assertEqual(self.world.sends("alice", {"who": None})[0].data["room"], "kitchen")
        self.assertEqual(self.world.sends("alice", {"history": None})[0].data["room"], "kitchen")
        self.joined("alice", room="cellar")
        for data in [{"say": "hello"}, {"who": None}, {"history": None}, {"leave": None}]:
            self.assert_refused("alice", data, "badRequest", "cellar, kitchen")
        self.world.sends("alice", {"leave": "cellar"})
        self.assertEqual(self.world.sends("alice", {"leave": None})[0].data["room"], "kitchen")

    def test_only_members_speak_and_look(self):
        self.joined("alice")
        for room in ["kitchen", "nowhere"]:
            for data in [{"say": "x", "room": room}, {"who": room}, {"history": room}, {"leave": room}]:
                self.assert_refused("eve", data, "notMember", f"you are not in {room}")
        self.assertEqual(self.world.members("alice", "kitchen"), ["alice"])

    # history

    def test_history_is_in_order_and_as_long_as_asked(self):
        self.joined("alice")
        for n in range(chat.HISTORY_DEFAULT + 5):
            self.world.sends("alice", {"say": str(n)})

        def said(data):
            return [entry["said"] for entry in self.world.sends("alice", data)[0].data["history"]]

        newest = [str(n) for n in range(chat.HISTORY_DEFAULT + 5)]
        self.assertEqual(said({"history": "kitchen"}), newest[5:])
        self.assertEqual(said({"history": "kitchen", "last": 1}), newest[-1:])
        self.assertEqual(said({"history": "kitchen", "last": chat.HISTORY_MAX}), newest)
        entry = self.world.sends("alice", {"history": "kitchen", "last": 1})[0].data["history"][0]
        self.assertEqual(entry, {"from": "alice", "said": newest[-1], "at": AT})

    def test_history_refuses_counts_that_make_no_sense(self):
        self.joined("alice")
        for last in [0, -1, chat.HISTORY_MAX + 1, 1.0, float("inf"), True, "3", None, []]:
            self.assert_refused("alice", {"history": "kitchen", "last": last}, "badRequest", "last must be")

    def test_history_forgets_the_oldest_and_fits_a_frame_at_the_worst(self):
        self.joined("alice")
        for n in range(chat.HISTORY_MAX + 1):
            self.world.sends("alice", {"say": "\x01" * (chat.TEXT_MAX - 1) + chr(0x4E00 + n)})
        history = self.world.sends("alice", {"history": "kitchen", "last": chat.HISTORY_MAX})[0].data["history"]
        self.assertEqual([entry["said"][-1] for entry in history], [chr(0x4E01 + n) for n in range(chat.HISTORY_MAX)])
        state = self.world.sends("alice", {"join": "kitchen"})[0].data
        self.assertEqual(state["messages"], chat.HISTORY_MAX)
        self.assertLess(len(json.dumps(history, ensure_ascii=False).encode()), 1 << 20)

    # limits

    def test_user_takes_only_so_many_rooms(self):
        for n in range(chat.ROOMS_PER_USER_MAX):
            self.joined("alice", room=f"r{n}")
        self.assert_refused("alice", {"join": "one-more"}, "full", "leave one")
        self.joined("alice", room="r0")  # being there already, she takes no more
        self.world.sends("alice", {"leave": "r0"})
        self.joined("alice", room="one-more")

    def test_rooms_are_bounded_but_those_there_are_stay_open(self):
        for n in range(chat.ROOMS_MAX):
            self.joined(f"user{n // chat.ROOMS_PER_USER_MAX}", room=f"r{n}")
        self.assert_refused("eve", {"join": "one-more"}, "full", "rooms already")
        self.joined("eve", room="r0")
        self.world.sends("user0", {"leave": "r1"})
        self.joined("eve", room="one-more")

    def test_members_of_a_room_are_bounded(self):
        for n in range(chat.MEMBERS_MAX):
            self.joined(f"user{n}")
        self.assert_refused("eve", {"join": "kitchen"}, "full", "kitchen is full")
        self.joined("user0")
        self.world.sends("user1", {"leave": "kitchen"})
        self.joined("eve")

    # mistakes

    def test_whatever_is_no_request_is_answered_with_the_usage(self):
        for data in [None, True, 0, 1e999, "join", [], ["join", "kitchen"], {}, {"JOIN": "kitchen"}, {"": None},
                     {"room": "kitchen"}, {"join": "kitchen", "leave": "kitchen"}]:
            self.assert_refused("alice", data, "badRequest", '{"join":ROOM}')

    def test_random_requests_are_refused_or_keep_the_promises(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        users = ["alice", "bob", "eve"]
        names = ["kitchen", "cellar", "hall", None, "No Room", 3]
        inside = {}  # who is where, kept by the test alone
        for step in range(5_000):
            user, name = rng.choice(users), rng.choice(names)
            data = rng.choice([{"join": name}, {"leave": name}, {"who": name}, {"history": name}, {"say": "x", "room": name}])
            try:
                sends = self.world.sends(user, data)
            except bester.Refusal:
                continue
            told = f"seed {seed}, step {step}: {user} {data} -> {sends}"
            room = sends[0].data["room"]
            before = set(inside.get(room, ()))
            if "join" in data:
                inside.setdefault(room, set()).add(user)
            else:
                self.assertIn(user, before, told)
            if "leave" in data:
                inside[room].discard(user)
            everyone = [user for send in sends for user in send.to or ()]
            expected = {"join": before - {user} if user not in before else (), "leave": before - {user}, "say": before}
            self.assertEqual(everyone, sorted(expected.get(next(iter(data)), ())), told)
            if "members" in sends[0].data:
                self.assertEqual(sends[0].data["members"], sorted(inside[room]), told)


if __name__ == "__main__":
    unittest.main()
