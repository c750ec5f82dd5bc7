"""Spoken digits from wav files or a microphone: prints each word, as soon as the model is sure of it.

    python examples/keyword_spotting/spot.py examples/keyword_spotting/words/*.wav
    python examples/keyword_spotting/spot.py --microphone

Needs the base dependencies only (and sounddevice for a microphone); what it imports runs on the board as well.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cutter import Floats, Part, WordCutter, noise_before
from sound import at_rate, ears, in_hops, microphone, read_wav

import edgeseq
from edgeseq.data.dataset import SOUND
from edgeseq.devices.decide import Answer
from edgeseq.errors import EdgeseqError, Unsupported

SETTLE = 0.5  # seconds in which a microphone's noise is learned


class Word(NamedTuple):
    """A word at ``start`` seconds of a sound that lasted ``seconds``.

    ``broken``: why it is no word, "" if it is one. ``answer``: None of what is none and was not answered before that
    was known. ``used``: seconds of it that the answer took. ``hop_us``: microseconds for a hop, step and decision, the
    median.
    """

    start: float
    seconds: float
    answer: Answer | None
    used: float
    hop_us: float
    broken: str


class Spotter:
    """Answers each word of a sound, from its onset on, with a session of a model of single words."""

    def __init__(self, session: edgeseq.Session, on_answer: Callable[[float, Answer], None]) -> None:
        """``on_answer`` gets the start of a word in seconds and the answer, at its end or as soon as there is one.

        Raises:
            Unsupported: the model does not read sound, or does not answer segments.
        """
        manifest = session.manifest
        if manifest.task != "segment" or [channel.unit for channel in manifest.input.channels] != [SOUND]:
            channels = ", ".join(f"{channel.name} ({channel.unit})" for channel in manifest.input.channels)
            raise Unsupported(
                f"{manifest.name} reads {channels} and answers at each {manifest.task}: a model of single words is "
                "needed, such as edgeseq train fsdd makes"
            )
        self._session, self._on_answer, self._rate = session, on_answer, manifest.input.step_rate

    def words(self, hops: Iterable[Floats | None], cutter: WordCutter) -> Iterator[Word]:
        """Each word of the hops when it has ended; None is where samples were lost, and no word goes on behind it."""
        count = 0
        for hop in hops:
            if hop is None:
                yield from self._hear(cutter.lost(), count)
                continue
            count += 1
            yield from self._hear(cutter(hop), count)
        yield from self._hear(cutter.end(), count)

    def _hear(self, part: Part, count: int) -> Iterator[Word]:
        if part.begins:
            self._session.reset()
            self._start, self._length, self._used = count - len(part.hops), 0, 0
            self._answer: Answer | None = None
            self._times: list[float] = []
        for hop in part.hops:
            self._length += 1
            if self._answer is None:
                self._step(hop)
        if part.ends:
            if self._answer is None and not part.broken:
                self._tell(self._session.conclude())
            yield self._word(part.broken)

    def _step(self, hop: Floats) -> None:
        began = time.perf_counter()
        answer = self._session.decide(self._session.step(hop))
        self._times.append(time.perf_counter() - began)
        if answer.final:
            self._tell(answer)

    def _tell(self, answer: Answer) -> None:
        self._answer, self._used = answer, self._length
        self._on_answer(self._start / self._rate, answer)

    def _word(self, broken: str) -> Word:
        seconds, used = self._length / self._rate, self._used / self._rate
        hop_us = 1e6 * float(np.median(self._times))
        return Word(self._start / self._rate, seconds, self._answer, used, hop_us, broken)


def show_answer(start: float, answer: Answer) -> None:
    print(f"{start:7.2f} s   {answer.label}   {100 * answer.probability:3.0f} %", end="", flush=True)


def show_word(word: Word) -> None:
    """The rest of the line, when the word has ended."""
    if word.answer is None:
        print(f"{word.start:7.2f} s   -        ", end="")
    after = f" after {word.used:.2f} s" if word.answer and word.used < word.seconds else ""
    ended = f"no word: {word.broken}" if word.broken else f"word of {word.seconds:.2f} s"
    print(f"{after}   {ended}, {word.hop_us:.0f} us a hop", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("spot.py", description="Spoken digits from wav files or a microphone.")
    parser.add_argument("files", nargs="*", type=Path, metavar="WAV", help="recordings, of one word or of many")
    parser.add_argument("--microphone", action="store_true", help="listen, until Ctrl-C")
    parser.add_argument("--device", help="which microphone, of those that python -m sounddevice lists")
    parser.add_argument("--seconds", type=_duration, help="listen no longer than that")
    parser.add_argument("--model", default="digits", metavar="FOLDER", help="an exported model folder (digits)")
    parser.add_argument("--engine", help="litert, onnxruntime or numpy; the first that works here if not given")
    given = parser.parse_args(arguments)
    if bool(given.files) == given.microphone:
        parser.error("name wav files, or say --microphone")
    if given.files and (given.device or given.seconds):
        parser.error("--device and --seconds are of --microphone")
    try:
        spot(given)
    except EdgeseqError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print()
    return 0


def _duration(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def spot(given: argparse.Namespace) -> None:
    sounds = [(file, *read_wav(file)) for file in given.files]
    if given.microphone:
        ears()
    session = edgeseq.Session(given.model, given.engine)
    spotter, source = Spotter(session, show_answer), session.manifest.input
    size, rate = source.samples_per_step, source.step_rate
    print(session, flush=True)
    if given.microphone:
        blocks = microphone(source.rate, given.device, given.seconds)
        show_words(spotter.words(in_hops(blocks, size), WordCutter(rate, settle=SETTLE)))
    for file, recorded, recorded_rate in sounds:
        print(file)
        samples = at_rate(recorded, recorded_rate, source.rate)
        cutter = WordCutter(rate, noise=noise_before(samples, size, rate))
        show_words(spotter.words(in_hops([samples], size), cutter))


def show_words(words: Iterable[Word]) -> None:
    found = False
    for word in words:
        show_word(word)
        found = True
    if not found:
        print("   no word found: nothing stands out of the noise for long enough")


if __name__ == "__main__":
    sys.exit(main())
