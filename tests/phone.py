"""A phone with phyphox on it, as far as its answers go."""

from __future__ import annotations

import json
import math
import random
from urllib.parse import unquote

from edgeseq.signal.senders.phyphox import BUFFERS


class Phone:
    """An experiment as Android's app holds and answers it: eight digits, and all of it once after it was cleared."""

    def __init__(self, seed: int) -> None:
        self.random, self.measuring = random.Random(seed), True
        self.run, self.session, self.full = -1, 0, False
        self.lacking: set[str] = set()
        self.begin()

    def begin(self) -> None:
        """The experiment is cleared, and counts from 0."""
        self.run, self.full = self.run + 1, True
        self.time = self.random.uniform(0, 0.05)
        self.buffers: dict[str, list[float]] = {
            name: [] for clock, axes, _ in BUFFERS.values() for name in (clock, *axes)
        }

    def open(self) -> None:
        """Another experiment is opened, of which nobody has asked for anything."""
        self.begin()
        self.session, self.full = self.session + 1, False

    def measure(self, count: int) -> None:
        for _ in range(count):
            self.time += self.random.uniform(0.002, 0.03)
            for clock, axes, _ in BUFFERS.values():
                number = float(len(self.buffers[clock]))
                self.buffers[clock].append(float(f"{self.time:.7e}"))
                for name, value in zip(axes, (float(self.run), number, 0.0), strict=True):
                    self.buffers[name].append(value)

    def get(self, query: str) -> bytes:
        buffers = {}
        for part in query.split("&"):
            name, _, threshold = part.partition("=")
            if name in self.lacking:
                continue
            assert "=" in part
            if not threshold:
                buffers[name] = {"updateMode": "single", "buffer": self.buffers[name][-1:] or [None]}
                continue
            after, _, clock = unquote(threshold).partition("|")
            mode = "full" if self.full or after == "full" else "partial"
            since = -math.inf if mode == "full" else _nudged(float(after))
            held = zip(self.buffers[name], self.buffers[clock or name], strict=True)
            buffers[name] = {"updateMode": mode, "buffer": [value for value, time in held if time > since]}
        self.full = False
        return json.dumps(
            {"buffer": buffers, "status": {"session": str(self.session), "measuring": self.measuring}}
        ).encode()


def _nudged(threshold: float) -> float:
    return threshold + (10 ** math.floor(math.log10(threshold / 1e7)) if threshold else 0.0)
