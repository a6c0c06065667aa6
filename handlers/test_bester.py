"""The module python/bester.py: handlers written with it, in processes of their own, and its informer with a server that is ours."""

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import HERE, SECONDS_MAX, TOUCHY, Asker, Informer, Line, Process, frame

sys.path.append(str(HERE / "python"))
import bester

PYTHON = [sys.executable, "-B", "-c"]
HEAD = f"import sys\nsys.path.append({str(HERE / 'python')!r})\nimport bester, os, threading\n"


def program(code):
    return [*PYTHON, HEAD + textwrap.dedent(code)]


def plain(code, **options):
    return Process(*program(code), **options)


def asker(code, **options):
    return Asker(*program(code), **options)


class AnswersTest(unittest.TestCase):
    """What answers look like on the wire."""

    def test_commands(self):
        for answer, expected in [
            (bester.reply({"a": 1.5}), b'{"header":{"status":"0","command":"reply"},"payload":{"data":{"a":1.5}}}'),
            (
                bester.send(["alice", "bob"], None),
                b'{"header":{"status":"0","command":"sendClients","commandData":["alice","bob"]},"payload":{"data":null}}',
            ),
            (bester.send("bob", 1), b'{"header":{"status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":1}}'),
            (
                bester.send((n for n in "ab"), 1),
                b'{"header":{"status":"0","command":"sendClients","commandData":["a","b"]},"payload":{"data":1}}',
            ),
            (
                bester.send_servers("b.example", 1),
                b'{"header":{"status":"0","command":"sendServers","commandData":["b.example"]},"payload":{"data":1}}',
            ),
            (
                bester.hand_on("audit", ["x"]),
                b'{"header":{"status":"0","command":"sendHandler","commandData":"audit"},"payload":{"data":["x"]}}',
            ),
            (bester.nothing(), b'{"header":{"status":"0","command":"none"}}'),
            (None, b'{"header":{"status":"0","command":"none"}}'),
            ([], b'{"header":{"status":"0","commands":[]}}'),
            ([bester.reply(1)], b'{"header":{"status":"0","command":"reply"},"payload":{"data":1}}'),
            (
                [bester.reply(1), bester.nothing(), bester.send("bob", 2)],
                b'{"header":{"status":"0","commands":[{"command":"reply","payload":{"data":1}},{"command":"none"},'
                b'{"command":"sendClients","commandData":["bob"],"payload":{"data":2}}]}}',
            ),
            (
                bester.send("bob", 1, offline="queue"),
                b'{"header":{"status":"0","command":"sendClients","commandData":["bob"],"offline":"queue"},"payload":{"data":1}}',
            ),
            (
                [bester.reply(1, offline="drop"), bester.send("bob", 2, "queue"), bester.reply(3)],
                b'{"header":{"status":"0","commands":[{"command":"reply","offline":"drop","payload":{"data":1}},'
                b'{"command":"sendClients","commandData":["bob"],"offline":"queue","payload":{"data":2}},'
                b'{"command":"reply","payload":{"data":3}}]}}',
            ),
            (bester.refuse("full"), b'{"header":{"status":"full"}}'),
            (bester.refuse("full", "come back"), b'{"header":{"status":"full"},"payload":{"data":"come back"}}'),
        ]:
            with self.subTest(expected=expected):
                self.assertEqual(bester._answer_body(answer, None), expected)
                self.assertEqual(json.loads(bester._answer_body(answer, 'm"1'))["header"]["inReplyTo"], 'm"1')

    def test_data_is_encoded_as_people_read_it(self):
        for data, expected in [
            ("grüß", '"grüß"'.encode()),
            ("\ud800", rb'"\ud800"'),
            (b" 1E2 ", b" 1E2 "),
            ([1, {"a": None}], b'[1,{"a":null}]'),
        ]:
            self.assertEqual(bester.reply(data).data, expected)

    def test_mistakes_show_where_they_are_made(self):
        for wrong in [float("inf"), float("nan"), object(), {1, 2}]:
            with self.subTest(wrong=wrong), self.assertRaises((ValueError, TypeError)):
                bester.reply(wrong)
        for status in ("0", "good", "ok"):
            with self.assertRaises(ValueError):
                bester.refuse(status)
        for wrong in ("keep", "Queue", "", True):
            with self.subTest(wrong=wrong), self.assertRaises(ValueError):
                bester.send("bob", 1, offline=wrong)
        for wrong in [{"a": 1}, "text", 7, True, [1], [bester.refuse("no"), bester.reply(1)]]:
            with self.subTest(wrong=wrong), self.assertRaises(TypeError):
                bester._answer_body(wrong, None)

    def test_manual_names_what_there_is(self):
        for name in set(re.findall(r"\b(?:bester\.)([a-zA-Z_]+)", bester.__doc__)) | set(bester.__all__):
            self.assertTrue(hasattr(bester, name), name)


