"""Streams at work: the same answers as of the whole recording, whoever looks, and whatever else comes."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import msgspec
import pytest

from edgeseq.devices.engines import as_folder
from edgeseq.devices.live.hub import WEARERS, Hub, TooBusy
from edgeseq.devices.live.view import KEPT
from edgeseq.devices.live.wearer import Answered, Wearer, check_alike
from edgeseq.errors import InputError
from edgeseq.manifest import Channel, Input, Normalization
from edgeseq.signal.arrivals import Arrival, Decoders, read_capture, write_arrival
from edgeseq.signal.framer import Gap
from edgeseq.signal.readings import SECOND, G
from edgeseq.signal.senders.frames import line_of
from edgeseq.signal.senders.message import MAX_BYTES


def said(events):
    return [(event.answer.label, event.answer.probability) for event in events if isinstance(event, Answered)]


def streamed(models, arrivals, **options):
    """The events of each stream."""
    events: dict[str, list[object]] = {}
    hub = Hub(models, engine="numpy", on_event=lambda name, event: events.setdefault(name, []).append(event), **options)
    for arrival in arrivals:
        hub.put(arrival, wait=True)
    hub.end()
    hub.close()
    return events


def test_a_replayed_recording_gives_the_answers_of_the_whole_recording_frame_for_frame(models, arrivals, answers):
    (events,) = streamed(models, arrivals).values()
    assert said(events) == answers["har_watch"]


def test_a_capture_gives_the_same_answers_once_more_bit_for_bit(models, arrivals, tmp_path):
    disturbed = [
        arrival for number, arrival in enumerate(arrivals) if not 500 <= number < 520
    ]  # a hole that is bridged
    disturbed[700:740] = reversed(disturbed[700:740])
    file = tmp_path / "capture.jsonl"
    with file.open("wb") as capture:
        for arrival in disturbed:
            write_arrival(capture, arrival)
    (first,), (second,) = (streamed(models, each, reorder=1.0).values() for each in (disturbed, read_capture(file)))
    assert said(first) == said(second)
    assert len(first) == len(arrivals)
    assert sum(event.frame.bridged for event in first) == 20


def as_an_apple_watch_sends(recording, batch):
    """Wrist motion, in batches of Sensor Logger."""
    messages, payload = [], []
    for number, (ax, ay, az, wx, wy, wz) in enumerate(recording.x.astype(float).tolist()):
        values = {"rotationRateX": wx, "rotationRateY": wy, "rotationRateZ": wz}
        values |= {"accelerationX": ax, "accelerationY": ay, "accelerationZ": az + 1}
        values |= {"gravityX": 0.0, "gravityY": 0.0, "gravityZ": -1.0}
        payload.append({"name": "wrist motion", "time": 10**18 + number * 20_000_000, "values": values})
        if len(payload) == batch or number == len(recording.x) - 1:
            body = {"messageId": len(messages), "sessionId": "s", "deviceId": "wrist", "payload": payload[::-1]}
            messages.append(Arrival(len(messages), "sensor-logger", json.dumps(body).encode()))
            payload = []
    return messages


def test_a_watch_that_sends_batches_gives_the_answers_of_the_recording(models, recording, answers):
    (events,) = streamed(models, as_an_apple_watch_sends(recording, 10)).values()
    found, wanted = said(events), answers["har_watch"]
    assert len(found) == len(wanted)
    assert sum(a[0] == b[0] for a, b in zip(found, wanted, strict=True)) > 0.99 * len(wanted)  # gravity apart rounds


def test_messages_that_come_twice_and_out_of_turn_change_nothing(models, recording):
    messages = as_an_apple_watch_sends(recording, 10)
    disturbed = [copy for message in messages for copy in (message, message)]
    disturbed[20], disturbed[22] = disturbed[22], disturbed[20]
    (wanted,), (found,) = (streamed(models, each, reorder=0.5).values() for each in (messages, disturbed))
    assert said(found) == said(wanted)


def test_a_gap_begins_a_new_recording(models, arrivals, recording, answers):
    rows = recording.x.astype(float).tolist()
    bodies = [line_of(10**12 + arrival.time, row) for arrival, row in zip(arrivals, rows, strict=True)]
    later = [Arrival(arrival.time, "lines", body, "watch") for arrival, body in zip(arrivals, bodies, strict=True)]
    (events,) = streamed(models, [*arrivals, *later]).values()
    (gap,) = [event for event in events if isinstance(event, Gap)]
    assert "nothing came for" in gap.why
    assert said(events) == answers["har_watch"] * 2


def test_another_model_takes_over_as_if_it_had_heard_the_stream(models, arrivals, answers, hub):
    for arrival in arrivals[:1000]:
        hub.put(arrival, wait=True)
    hub.choose("watch", "har_watch_fp32")
    for arrival in arrivals[1000:]:
        hub.put(arrival, wait=True)
    hub.end()
    seen = hub.look({})["streams"]["watch"]
    assert seen["model"] == "har_watch_fp32"
    assert seen["counts"]["frames"] == len(arrivals)
    label, probability = answers["har_watch_fp32"][-1]
    assert seen["answer"]["label"] == label
    assert seen["answer"]["probability"] == pytest.approx(probability, abs=1e-3)


def test_what_cannot_be_chosen_is_refused_with_what_can(hub, arrivals):
    hub.put(arrivals[0], wait=True)
    with pytest.raises(InputError, match="har_watch_fp32"):
        hub.choose("watch", "har_watch_fp23")
    with pytest.raises(InputError, match="watch"):
        hub.choose("wach", "har_watch")


def test_a_look_has_only_what_is_new_and_no_more_than_is_kept(hub, arrivals):
    for arrival in arrivals:
        hub.put(arrival, wait=True)
    hub.choose("watch", "har_watch")  # behind all of them
    first = hub.look({})["streams"]["watch"]
    assert len(first["frames"]) == KEPT * 50
    assert hub.look({"watch": first["number"]})["streams"]["watch"]["frames"] == []
    row = first["frames"][-1]
    assert len(row) == 1 + 6 + 7 + 1 + 1
    assert hub.look({})["streams"]["watch"]["labels"][row[-1]] == first["answer"]["label"]
    assert sum(row[7:14]) == pytest.approx(1)


def test_what_is_no_message_is_counted_and_the_stream_goes_on(hub, arrivals):
    hub.put(arrivals[0])
    with pytest.raises(InputError, match="not a line of a frame"):
        hub.put(Arrival(0, "lines", b"{", "watch")).result()
    hub.put(arrivals[1])
    hub.end()
    seen = hub.look({})
    assert (seen["refused"], seen["streams"]["watch"]["counts"]["frames"]) == (1, 2)
    assert "not a line of a frame" in seen["why"]


def test_readings_of_another_kind_are_counted_and_the_thread_lives(hub):
    for values in ([0, 0, G], [0, 0]):
        body = json.dumps({"timestamp": 5, "values": values}).encode()
        hub.put(Arrival(0, "sensor-server:android.sensor.gravity", body))
    hub.put(Arrival(0, "espruino", b"A,0,0,100\n", "one"))
    hub.end()
    seen = hub.look({})
    assert "one" in seen["streams"]
    assert seen["refused"] == 1
    assert "gave 2 values" in seen["why"]


def test_more_streams_than_are_answered_are_refused_until_one_has_been_silent(hub):
    for number in range(WEARERS + 1):
        hub.put(Arrival(number * SECOND, "espruino", b"A,0,0,100\n", f"watch {number}"))
    hub.end()
    seen = hub.look({})
    assert len(seen["streams"]) == WEARERS
    assert "one more stream" in seen["why"]
    hub.put(Arrival(61 * SECOND, "espruino", b"A,0,0,100\n", "late")).result()
    assert list(hub.look({})["streams"]) == [*(f"watch {number}" for number in range(1, WEARERS)), "late"]


def test_a_message_without_readings_is_no_stream_and_a_name_without_end_is_refused(hub):
    hub.put(Arrival(0, "lines", b"time,ax,ay,az,wx,wy,wz", "header")).result()
    with pytest.raises(InputError, match="a sender's name of 1,000 characters"):
        hub.put(Arrival(0, "espruino", b"A,0,0,100\n", "x" * 1000)).result()
    assert hub.look({})["streams"] == {}


def test_a_message_that_is_too_long_is_refused_and_not_kept(hub, arrivals, tmp_path):
    hub.record(tmp_path / "capture.jsonl")
    with pytest.raises(InputError, match="1,048,577 bytes came: 1,048,576 are read at most"):
        hub.put(Arrival(0, "sensor-logger", b" " * (MAX_BYTES + 1))).result()
    hub.put(arrivals[0]).result()
    hub.record(None)
    assert len(list(read_capture(tmp_path / "capture.jsonl"))) == 1


def test_a_stream_that_is_refused_takes_no_other_with_it(hub):
    wrist = {"accelerationX": 0, "gravityX": 0, "rotationRateX": 0}

    def push(device, number, own):
        sent = [{"name": "gyroscope", "time": 10**18, "values": {"x": 0, "y": 0, "z": 0}}] if own else []
        sent += [{"name": "wrist motion", "time": 10**18 + number * SECOND // 50, "values": wrist}]
        body = {"messageId": number, "sessionId": "s", "deviceId": device, "payload": sent}
        return hub.put(Arrival(number, "sensor-logger", json.dumps(body).encode()))

    for device in range(WEARERS):
        push(str(device), 0, own=False).result()
    with pytest.raises(InputError, match="0 is one more stream than the 16"):
        push("0", 1, own=True).result()
    assert hub.look({})["streams"]["0, wrist motion"]["counts"]["readings"] > 1


def test_too_much_that_waits_is_said_and_lost(models, arrivals):
    held, go = threading.Event(), threading.Event()

    def wait(*_):
        held.set()
        go.wait(30)

    hub = Hub(models, engine="numpy", on_event=wait)
    for arrival in arrivals[:4]:
        hub.put(arrival)
    assert held.wait(30)
    big = Arrival(0, "lines", b" " * MAX_BYTES, "watch")

    def fill():
        for _ in range(100):
            hub.put(big)

    with pytest.raises(TooBusy, match="this machine is too slow"):
        fill()
    assert 25 < hub._queue.qsize() < 40
    go.set()
    hub.end()
    assert hub.look({})["refused"] == 1
    hub.close()
    with pytest.raises(RuntimeError, match="closed"):
        hub.put(arrivals[0])


def test_what_is_recorded_is_read_back_to_the_same_answers(models, hub, arrivals, answers, tmp_path):
    file = tmp_path / "capture.jsonl"
    hub.record(file)
    for arrival in arrivals:
        hub.put(arrival, wait=True)
    hub.record(None)
    (events,) = streamed(models, read_capture(file)).values()
    assert said(events) == answers["har_watch"]
    with pytest.raises(InputError, match="there already"):
        hub.record(file)
    with pytest.raises(InputError, match="cannot be written"):
        hub.record(tmp_path / "no" / "capture.jsonl")


def tables(recording, frames):
    """A comma-separated table with a header, of which some lines are none."""
    yield Arrival(0, "lines", b"", "table")
    yield Arrival(0, "lines", b"time,wx,wy,wz,ax,ay,az", "table")
    for number, (ax, ay, az, wx, wy, wz) in enumerate(recording.x[:frames].astype(float).tolist()):
        time = number * SECOND // 50
        yield Arrival(time, "lines", f"{10**18 + time},{wx},{wy},{wz},{ax},{ay},{az}".encode(), "table")
        if number % 100 == 7:
            yield Arrival(time, "lines", b"no, line", "table")


def test_a_recording_begun_in_the_middle_is_read_back_to_the_answers_from_there_on(models, recording, tmp_path):
    """Of streams whose headers, units and states came before; what is no message is in it too."""
    file, events = tmp_path / "capture.jsonl", {}
    hub = Hub(models, engine="numpy", on_event=lambda name, event: events.setdefault(name, []).append(event))
    pushed = as_an_apple_watch_sends(recording, 10)
    for number, message in enumerate(pushed):
        pushed[number] = msgspec.structs.replace(message, time=number * SECOND // 5)
    ordered = sorted([*tables(recording, len(recording.x)), *pushed], key=lambda arrival: arrival.time)
    middle = len(ordered) * 3 // 4
    for arrival in ordered[:middle]:
        hub.put(arrival, wait=True)
    hub.record(file)
    told = {name: len(each) for name, each in events.items()}
    for arrival in ordered[middle:]:
        hub.put(arrival, wait=True)
    hub.record(None)
    hub.end()
    hub.close()
    assert any(arrival.body == b"no, line" for arrival in read_capture(file))
    again = streamed(models, read_capture(file))
    assert set(again) == set(events) == {"table", "wrist, wrist motion"}
    for name, each in events.items():
        later = said(each[told[name] :])
        assert len(later) > 300
        assert said(again[name])[-len(later) :] == later
    counts = hub.look({})["streams"]["table"]["counts"]
    assert counts["frames"] == len(recording.x)
    assert counts["gaps"] == 0


def test_the_time_that_is_shown_only_rises_whatever_the_senders_clock_does(hub, recording):
    rows = recording.x.astype(float).tolist()
    for begin in (3600, 0, 10**9):
        for number, row in enumerate(rows[:200]):
            time = begin * SECOND + number * SECOND // 50
            hub.put(Arrival(time, "lines", line_of(time, row), "watch"), wait=True)
    hub.end()
    seen = hub.look({})["streams"]["watch"]
    times = [row[0] for row in seen["frames"]]
    assert times == sorted(times)
    assert 11 < times[-1] < 15
    assert [gap["why"].split()[0] for gap in seen["gaps"]] == ["the", "nothing"]


def test_a_full_disk_ends_the_recording_and_not_the_stream(hub, arrivals, tmp_path):
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115  # which the hub closes
    hub._capture._file = (tmp_path / "full", full)
    for arrival in arrivals[:50]:
        hub.put(arrival, wait=True)
    hub.end()
    seen = hub.look({})
    assert seen["recording"] is None
    assert "No space left" in seen["why"]
    assert seen["streams"]["watch"]["counts"]["frames"] == 50


def test_who_looks_all_the_time_delays_no_answer_for_long(models, arrivals):
    hub = Hub(models, engine="numpy")
    looked, stop = [0], threading.Event()

    def look():
        while not stop.is_set():
            hub.look({})
            looked[0] += 1

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for arrival in arrivals[:500]:
        hub.put(arrival, wait=True)
    hub.end()
    stop.set()
    for thread in threads:
        thread.join()
    hub.close()
    assert looked[0] > 0
    assert hub.look({})["streams"]["watch"]["counts"]["frames"] == 500


def test_a_mistake_in_the_thread_that_answers_is_told_to_who_comes_next(hub, arrivals, monkeypatch):
    monkeypatch.setattr(Wearer, "hear", lambda *_: 1 / 0)
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)
    hub.put(arrivals[0])
    hub._thread.join(5)
    with pytest.raises(RuntimeError, match="has died"):
        hub.put(arrivals[1])


def test_models_that_one_stream_cannot_feed_are_refused(models):
    watch = models["har_watch"]
    with pytest.raises(InputError, match="answers segments"):
        check_alike({"a": watch, "digits": as_folder("digits")})
    manifest = watch.manifest
    other = msgspec.structs.replace(manifest, input=msgspec.structs.replace(manifest.input, signs="android"))
    with pytest.raises(InputError, match=r"other signs of accelerations than a \(android, not apple\)"):
        check_alike({"a": watch, "b": dataclasses.replace(watch, manifest=other)})


def test_a_model_that_cannot_be_opened_is_refused_before_anything_comes(models):
    with pytest.raises(InputError, match="litert"):
        Hub(models, engine="litret")


def test_the_decoders_of_a_hub_are_those_of_its_model():
    source = Input((Channel("x", ""),), 10.0, Normalization((0.0,), (1.0,)))
    (found,) = Decoders(source)(Arrival(0, "lines", b"1"))
    assert found.readings[0].values == (1.0,)
