"""A session in a process of its own, fed by pipes: ``python stepping_worker.py FOLDER ENGINE``.

It imports what a device would, so that its memory is a device's. Messages both ways are a letter, a length and so many
bytes. It is sent frames (``f``, float32), and answers with its resident bytes (``r``) and the logits (``y``); ``s``
asks for the state (``s``), and ``l`` with a state goes on from it.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

HEAD = struct.Struct("<cq")


def send(out: BinaryIO, kind: bytes, content: bytes = b"") -> None:
    out.write(HEAD.pack(kind, len(content)))
    out.write(content)
    out.flush()


def receive(source: BinaryIO) -> tuple[bytes, bytes]:
    """The next letter and its bytes; two empty ones at the end."""
    head = source.read(HEAD.size)
    if len(head) < HEAD.size:
        return b"", b""
    kind, length = HEAD.unpack(head)
    return kind, source.read(length)


def resident() -> int:
    """Bytes that are resident of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    from edgeseq.devices.session import Session

    answers, source = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)
    session = Session(sys.argv[1], sys.argv[2])
    width, step = session.manifest.input.width, session.step
    while True:
        kind, content = receive(source)
        if kind == b"f":
            frames = np.frombuffer(content, np.float32).reshape(-1, width)
            logits = np.empty((len(frames), len(session.labels)), np.float32)
            for row, frame in zip(logits, frames, strict=True):
                row[:] = step(frame)
            send(answers, b"r", struct.pack("<q", resident()))
            send(answers, b"y", logits.tobytes())
            del frames, content, logits
        elif kind == b"s":
            send(answers, b"s", session.save())
        elif kind == b"l":
            session.restore(content)
        else:
            break


if __name__ == "__main__":
    main()