class PlainTest(unittest.TestCase):
    def test_prints_and_children_do_not_touch_the_frames(self):
        noisy = """
            import subprocess
            print("too early")
            def handle(message):
                print("stray print")
                os.write(1, b"stray write\\n")
                subprocess.run(["echo", "stray child"], check=True)
                subprocess.run(["cat"], check=True)  # would read our frames
                try:
                    input()
                except EOFError:
                    print("nothing to read")
                return bester.reply(message.raw)
            bester.serve(handle)
        """
        with plain(noisy) as handler:
            handler.write(frame(b"1") + frame(b"2"))
            for data in (b"1", b"2"):
                self.assertEqual(json.loads(handler.frame())["payload"]["data"], int(data))
            self.assertEqual(handler.finish(), (b"", 0), handler.log())
            for word in ("too early", "stray print", "stray write", "stray child", "nothing to read"):
                self.assertIn(word, handler.log())

    def test_prints_are_in_the_log_at_once(self):
        with plain("bester.serve(lambda message: print('seen', message.data))") as handler:
            handler.write(frame(b"1"))
            handler.frame()
            self.assertEqual(handler.log(), "seen 1\n")

    def test_exceptions_cost_one_message(self):
        code = """
            def handle(message):
                what = message.data
                if what == "raise": raise KeyError("oops")
                if what == "refuse": raise bester.refuse("no", "not today")
                if what == "return": return {"a": 1}
                if what == "infinite": return bester.reply(float("inf"))
                if what == "unexplained": return bester.refuse("no", object())
                if what == "later": return bester.LATER
                if what == "twice": message.answer(bester.reply(1)); return bester.reply(2)
                if what == "then": message.answer(None, then=print)
                return bester.reply(what)
            bester.serve(handle)
        """
        internal = {"status": "internal"}
        with plain(code) as handler:
            for what, header, log in [
                ("raise", internal, "KeyError: 'oops'"),
                ("refuse", {"status": "no"}, ""),
                ("return", internal, "{'a': 1} is no answer"),
                ("infinite", internal, "ValueError"),
                ("unexplained", internal, "not JSON serializable"),
                ("later", internal, "LATER needs an envelope"),
                ("twice", {"status": "0", "command": "reply"}, "answered already"),
                ("then", internal, "only with an envelope"),
                ("x" * (4 << 20), internal, "is too long"),
                ("fine", {"status": "0", "command": "reply"}, ""),
            ]:
                with self.subTest(what=what[:20]):
                    handler.write(frame(json.dumps(what).encode()))
                    self.assertEqual(json.loads(handler.frame())["header"], header)
                    handler.wait_for(log)  # an answer that is one too many is told after the first
            self.assertEqual(handler.finish(), (b"", 0), handler.log())

    def test_data_is_decoded(self):
        code = "bester.serve(lambda message: bester.reply([type(message.data).__name__, repr(message.data)[:20]]))"
        with plain(code) as handler:
            for data, expected in [
                (b'{"a" : [1, null]}', ["dict", "{'a': [1, None]}"]),
                (b"9" * 4_300, ["int", "9" * 20]),
                (b"9" * 4_301, ["float", "inf"]),
                (b"-" + b"9" * 900_000, ["float", "-inf"]),
                (b"1e999", ["float", "inf"]),
                (b"[" * 1_000 + b"]" * 1_000, ["list", "[" * 20]),
                (b"oops", None),
                (b"\xff", None),
            ]:
                with self.subTest(data=data[:50]):
                    handler.write(frame(data))
                    self.assertEqual(
                        json.loads(handler.frame())["payload"]["data"], expected or "the handler has made a mistake; its log says which"
                    )

    def test_message_has_no_sender(self):
        code = "bester.serve(lambda m: bester.reply([m.local_user, m.user, m.scope, m.verified, m.message_id, m.id, m.type, m.hops]))"
        with plain(code) as handler:
            handler.write(
                frame(b'{"header":{"messageId":"m","from":{"scope":"client","user":"alice","verified":true}},"payload":{"data":1}}')
            )
            self.assertEqual(json.loads(handler.frame())["payload"]["data"], [None, None, None, False, None, None, None, 0])

    def test_large_frames(self):
        data = b'"' + b"x" * 20_000_000 + b'"'
        with plain("bester.serve(lambda message: bester.reply(message.raw), answer_bytes_max=1 << 25)") as handler:
            writer = threading.Thread(target=handler.write, args=(frame(data),))
            writer.start()
            prefix = handler.read(4)
            answer = handler.read(int.from_bytes(prefix, "little"))
            writer.join()
            self.assertTrue(answer.endswith(data + b"}}"))
            self.assertEqual(handler.finish(), (b"", 0), handler.log())

    def test_frame_that_cannot_be_meant_ends_it_with_a_reason(self):
        for framing, sent in [("length", b"\1\1\0\0xxxx"), ("lines", b"x" * 300)]:
            with self.subTest(framing=framing), plain(f"bester.serve(print, framing={framing!r}, frame_bytes_max=256)") as handler:
                handler.write(sent)
                self.assertEqual(handler.finish(), (b"", 1))
                self.assertIn("cannot be one of the server's", handler.log())
                self.assertNotIn("Traceback", handler.log())

    def test_end_of_input_and_torn_frames_are_a_good_end(self):
        whole = frame(b'"hi"')
        for cut in range(len(whole)):
            with self.subTest(cut=cut), plain("bester.serve(lambda m: None)\nprint('bye')") as handler:
                handler.write(whole[:cut])
                self.assertEqual(handler.finish(), (b"", 0))
                self.assertEqual(handler.log(), "bye\n")

    def test_server_that_is_gone_is_a_good_end(self):
        with plain("bester.serve(lambda message: bester.reply(1))") as handler:
            handler.source.close()
            handler.write(frame(b"1"))
            self.assertEqual((handler.process.wait(SECONDS_MAX), handler.log()), (0, ""))

    def test_sigterm_ends_it_in_good_order(self):
        code = """
            import time
            def handle(message):
                print("working", flush=True)
                time.sleep(60)
            try:
                bester.serve(handle)
            finally:
                print("cleaned up")
        """
        with plain(code) as handler:
            handler.write(frame(b"1"))
            handler.wait_for("working")
            handler.process.send_signal(signal.SIGTERM)
            self.assertEqual(handler.process.wait(SECONDS_MAX), 0, handler.log())
            self.assertIn("cleaned up", handler.log())

    def test_program_that_must_not_be_started_again_says_so(self):
        with plain("bester.serve(lambda message: sys.exit(bester.DO_NOT_RESTART))") as handler:
            handler.write(frame(b"1"))
            self.assertEqual(handler.process.wait(SECONDS_MAX), 125)

    def test_push_and_wrong_arguments_are_explained(self):
        with self.assertRaisesRegex(RuntimeError, r"Informer\(\)\.push"):
            bester.push(bester.reply(1))
        for wrong in [{"framing": "line"}, {"transport": "tcp"}, {"transport": "unix"}, {"path": "x"}]:
            with self.assertRaises(ValueError):
                bester.serve(print, **wrong)


