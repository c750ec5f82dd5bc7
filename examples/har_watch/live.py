"""A watch, live, as a library: a source hands messages to a hub, which calls you with each answer.

    python examples/har_watch/live.py              # har_watch, which comes with edgeseq; or an exported FOLDER

Here the source is a recording of somebody whom the model has never met, sent frame by frame as a watch would, as fast
as it is answered. Another source is another class of edgeseq.devices.live.sources. Prints each change of the answer
with its time in the stream and how long the step took. Needs the base dependencies only.
"""

import sys
import threading

from edgeseq.data import load
from edgeseq.devices.live.hub import Hub
from edgeseq.devices.live.sources.replay import Replay, frames_as_arrivals
from edgeseq.devices.live.wearer import Answered, Event
from edgeseq.events import streams
from edgeseq.folder import open_folder

SECOND = 1_000_000_000  # in the nanoseconds that times are in


def tell(name: str, event: Event) -> None:
    """Print a change of the answer, and a gap; the hub's one thread waits for this."""
    if not isinstance(event, Answered):
        print(f"{event.time / SECOND:7.2f} s  {event.why}: the state starts anew")
    elif event.answer.changed:
        label, probability = event.answer.label, event.answer.probability
        print(f"{event.time / SECOND:7.2f} s  {label:8} {100 * probability:3.0f} %  {event.step_ns / 1000:4.0f} us")


def main(folder: str) -> None:
    model = open_folder(folder)
    watch = load(model.manifest.data_stage.data)
    subject = model.manifest.split["test"][0]
    recording = streams(watch.only([subject])).recordings[0]  # all that the person did, one after another
    source = Replay(f"subject {subject}", frames_as_arrivals(recording.x, watch.rate, f"subject {subject}"), speed=0)
    print(f"{source.name} of {watch.name}, {len(recording.x) / watch.rate:.0f} s, through {model.manifest.name}")

    hub = Hub({model.manifest.name: model}, on_event=tell)
    try:
        source.run(lambda arrival: hub.put(arrival, wait=True), threading.Event(), print)
        hub.end()  # answers what has not been yet
        (seen,) = hub.look({})["streams"].values()
    finally:
        hub.close()
    step, frames = seen["step_us"], seen["counts"]["frames"]
    print(f"{frames:,} frames in {seen['engine']}; a step {step['p50']:.0f} us (p50), {step['p99']:.0f} us (p99)")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("usage: python examples/har_watch/live.py [FOLDER]")
    main(*sys.argv[1:] or ["har_watch"])
