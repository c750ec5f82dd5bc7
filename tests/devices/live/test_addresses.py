"""Sources by their addresses: which one it is, and what is said of an address that is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeseq.devices.live.sources.address import all_opened, opened
from edgeseq.errors import InputError, MissingDependency
from edgeseq.signal.arrivals import Arrival, write_arrival


def capture(file: Path) -> Path:
    with file.open("wb") as written:
        write_arrival(written, Arrival(5, "lines", b"1,2,3,4,5,6"))
    return file


def test_a_capture_and_a_recording_are_replayed_by_their_names(models, tmp_path):
    file = capture(tmp_path / "capture.jsonl")
    folder = models["har_watch"]
    assert opened(f"replay:{file}", folder).name == str(file)
    test = folder.manifest.split["test"]
    assert opened("replay:spar_watch", folder).name == f"subject {test[0]} of spar_watch"
    assert opened(f"replay:spar_watch/{test[1]}", folder).name == f"subject {test[1]} of spar_watch"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("relpay:spar_watch", "replay"),
        ("replay:", "replay: names no recording.*replay:spar_watch"),
        ("replay:none.jsonl", "no such file"),
        ("replay:spar_wacht", "spar_watch"),
        ("replay:spar_watch/77", "77"),
        ("ws://phone", "ws://phone has no port.*ws://192"),
        ("ws:phone:80", "ws:phone:80 names no host.*ws://192"),
        ("ws://:80", "ws://:80 names no host.*ws://192"),
        ("ws://phone:many", "ws://phone:many is no address of a source.*ws://192"),
        ("ws://phone:99999", "ws://phone:99999 is no address of a source.*ws://192"),
        ("ws://phone:0", "port 0.*ws://192"),
        ("ws://[::1:80", "is no address of a source"),
        ("phyphox:phone", "phyphox:phone names no host.*phyphox://192"),
        ("phyphox://", "phyphox:// names no host.*phyphox://192"),
        ("phyphox://phone:0", "port 0.*phyphox://192"),
        ("mqtt:///topic", "mqtt:///topic names no host.*mqtt://192"),
        ("http://phone:8080", "http://phone:8080 names a machine.*ws://192"),
        ("ble:", "ble: names no watch.*Bangle.js"),
        ("ble: ", "names no watch.*Bangle.js"),
    ],
)
def test_an_address_that_is_none_is_refused_with_what_is_wrong_and_one_that_is_right(models, address, said):
    pytest.importorskip("websockets")
    with pytest.raises(InputError, match=said):
        opened(address, models["har_watch"])


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("ws://Phone:80", "SensorServer on phone:80"),
        ("ws://[::1]:80", r"SensorServer on [::1]:80"),
        ("phyphox://phone", "phyphox on phone:8080"),
        ("phyphox://phone:80", "phyphox on phone:80"),
        ("mqtt://me:word@host:1884/home/+/#", "home/+/# on host:1884"),
        ("mqtt://host", "sensor-logger on host:1883"),
    ],
)
def test_an_address_names_a_host_and_a_port(models, address, name):
    pytest.importorskip("websockets")
    pytest.importorskip("paho.mqtt")
    assert opened(address, models["har_watch"]).name == name


def test_two_phones_behind_one_host_are_two_sources_and_one_is_given_once(models):
    pytest.importorskip("websockets")
    two = all_opened(["ws://phone:1", "ws://phone:2", "phyphox://phone:1"], models["har_watch"])
    assert len({source.name for source in two}) == 3
    with pytest.raises(InputError, match=r"ws://PHONE:1 is SensorServer on phone:1, which is given already"):
        all_opened(["ws://phone:1", "ws://PHONE:1"], models["har_watch"])


def test_a_recording_or_a_capture_that_is_given_twice_is_refused(models, tmp_path, monkeypatch):
    folder = models["har_watch"]
    first, second = folder.manifest.split["test"][:2]
    assert len(all_opened([f"replay:spar_watch/{first}", f"replay:spar_watch/{second}"], folder)) == 2
    with pytest.raises(InputError, match="is given already"):
        all_opened(["replay:spar_watch", f"replay:spar_watch/{first}"], folder)
    file = capture(tmp_path / "capture.jsonl")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is given already"):
        all_opened([f"replay:{file}", "replay:capture.jsonl"], folder)


@pytest.mark.parametrize(("address", "package"), [("mqtt://host/topic", "paho"), ("ble:watch", "bleak")])
def test_a_package_that_is_missing_is_named_with_how_to_install_it(models, monkeypatch, address, package):
    for name in ("bleak", "paho.mqtt.client"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=rf"{package}.*pip install 'edgeseq\["):
        opened(address, models["har_watch"])