class EnvelopeTest(unittest.TestCase):
    def test_what_clients_write_is_no_envelope(self):
        code = "bester.serve(lambda message: bester.reply(1), envelope=True)"
        with plain(code, BESTER_TYPE="x") as handler:
            self.assertEqual(handler.process.wait(SECONDS_MAX), bester.DO_NOT_RESTART)
            self.assertIn('"envelope": true', handler.log())
        with asker(code, BESTER_TYPE="x", BESTER_ENVELOPE="1") as handler:
            self.assertEqual(handler.ask("alice", 1)[1], 1)

    def test_message_says_where_it_comes_from(self):
        code = """
            def handle(m):
                return bester.reply([m.local_user, m.user, m.scope, m.server, m.session, m.verified, m.handler, m.type, m.id, m.hops])
            bester.serve(handle, envelope=True)
        """
        with asker(code) as handler:
            client = ["alice", "alice", "client", "a.example", 17, True, None, "chat", "c", 0]
            self.assertEqual(handler.ask("alice", 1)[1], client)
            # Whoever is not vouched for is nobody.
            for origin in [
                {"verified": False},
                {"verified": 1},
                {"scope": "server", "server": "b.example"},
                {"scope": "handler", "type": "x"},
            ]:
                self.assertEqual(handler.ask("alice", 1, **origin)[1][0], None, origin)
            pushed = {"scope": "handler", "type": "presence", "server": "a.example", "verified": True}
            request = {"header": {"messageId": "m", "from": pushed, "hops": 1}, "payload": {"type": "chat", "data": 1}}
            handler.write(frame(json.dumps(request).encode()))
            self.assertEqual(handler.gets()[1], [None, None, "handler", "a.example", None, True, "presence", "chat", None, 1])

    def test_message_says_which_other_server_it_comes_from(self):
        code = """
            def handle(m):
                return bester.reply([m.peer, m.peer_user, m.local_user, m.scope, m.user, m.server, m.session, m.verified, m.hops])
            bester.serve(handle, envelope=True)
        """
        other = {"scope": "server", "server": "b.example", "session": None}
        with asker(code) as handler:
            known = ["b.example", "alice@b.example", None, "server", "alice", "b.example", None, True, 1]
            self.assertEqual(handler.ask("alice", 1, hops=1, **other)[1], known)
            self.assertEqual(handler.ask(None, 1, hops=8, **other)[1], ["b.example", None, None, "server", None, "b.example", None, True, 8])
            for verified in (False, 1, "true", None):
                header, said = handler.ask("alice", 1, **{**other, "verified": verified})
                self.assertEqual(said, [None, None, None, "server", "alice", "b.example", None, False, 0], verified)
            # A user of this server is of no other one, and neither is a handler.
            self.assertEqual(handler.ask("alice", 1)[1][:3], [None, None, "alice"])
            self.assertEqual(handler.ask("alice", 1, scope="handler", type="x")[1][:3], [None, None, None])

    def test_raw_is_byte_for_byte(self):
        with asker("bester.serve(lambda message: bester.reply(message.raw), envelope=True)") as handler:
            for data in TOUCHY + [b'{"payload":{"data":2}}', b'"}},"', b"[ ]"]:
                handler.sends("alice", data)
                stripped = data.strip(b" ")
                self.assertTrue(handler.frame().endswith(b'"payload":{"data":' + stripped + b"}}"), data[:50])
            # However the envelope is written.
            other = b' {"payload" : { "id":"a", "data" :\n[1.0] , "type":"t"} ,"header":{"from":{},"messageId":"m"}, "data": 7}'
            handler.write(frame(other))
            self.assertTrue(handler.frame().endswith(b'"payload":{"data":[1.0]}}'))

    def test_answers_may_come_later_and_in_any_order(self):
        code = """
            held = []
            def handle(message):
                held.append(message)
                if len(held) < 5:
                    return bester.LATER
                def answer_all():
                    for message in reversed(held):
                        message.answer(bester.reply(message.data))
                threading.Thread(target=answer_all).start()
                return bester.LATER
            bester.serve(handle, envelope=True)
        """
        with asker(code) as handler:
            ids = [handler.sends("alice", n) for n in range(5)]
            answers = [handler.gets() for _ in ids]
            self.assertEqual([header["inReplyTo"] for header, _ in answers], ids[::-1])
            self.assertEqual([data for _, data in answers], [4, 3, 2, 1, 0])
            self.assertEqual(handler.finish(), (b"", 0), handler.log())

    def test_many_threads_answer_at_once(self):
        code = """
            from concurrent.futures import ThreadPoolExecutor
            pool = ThreadPoolExecutor(8)
            def handle(message):
                pool.submit(lambda: message.answer(bester.reply([message.data, "x" * 100_000])))
                return bester.LATER
            bester.serve(handle, envelope=True)
        """
        with asker(code) as handler:
            ids = {handler.sends("alice", n) for n in range(200)}
            answers = [handler.gets() for _ in range(200)]
            self.assertEqual({header["inReplyTo"] for header, _ in answers}, ids)
            self.assertEqual(sorted(data[0] for _, data in answers), list(range(200)))

    def test_second_answer_is_an_error_and_not_sent(self):
        code = """
            def handle(message):
                message.answer(bester.reply("first"))
                message.answer(bester.reply("second"))
            bester.serve(handle, envelope=True)
        """
        with asker(code) as handler:
            self.assertEqual(handler.ask("alice", 1)[1], "first")
            self.assertEqual(handler.finish(), (b"", 0))
            self.assertIn("answered already", handler.log())

    def test_answers_that_are_owed_at_the_end_are_given_or_given_up(self):
        code = """
            bester.END_SECONDS = float(sys.argv[1])
            def handle(message):
                if message.data == "soon":
                    threading.Timer(0.2, lambda: message.answer(bester.reply("done"))).start()
                return bester.LATER
            bester.serve(handle, envelope=True)
        """
        with Asker(*program(code), "20") as handler:
            handler.sends("alice", "soon")
            handler.sink.close()
            self.assertEqual(handler.gets()[1], "done")
            self.assertEqual(handler.process.wait(10), 0, handler.log())
        with Asker(*program(code), "0.1") as handler:
            handler.sends("alice", "never")
            self.assertEqual(handler.finish(), (b"", 0))

    def test_push_speaks_without_being_asked(self):
        code = """
            def handle(message):
                bester.push(bester.send("bob", message.data), bester.hand_on("audit", 1))
                bester.push(bester.send("carol", message.data))
            bester.serve(handle, envelope=True)
        """
        with asker(code) as handler:
            message_id = handler.sends("alice", "hi")
            first, second, answer = handler.gets(), handler.gets(), handler.gets()
            self.assertEqual(first[0].keys(), {"status", "commands"})
            self.assertEqual([each["command"] for each in first[0]["commands"]], ["sendClients", "sendHandler"])
            self.assertEqual(second, ({"status": "0", "command": "sendClients", "commandData": ["carol"]}, "hi"))
            self.assertEqual(answer[0], {"status": "0", "inReplyTo": message_id, "command": "none"})

    def test_outcomes_come_back_to_who_asked(self):
        code = """
            def handle(message):
                def then(outcome):
                    if message.data == "oops": raise KeyError("in then")
                    bester.push(bester.reply(list(outcome)))
                if message.data == "answer":
                    message.answer(bester.send("bob", 1), then=then)
                else:
                    bester.push(bester.send("bob", 1), then=then)
            bester.serve(handle, envelope=True)
        """
        counts = {"messageId": "x", "delivered": 1, "queued": 2, "offline": 1, "unknown": 0, "refused": 0}
        good = {"data": {**counts, "names": {"offline": ["eve"], "unknown": [], "refused": []}}}
        with asker(code) as handler:
            for data in ("answer", "push", "oops"):
                message_id = handler.sends("alice", data)
                header, _ = handler.gets()
                identity = header.pop("id")
                if data != "answer":
                    self.assertEqual(handler.gets()[0]["inReplyTo"], message_id)
                else:
                    self.assertEqual(header.pop("inReplyTo"), message_id)
                self.assertEqual(header, {"status": "0", "command": "sendClients", "commandData": ["bob"]})
                report = {"header": {"status": "good", "messageType": "statusReport"}, "payload": {**good, "type": "chat", "id": identity}}
                handler.write(frame(json.dumps(report).encode()) * 2)  # the second one means nothing any more
                if data != "oops":
                    self.assertEqual(handler.gets()[1], [None, None, 1, 2, ["eve"], [], []])
            handler.sends("alice", "push")
            identity = handler.gets()[0]["id"]
            handler.gets()
            bad = {"status": "bad", "messageType": "statusReport", "reason": "undelivered", "temporary": True}
            data = {"message": "full", "refused": 1, "names": {"offline": [], "unknown": [], "refused": ["bob"]}}
            report = {"header": bad, "payload": {"data": data, "id": identity}}
            handler.write(frame(json.dumps(report).encode()))
            self.assertEqual(handler.gets()[1], ["undelivered", "full", 0, 0, [], [], ["bob"]])
            handler.sends("alice", "push")
            identity = handler.gets()[0]["id"]
            handler.gets()
            report = {"header": bad, "payload": {"data": {"message": "nobody"}, "id": identity}}
            handler.write(frame(json.dumps(report).encode()))
            self.assertEqual(handler.gets()[1], ["undelivered", "nobody", 0, 0, [], [], []])
            self.assertEqual(handler.finish(), (b"", 0), handler.log())
            self.assertIn("in then", handler.log())

    def test_outcomes_that_may_be_awaited_are_bounded(self):
        code = """
            bester.OUTCOMES_MAX = 3
            def handle(message):
                try:
                    message.answer(None, then=print)
                    bester.push(bester.reply("x" * (5 << 20)), then=print)
                except RuntimeError as error:
                    return bester.refuse("full", str(error))
                except ValueError:
                    pass  # what was not written is not waited for
            bester.serve(handle, envelope=True)
        """
        with asker(code) as handler:
            statuses = [handler.ask("alice", 1)[0]["status"] for _ in range(4)]
            self.assertEqual(statuses, ["0", "0", "0", "full"])

    def test_frames_of_later_days_are_skipped(self):
        with asker("bester.serve(lambda message: bester.reply(1), envelope=True)") as handler:
            for later in [{"header": {}}, {"header": {"messageType": "weatherReport"}}, {"header": {"messageType": "statusReport"}}]:
                handler.write(frame(json.dumps(later).encode()))
            self.assertEqual(handler.ask("alice", 1)[1], 1)
            self.assertEqual(handler.log().count("not known here"), 3, handler.log())

    def test_configuration_without_envelope_is_told_and_not_tried_again(self):
        for data in [
            b"",
            b"{",
            b"7",
            b'"secret"',
            b"[]",
            b"{}",
            b'{"header":null}',
            b'{"header":[]}',
            b"\xff",
            b'{"header":{"messageId":"m"}}',
        ]:
            with self.subTest(data=data), asker("bester.serve(print, envelope=True)") as handler:
                handler.write(frame(data))
                self.assertEqual(handler.process.wait(SECONDS_MAX), bester.DO_NOT_RESTART)
                self.assertIn('"envelope": true', handler.log())
                self.assertNotIn("secret", handler.log())

    def test_background_may_push_and_its_failure_ends_the_process(self):
        code = """
            go = threading.Event()
            def beside():
                bester.push(bester.send("bob", "tick"))
                go.wait()
                raise KeyError("in the background")
            bester.serve(lambda message: go.set(), envelope=True, background=beside)
        """
        with asker(code) as handler:
            self.assertEqual(handler.gets(), ({"status": "0", "command": "sendClients", "commandData": ["bob"]}, "tick"))
            self.assertEqual(handler.ask("alice", 1)[0]["command"], "none")
            self.assertEqual(handler.process.wait(SECONDS_MAX), 1)
            self.assertIn("in the background", handler.log())

    def test_several_may_run_in_the_background(self):
        code = """
            met = threading.Barrier(2)
            def beside(name):
                met.wait(20)
                bester.push(bester.send(name, "here"))
            bester.serve(lambda message: None, envelope=True, background=[lambda: beside("bob"), lambda: beside("carol")])
        """
        with asker(code) as handler:
            self.assertEqual({handler.gets()[0]["commandData"][0] for _ in range(2)}, {"bob", "carol"})

    def test_background_that_fails_at_the_end_does_no_harm(self):
        code = """
            bester.GRACE_SECONDS = 600
            ends, failing, wait = threading.Event(), threading.Event(), bester._ended.wait
            def beside():
                ends.wait()
                raise KeyError("in the background")
            def wait_for_the_end(seconds):
                failing.set()
                return wait(seconds)
            bester._ended.wait = wait_for_the_end
            def handle(message):
                ends.set()
                failing.wait()
            bester.serve(handle, envelope=True, background=beside)
        """
        with asker(code) as handler:
            handler.sends("alice", 1)
            rest, code = handler.finish()
            self.assertEqual((code, handler.log()), (0, ""))


