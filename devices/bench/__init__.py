"""What a model costs on this machine: a tight loop, and paced at the sensor's rate, on the folder's golden frames.

The paced numbers are the headline: between two frames of a 50 Hz sensor a small computer sleeps, slows its clock and
forgets its caches, which a tight loop never shows.
"""

from edgeseq.devices.bench.measure import bench, bench_side_by_side, timer_cost
from edgeseq.devices.bench.power import EnginePower, Power
from edgeseq.devices.bench.report import (
    UNTIMED,
    BenchReport,
    EngineReport,
    Latency,
    LongRun,
    Minute,
    Paced,
    latency,
    without_times,
    write_report,
)

__all__ = [
    "UNTIMED",
    "BenchReport",
    "EnginePower",
    "EngineReport",
    "Latency",
    "LongRun",
    "Minute",
    "Paced",
    "Power",
    "bench",
    "bench_side_by_side",
    "latency",
    "timer_cost",
    "without_times",
    "write_report",
]
