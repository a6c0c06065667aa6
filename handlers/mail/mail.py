#!/usr/bin/env python3
"""Mail: texts to people, who need not be there. README.md beside this file shows what to send and what comes back.

Keeping what people who are away have not got yet is the server's work: "offline": "queue" in the configuration asks for it.
"""
from __future__ import annotations

import os
import re
import sys
from datetime import datetime, timezone

# Where bester.py is. Not needed once it is copied beside this file.
sys.path.append(os.path.join(os.path.dirname(__file__), "..", "python"))
import bester

TEXT_MAX = 2_000  # characters: a page; at the very worst 12 kB of JSON, so a mailbox of 8 MiB holds 600 of them
NAMES_MAX = 100  # of recipients; each costs a place in a mailbox on the disk
USAGE = 'send {"to":[NAME,...],"text":TEXT}, and nothing else'


def handle(message: bester.Message) -> bester.Answer:
    user, data = message.local_user, message.data
    if user is None:  # alice of another server is not our alice, and nobody could answer her
        return bester.refuse("notLocal", "only users of this server can send mail")
    if not isinstance(data, dict) or set(data) != {"to", "text"}:
        return bester.refuse("badRequest", USAGE)
    to, text = data["to"], data["text"]
    if not isinstance(to, list) or not to or not all(isinstance(name, str) for name in to):
        return bester.refuse("badRequest", "to is a list of names, of one at least")
    if len(to) > NAMES_MAX:
        return bester.refuse("badRequest", f"at most {NAMES_MAX} names, not {len(to)}")
    if not isinstance(text, str) or not text.strip():
        return bester.refuse("badRequest", "text is a text that is not empty")
    if len(text) > TEXT_MAX:
        return bester.refuse("badRequest", f"a text has at most {TEXT_MAX} characters, this one has {len(text)}")
    if re.search("[\ud800-\udfff]", text + "".join(to)):  # half a character: UTF-8 cannot write it, and many parsers choke on it
        return bester.refuse("badRequest", "half of a surrogate pair is in it")
    # From the clock of the server's machine: what is in it may be read days later.
    at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return bester.send(to, {"from": user, "to": to, "text": text, "at": at})


if __name__ == "__main__":
    bester.serve(handle, envelope=True)