class TransportTest(unittest.TestCase):
    def test_lines(self):
        with plain("bester.serve(lambda message: bester.reply(message.raw + b'\\n\\r\\n'), framing='lines')") as handler:
            for data in TOUCHY:
                data = data.replace(b"\n", b" ")
                handler.write(data + b"\n")
                self.assertEqual(handler.line(), b'{"header":{"status":"0","command":"reply"},"payload":{"data":' + data + b"   }}\n")
            handler.write(b'"torn')
            self.assertEqual(handler.finish(), (b"", 0), handler.log())

    def test_lines_with_envelopes(self):
        with asker("bester.serve(lambda message: bester.reply(message.user), envelope=True, framing='lines')") as handler:
            message_id, request = handler.envelope("alice", b"1")
            handler.write(request[4:] + b"\n")
            answer = json.loads(handler.line())
            self.assertEqual((answer["header"]["inReplyTo"], answer["payload"]["data"]), (message_id, "alice"))

    def test_socket_on_descriptor_3(self):
        code = """
            def handle(message):
                print("stray print")
                os.write(1, b"stray write\\n")
                return bester.reply(message.user)
            bester.serve(handle, envelope=True, transport="socket")
        """
        with asker(code, on_descriptor_3=True) as handler:
            for user in ("alice", "bob"):
                self.assertEqual(handler.ask(user, 1)[1], user)
            handler.sink.close()
            self.assertEqual(handler.process.wait(SECONDS_MAX), 0)
            self.assertIn("stray print", handler.log())
            self.assertIn("stray write", handler.log())

    def test_socket_that_is_not_there_is_told(self):
        with plain("bester.serve(print, transport='socket')") as handler:
            self.assertEqual(handler.finish(), (b"", bester.DO_NOT_RESTART))
            self.assertIn('"transport": "socket"', handler.log())


