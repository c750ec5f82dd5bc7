"""A watch recording through an exported model, one sample at a time: prints the answer whenever it changes.

    python examples/har_watch/stream.py har_watch          # which comes with edgeseq; or an exported FOLDER

Needs the base dependencies only; what it imports runs on the board as well.
"""

import sys

import edgeseq
from edgeseq.data import load


def main(folder: str) -> None:
    session = edgeseq.Session(folder)
    watch = load("spar_watch")
    held_out = session.manifest.split["test"]
    recording = next(r for r in watch.recordings if r.subject in held_out)
    truth = watch.labels[recording.y[0]]
    print(f"{session!r}\nsubject {recording.subject} does {truth}, {len(recording.x) / watch.rate:.0f} s")
    right = 0
    for t, frame in enumerate(recording.x):
        answer = session.decide(session.step(frame))
        right += answer.label == truth
        if answer.changed:
            print(f"{t / watch.rate:6.2f} s  {answer.label:4}  {answer.probability:.2f}")
    print(f"right in {100 * right / len(recording.x):.0f} % of the frames")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/har_watch/stream.py FOLDER")
    main(sys.argv[1])
