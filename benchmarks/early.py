"""Early answers for segments: accuracy against the share of the frames, by a rule and by a fixed frame.

    python benchmarks/early.py FOLDER… --out benchmarks/results/early.json

FOLDERs are trained models of segments, such as those that ``benchmarks/spiking.py --data braille7`` keeps. For each the
rule is chosen on the validation segments and judged on the test segments, as ``edgeseq tune`` does, at two levels of
caution: as the loss was counted there (0.5), and as can be shown (0.95).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import write_result

from edgeseq.training.early import Tuned, tune

LEVELS = (0.5, 0.95)
DROP = 0.005  # of the accuracy, against answering at the end


def row(folder: Path, level: float) -> dict[str, Any]:
    """What the rules of one model come to on its test segments."""
    with tempfile.TemporaryDirectory() as scratch:
        made, tuned = tune(folder, Path(scratch) / "tuned", drop=DROP, level=level)
    before, after = tuned.errors
    return {
        "model": made.manifest.lineage[0].arguments["model"],
        "test": list(made.manifest.split["test"]),
        "level": level,
        "validation_segments": tuned.validation_segments,
        "test_segments": tuned.test_segments,
        "calibration_error": {"before": round(before, 5), "after": round(after, 5)},
        "rules": rules(tuned),
    }


def rules(tuned: Tuned) -> dict[str, dict[str, float]]:
    """By the name of each rule its accuracy and mean share of the frames, on validation and on test segments."""
    return {
        rule.name: {
            "accuracy": round(rule.test.accuracy, 5),
            "share": round(rule.test.share, 5),
            "validation_accuracy": round(rule.validation.accuracy, 5),
            "validation_share": round(rule.validation.share, 5),
        }
        for rule in tuned.rules
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="write the rows, with machine and versions, to this JSON file")
    parsed = parser.parse_args()
    write_result(parsed.out, drop=DROP, rows=[row(folder, level) for folder in parsed.folders for level in LEVELS])


if __name__ == "__main__":
    main()
