"""What a device can do at most, matrix products and memory traffic, and what share of it something takes."""

import statistics
from dataclasses import dataclass, field

import torch

from tests.benchmarks.gpu_table import Measured, Table, rounds_s
from tests.benchmarks.gpu_ways import Work
from tests.benchmarks.rows import Row, short

PRODUCTS = (
    ("bf16", torch.bfloat16, "highest", "bf16"),
    ("float32, TF32 on", torch.float32, "high", "float32"),  # cuDNN's convolutions of float32 are in TF32, too
    ("float32, TF32 off", torch.float32, "highest", ""),
)
"""name, type, torch's float32_matmul_precision, and for which precision of the network it is the peak"""


@dataclass
class Floor:
    """Measured peaks; 0 where they were not."""

    device: torch.device
    rounds: int
    round_s: float
    tflops: dict[str, float] = field(default_factory=dict)
    """of matrix products, by the network's precision"""
    bandwidth_GBs: float = 0.0

    def measure(self, table: Table, size: int, copied_MB: int, needs_s: float) -> None:
        """size: rows and columns of the matrices."""
        for name, dtype, precision, peak_of in PRODUCTS:
            row = Row(f"floor: matrix product, {size} x {size}, {name}", "TFLOP/s", (), rate=True)
            row = table.measure(row, lambda d=dtype, p=precision: self._product(size, d, p), needs_s)
            if peak_of and row.ours:
                self.tflops[peak_of] = statistics.median(row.ours)
        row = Row(f"floor: copy of {copied_MB:,} MB, read and written", "GB/s", (), rate=True)
        row = table.measure(row, lambda: self._copy(copied_MB), needs_s)
        self.bandwidth_GBs = statistics.median(row.ours) if row.ours else 0.0

    def _product(self, size: int, dtype: torch.dtype, precision: str) -> Measured:
        a, b = (torch.randn(size, size, device=self.device).to(dtype) for _ in range(2))
        out, before = torch.empty_like(a), torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            took_s = rounds_s(lambda: torch.mm(a, b, out=out), self.device, self.rounds, self.round_s)
        finally:
            torch.set_float32_matmul_precision(before)
        return [2 * size**3 / s / 1e12 for s in took_s], ""

    def _copy(self, copied_MB: int) -> Measured:
        source = torch.ones(copied_MB * 250_000, device=self.device)
        target = torch.empty_like(source)
        took_s = rounds_s(lambda: target.copy_(source), self.device, self.rounds, self.round_s)
        return [2 * copied_MB / 1e3 / s for s in took_s], ""

    def shares(self, slices_per_s: float, work: Work | None, precision: str) -> str:
        """Of the peak of the precision's matrix product, and of the memory's bandwidth (by an estimate of traffic);
        empty where it is not known how much work that is."""
        if work is None:
            return ""
        tflops, GBs = slices_per_s * work.gflop / 1e3, slices_per_s * work.moved_MB / 1e3
        told = f"{short(tflops)} TFLOP/s"
        if peak := self.tflops.get(precision):
            told += f", {short(100 * tflops / peak)} % of the matrix peak"
        if self.bandwidth_GBs:
            told += f", about {short(100 * GBs / self.bandwidth_GBs)} % of the bandwidth"
        return f"{told}; "
