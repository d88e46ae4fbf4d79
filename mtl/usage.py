"""What a fold takes of its machine, epoch by epoch: cores, memory, the GPU's memory."""

import resource
import sys
import time

import torch

GB = 1e9


class Usage:
    """Of this process since it was made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> dict[str, float]:
        """cores: busy on average; memory_gb: of the process at most so far; gpu_memory_gb: at most since then."""
        wall_s = max(time.perf_counter() - self._wall_s, 1e-9)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        told = {"cores": (time.process_time() - self._cpu_s) / wall_s, "memory_gb": peak / GB}
        if self._device.type == "cuda":
            told["gpu_memory_gb"] = torch.cuda.max_memory_reserved(self._device) / GB
            told["gpu_memory_share"] = told["gpu_memory_gb"] * GB / torch.cuda.mem_get_info(self._device)[1]
        return told
