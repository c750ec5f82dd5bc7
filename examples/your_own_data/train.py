"""From a folder of CSV files to a proven model: what you would do with recordings of your own.

    python examples/your_own_data/train.py [FOLDER]

Writes a few recordings of three people as CSV (here: from the watch data, with column names of a phone app), trains a
small GRU on them for seconds, exports it, and asks it about the person it has never seen. With real data, train longer:
leave the settings out.
"""

import csv
import sys
import tempfile
from pathlib import Path

import edgeseq
from edgeseq.data import Mapping, load
from edgeseq.export.stage import export
from edgeseq.training.stage import train

COLUMNS = ["ax", "ay", "az", "wx", "wy", "wz"]


def write_recordings(folder: Path) -> None:
    """One file a recording: milliseconds, six channels, who and what."""
    folder.mkdir(parents=True)
    watch = load("spar_watch").only(["1", "2", "3"])
    for number, recording in enumerate(watch.recordings):
        with (folder / f"{number:02}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ms", *COLUMNS, "who", "activity"])
            for t, (x, y) in enumerate(zip(recording.x.tolist(), recording.y, strict=True)):
                writer.writerow([20 * t, *x, f"person {recording.subject}", watch.labels[y]])


def main(folder: Path) -> None:
    write_recordings(folder / "recordings")
    columns = Mapping(
        time="ms",
        time_unit="ms",
        label="activity",
        subject="who",
        channels=tuple(COLUMNS),
        units=("g",) * 3 + ("rad/s",) * 3,
    )
    trained = train(
        str(folder / "recordings"),
        folder / "gru",
        mapping=columns,
        preset="gru",
        test=["person 3"],
        validation=["person 2"],
        changes={"rounds": 2, "steps": 20, "batch": 16, "crop": 4.0, "model.hidden": 32},
    )
    print(f"trained: {100 * trained.manifest.metrics['test_accuracy']:.0f} % of the frames of a person never seen")
    exported = export(trained.path, folder / "gru-export")
    print(f"exported: {len(exported.manifest.proof)} links proven")
    session = edgeseq.Session(exported)
    print(session.decide(session.step([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
