"""Messages that came twice or out of turn, by the numbers that their sender gave them."""

from __future__ import annotations

from edgeseq.signal.senders.message import Message

REMEMBERED = 1000  # numbers of a session


class Inbox:
    """The messages of one sender. Numbers count within a session; another session begins with other numbers."""

    def __init__(self) -> None:
        self.doubled = 0
        self._session = ""
        self._numbers: dict[int, None] = {}

    def take(self, message: Message) -> tuple[bool, bool]:
        """Whether a message is new, and whether a newer one has come already."""
        if message.session != self._session:
            self._session, self._numbers = message.session, {}
        if message.number is None:
            return True, False
        if message.number in self._numbers:
            self.doubled += 1
            return False, False
        late = bool(self._numbers) and message.number < max(self._numbers)
        self._numbers[message.number] = None
        while len(self._numbers) > REMEMBERED:
            del self._numbers[min(self._numbers)]
        return True, late
