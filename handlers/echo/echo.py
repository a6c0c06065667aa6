#!/usr/bin/env python3
"""Echo: whoever sends a message gets its data back, byte for byte. Copy it to start a handler of your own."""
import os
import sys

# Where bester.py is, which does all the talking to the server. Not needed once you have copied that beside your handler.
sys.path.append(os.path.join(os.path.dirname(__file__), "..", "python"))
import bester


def echo(message: bester.Message) -> bester.Command:
    return bester.reply(message.raw)  # raw is not decoded, so nothing in it can change on its way


bester.serve(echo)
