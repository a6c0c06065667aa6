"""A network of the kernel's between servers, each in a network namespace of its own, for scripts/federation-trial: here packets
get lost and not bytes, so that it is the kernel who sends again, waits and gives up. Only root may make one.

A namespace in the middle passes packets on between the others, or does not. What fault_proxy.py does with connections, to end
and to delay them, there is not here.
"""
from __future__ import annotations

import itertools
import os
import subprocess

from fault_proxy import THERE

PORT = 2224


def ip(*words):
    subprocess.run(["ip", *words], check=True, stdout=subprocess.DEVNULL)


class Middle:
    """What passes packets on."""

    def __init__(self):
        self.name = f"bester-{os.getpid()}"
        self.numbers = itertools.count(1)
        ip("netns", "add", self.name)
        ip("netns", "exec", self.name, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def close(self):
        ip("netns", "delete", self.name)


class Cable:
    """Between one server and the middle."""

    def __init__(self, middle):
        number = next(middle.numbers)
        self.middle, self.device = middle.name, f"to{number}"
        self.name = f"{middle.name}-{number}"
        self.number, here = f"10.77.{number}.2", f"10.77.{number}.1"
        self.address = self.listen = (self.number, PORT)
        self.prefix = ["ip", "netns", "exec", self.name]
        self.faults = []  # how each is undone
        ip("netns", "add", self.name)
        ip("link", "add", self.device, "netns", self.middle, "type", "veth", "peer", "name", "cable", "netns", self.name)
        for name, device, address in ((self.middle, self.device, here), (self.name, "cable", self.number)):
            ip("-n", name, "address", "add", f"{address}/30", "dev", device)
            ip("-n", name, "link", "set", device, "up")
        ip("-n", self.name, "link", "set", "lo", "up")
        ip("-n", self.name, "route", "add", "default", "via", here)

    def lead_to(self, target):
        """It always leads to the server."""

    def swallow(self, way):
        """All packets are lost."""
        if way == THERE:
            self._until_healed("route", "blackhole", self.number)
        else:
            self._until_healed("rule", "from", self.number, "blackhole")

    hold = swallow

    def throttle(self, way, bytes_per_second):
        """What is too much for the line is lost. Both ways have the same line."""
        for name, device in ((self.middle, self.device), (self.name, "cable")):
            line = ["tbf", "rate", f"{bytes_per_second}bps", "burst", "4000", "latency", "400ms"]
            self._tc(name, device, "add", *line)
            self.faults.append(lambda name=name, device=device: self._tc(name, device, "delete"))

    def meet(self, door):
        """What meets somebody who connects: "ignored" adds nothing to lost packets; otherwise the middle says that there is no way."""
        if door != "ignored":
            self._until_healed("route", "unreachable", self.number)

    def reset(self):
        """No connection ends by itself."""

    def heal(self):
        while self.faults:
            self.faults.pop()()

    def close(self):
        ip("netns", "delete", self.name)

    def _until_healed(self, what, *words):
        ip("-n", self.middle, what, "add", *words)
        self.faults.append(lambda: ip("-n", self.middle, what, "delete", *words))

    def _tc(self, name, device, what, *words):
        subprocess.run(["tc", "-n", name, "qdisc", what, "dev", device, "root", *words], check=True)
