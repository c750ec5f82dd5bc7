"""What ``benchmarks/compression.py`` makes: each variant of a model, its stage, and what it is made from."""

from __future__ import annotations

from typing import Any

import msgspec

TEACHER = "teacher"  # the demo's: one a fold, with seed 0
IN_FULL = ("lmu", "gru", "s4d")
IN_PART = (
    *("lmu_cell", "sparse_rnn", "lstm", "tanh", "relu", "lmuformer", "lmuformer-causal"),
    *("l2mu", "spiking_lmuformer", "spiking_lmuformer-causal"),
)


class Variant(msgspec.Struct, frozen=True):
    """``stage`` makes it of the variant ``source`` ("": of the data) with these ``arguments``; ``shown`` in tables."""

    family: str
    shown: str
    source: str
    stage: str
    arguments: dict[str, Any]

    @property
    def trains(self) -> bool:
        """Whether its stage does, and can be told for how long."""
        return self.arguments.get("method") != "ptq" and self.arguments.get("retrain", True)


def _quantized(name: str, shown: str, **arguments: Any) -> tuple[str, str, str, dict[str, Any]]:
    return (name, shown, "quantize", arguments)


def _pruned(name: str, shown: str, **arguments: Any) -> tuple[str, str, str, dict[str, Any]]:
    return (name, shown, "prune", arguments)


IN_PART_OF = (
    _quantized("qat", "int8, trained on", method="qat"),
    _pruned("units50", "structured, 50 %", structured=0.5),
)
IN_FULL_OF = (
    _quantized("ptq", "int8, calibrated", method="ptq"),
    *IN_PART_OF,
    _quantized("qat4", "int4 weights, trained on", method="qat", bits=4),
    _quantized("qd4", "quantized distillation, 4 bits", method="qd", bits=4),
    _quantized("qd2", "quantized distillation, 2 bits", method="qd", bits=2),
    _quantized("dq4", "differentiable quantization, 4 bits", method="dq", bits=4),
    _pruned("units75", "structured, 75 %", structured=0.75),
    _pruned("units90", "structured, 90 %", structured=0.9),
    _pruned("zeros50", "zeros, 50 %", weights=0.5),
    _pruned("zeros80", "zeros, 80 %", weights=0.8),
    _pruned("zeros90", "zeros, 90 %", weights=0.9),
)
OF = {
    "s4d": (
        _pruned("modes30", "modes, 30 %, not trained on", modes=0.3, retrain=False),
        _pruned("modes60", "modes, 60 %, not trained on", modes=0.6, retrain=False),
    ),
}
# What `edgeseq compress` found for the teacher of fold 0 in 14 chains (students gru and lmu; forms qd4, qd2, int4-qat),
# by its validation subject alone: the smallest within a point of the teacher, and the best of those at least 20 times
# smaller. The fields of edgeseq.quant.chains.Chain.
CHAINS: dict[str, dict[str, Any]] = {
    "chain-smallest": {"structured": 0.75, "weights": 0.8, "form": "qd2"},
    "chain-best": {"student": "gru", "structured": 0.5, "form": "qd4"},
}


def _words(chain: dict[str, Any]) -> str:
    """A chain as a table's row says it."""
    shares = {"structured": "structured", "weights": "zeros"}
    parts = [f"distilled to {chain['student']}" if "student" in chain else "the teacher"]
    parts += [f"{word} {100 * chain[field]:.0f} %" for field, word in shares.items() if field in chain]
    return ", ".join([*parts, chain["form"]])


def variants() -> dict[str, Variant]:
    """All of them by name, in an order in which each comes after what it is made from."""
    found = {TEACHER: Variant(TEACHER, "float32", "", "train", {"preset": TEACHER})}
    for family in (*IN_FULL, *IN_PART):
        found[family] = Variant(family, "float32", "", "train", {"preset": family})
        if family in IN_FULL:
            found[f"{family}-distilled"] = Variant(
                family, "distilled from the teacher", TEACHER, "distill", {"preset": family}
            )
        if family == "lmu":  # what was asked of int8 before the rest was there
            found["lmu-distilled-ptq"] = Variant(
                family, "distilled, int8, calibrated", "lmu-distilled", "quantize", {"method": "ptq"}
            )
            found["lmu-distilled-qat"] = Variant(
                family, "distilled, int8, trained on", "lmu-distilled", "quantize", {"method": "qat"}
            )
        if family in ("lmu", "gru"):
            found[f"{family}-ptq-state8"] = Variant(
                family, "int8, calibrated, state in int8", family, "quantize", {"method": "ptq", "state": "int8"}
            )
        for name, shown, stage, arguments in (*(IN_FULL_OF if family in IN_FULL else IN_PART_OF), *OF.get(family, ())):
            found[f"{family}-{name}"] = Variant(family, shown, family, stage, arguments)
    for name, chain in CHAINS.items():
        found[name] = Variant(TEACHER, _words(chain), TEACHER, "chain", chain)
    return found