class Listening:
    """A handler that listens."""

    def __init__(self, code):
        self.folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self.folder.name, "h.sock"))
        self.process = Process(*program(code), self.path)

    def __enter__(self):
        self.process.__enter__()
        return self

    def __exit__(self, *_):
        self.process.__exit__()
        self.folder.cleanup()

    def connect(self):
        end = time.monotonic() + SECONDS_MAX
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self.path)
                return Line(connection)
            except (FileNotFoundError, ConnectionRefusedError):  # not yet, as for a server
                connection.close()
                assert time.monotonic() < end and self.process.process.poll() is None, self.process.log()

    def terminate(self):
        self.process.process.send_signal(signal.SIGTERM)
        return self.process.process.wait(SECONDS_MAX)


class UnixTest(unittest.TestCase):
    ECHO = "bester.END_SECONDS = 600; bester.serve(lambda message: bester.reply(message.raw), transport='unix', path=sys.argv[1])"

    def echoed(self, data):
        return {"header": {"status": "0", "command": "reply"}, "payload": {"data": data}}

    def test_one_connection_for_each_message_and_one_for_all(self):
        with Listening(self.ECHO) as handler:
            for n in range(20):
                with handler.connect() as line:
                    line.says(n)
                    self.assertEqual(json.loads(line.frame()), self.echoed(n))
            with handler.connect() as persistent, handler.connect() as another:
                for n in range(20):
                    for line in (persistent, another):
                        line.says(n)
                    for line in (persistent, another):
                        self.assertEqual(json.loads(line.frame()), self.echoed(n))
                # Connections that wait for a message do not keep it from ending.
                self.assertEqual(handler.terminate(), 0, handler.process.log())
            self.assertEqual(handler.process.log(), "")
            self.assertFalse(Path(handler.path).exists())

    def test_function_is_called_by_one_thread_at_a_time(self):
        code = """
            import time
            free = threading.Lock()
            def handle(message):
                assert free.acquire(blocking=False)
                time.sleep(0.001)
                free.release()
                return bester.reply(1)
            bester.serve(handle, transport="unix", path=sys.argv[1])
        """
        with Listening(code) as handler:
            lines = [handler.connect() for _ in range(8)]
            for line in lines:
                for _ in range(20):
                    line.says(1)
            for line in lines:
                for _ in range(20):
                    self.assertEqual(json.loads(line.frame()), self.echoed(1))
                line.close()

    def test_sigterm_lets_what_is_under_way_finish(self):
        code = """
            import time
            def handle(message):
                print("working", flush=True)
                time.sleep(0.3)
                return bester.reply("done")
            bester.serve(handle, transport="unix", path=sys.argv[1])
        """
        with Listening(code) as handler, handler.connect() as line:
            line.says(1)
            handler.process.wait_for("working")
            handler.process.process.send_signal(signal.SIGTERM)
            self.assertEqual(json.loads(line.frame()), self.echoed("done"))
            self.assertEqual(handler.process.process.wait(SECONDS_MAX), 0, handler.process.log())

    def test_answer_may_come_later(self):
        code = """
            def handle(message):
                threading.Timer(0.05, lambda: message.answer(bester.reply(message.user))).start()
                return bester.LATER
            bester.serve(handle, envelope=True, transport="unix", path=sys.argv[1])
        """
        origin = {"scope": "client", "user": "alice", "server": "a", "verified": True, "session": 1}
        with Listening(code) as handler, handler.connect() as line:
            line.says({"header": {"messageId": "m", "from": origin, "hops": 0}, "payload": {"type": "t", "data": 1}})
            self.assertEqual(json.loads(line.frame())["payload"]["data"], "alice")

    def test_exit_in_the_function_ends_the_process(self):
        with Listening(
            "bester.serve(lambda message: sys.exit(125), transport='unix', path=sys.argv[1])"
        ) as handler, handler.connect() as line:
            line.says(1)
            self.assertEqual(handler.process.process.wait(SECONDS_MAX), 125)

    def test_socket_of_a_dead_handler_is_replaced_and_nothing_else(self):
        with Listening(self.ECHO) as handler:
            handler.connect().close()
            handler.process.process.kill()
            handler.process.process.wait()
            self.assertTrue(Path(handler.path).exists())
            run = program(self.ECHO) + [handler.path]
            first, handler.process = handler.process, Process(*run)
            first.__exit__()
            handler.connect().close()
            third = subprocess.run(run, stdin=subprocess.DEVNULL, capture_output=True)
            self.assertEqual(third.returncode, 1)
            self.assertIn(b"is in use", third.stderr)
            handler.connect().close()
        with tempfile.NamedTemporaryFile() as file:
            failed = subprocess.run(program(self.ECHO) + [file.name], stdin=subprocess.DEVNULL, capture_output=True)
            self.assertEqual(failed.returncode, 1)
            self.assertTrue(Path(file.name).exists())


class InformerTest(unittest.TestCase):
    """The module asks in a thread, and the test is the server."""

    def setUp(self):
        self.server = self.enter(Informer())
        self.pool = ThreadPoolExecutor(1)
        self.addCleanup(self.pool.shutdown)
        self.informer = self.enter(bester.Informer(self.server.path, timeout=SECONDS_MAX))

    def enter(self, manager):
        self.addCleanup(manager.__exit__, None, None, None)
        return manager.__enter__()

    def ask(self, function, *arguments):
        future = self.pool.submit(function, *arguments)
        return lambda: future.result(SECONDS_MAX)

    def test_questions(self):
        line = None
        for ask, question, answer, expected in [
            (self.informer.list_clients, {"type": "listClients"}, ["alice", "bob"], ["alice", "bob"]),
            (lambda: self.informer.is_client("alice"), {"type": "isClient", "data": "alice"}, True, True),
            (self.informer.server_info, {"type": "serverInfo"}, {"clientCount": "2"}, {"clientCount": "2"}),
            (self.informer.sessions, {"type": "sessions"}, [{"user": "alice", "session": 17}], [bester.Session("alice", 17)]),
        ]:
            result = self.ask(ask)
            line = line or self.enter(self.server.accept())  # one connection for all
            self.assertEqual(line.question(), question)
            line.answers(answer)
            self.assertEqual(result(), expected)
        self.ask(self.informer.quit)()
        self.assertEqual(line.frame(), b"")

    def test_refusals_are_exceptions_and_the_connection_stays(self):
        result = self.ask(self.informer.list_clients)
        line = self.enter(self.server.accept())
        line.question()
        line.says({"status": "1", "data": None, "message": "not today"})
        with self.assertRaisesRegex(bester.InformerError, "^not today$"):
            result()
        result = self.ask(self.informer.is_client, "bob")
        self.assertEqual(line.question(), {"type": "isClient", "data": "bob"})
        line.answers(False)
        self.assertEqual(result(), False)

    def test_push(self):
        result = self.ask(self.informer.push, bester.send(["bob"], {"a": 1}))
        line = self.enter(self.server.accept())
        answer = {"header": {"status": "0", "command": "sendClients", "commandData": ["bob"]}, "payload": {"data": {"a": 1}}}
        self.assertEqual(line.question(), {"type": "push", "data": answer})
        names = {"offline": ["bob"], "unknown": [], "refused": []}
        line.answers({"messageId": "m", "delivered": 0, "queued": 0, "offline": 1, "unknown": 0, "refused": 0, "names": names})
        self.assertEqual(result(), bester.Outcome(None, None, 0, 0, ["bob"], [], []))
        # It may have been done: nobody tries it again.
        result = self.ask(self.informer.push, bester.send(["bob"], 1))
        line.question()
        line.close()
        with self.assertRaises(ConnectionError):
            result()

    def test_connection_that_was_closed_is_opened_again(self):
        result = self.ask(self.informer.list_clients)
        line = self.server.accept()
        line.question()
        line.answers([])
        self.assertEqual(result(), [])
        line.close()
        result = self.ask(self.informer.list_clients)
        line = self.enter(self.server.accept())
        line.question()
        line.answers(["bob"])
        self.assertEqual(result(), ["bob"])

    def test_silence_is_an_error_and_a_late_answer_is_not_taken_for_another(self):
        informer = self.enter(bester.Informer(self.server.path, timeout=0.05))
        with self.assertRaises(OSError):
            informer.list_clients()
        late = self.enter(self.server.accept())
        self.assertEqual((late.question(), late.frame()), ({"type": "listClients"}, b""))  # it has hung up
        informer.timeout = SECONDS_MAX
        result = self.ask(informer.list_clients)
        line = self.enter(self.server.accept())
        line.question()
        line.answers(["fresh"])
        self.assertEqual(result(), ["fresh"])

    def test_nonsense_is_an_error(self):
        for nonsense in [frame(b"[]"), b"\xff\xff\xff\xff", b"\1\0"]:
            with self.subTest(nonsense=nonsense):
                result = self.ask(bester.Informer(self.server.path).list_clients)
                line = self.server.accept()
                line.question()
                line.connection.sendall(nonsense)
                line.connection.shutdown(socket.SHUT_WR)
                with self.assertRaises(ConnectionError):
                    result()
                line.close()

    def test_watching(self):
        changes = self.informer.watch()
        self.addCleanup(changes.close)
        result = self.ask(next, changes)
        line = self.enter(self.server.accept())
        self.assertEqual(line.question(), {"type": "watchClients"})
        line.answers(["carol", "alice"])
        self.assertEqual(result(), (["alice", "carol"], []))
        for type, user, expected in [
            ("online", "bob", (["bob"], [])),
            ("offline", "alice", ([], ["alice"])),
            ("online", "alice", (["alice"], [])),
        ]:
            line.says({"event": {"type": "online", "user": "carol"}})  # is known
            line.says({"event": {"type": "offline", "user": "nobody"}})
            line.says({"event": {"type": "sneezed", "user": "carol"}})
            line.says({"event": {"type": type, "user": user}})
            self.assertEqual(self.ask(next, changes)(), expected)
        # What happens while the connection is broken is not lost.
        line.close()
        result = self.ask(next, changes)
        again = self.enter(self.server.accept())
        again.question()
        again.answers(["alice", "dave"])
        self.assertEqual(result(), (["dave"], ["bob", "carol"]))
        again.says({"event": {"type": "offline", "user": "dave"}})
        self.assertEqual(self.ask(next, changes)(), ([], ["dave"]))

    def test_server_that_is_not_there_is_named(self):
        with self.assertRaisesRegex(ConnectionError, "/nowhere/informer.sock"):
            bester.Informer("/nowhere/informer.sock").list_clients()
        with self.assertRaisesRegex(ConnectionError, "/nowhere/informer.sock"):
            next(bester.Informer("/nowhere/informer.sock").watch())
        with plain("bester.Informer()") as handler:
            self.assertEqual(handler.finish(), (b"", 1))
            self.assertIn("BESTER_INFORMER is not set", handler.log())


if __name__ == "__main__":
    unittest.main()
