"""GPUs that runs are planned for. One file of `conf/gpu/` makes one `GPU`."""

from dataclasses import dataclass, replace

import torch

from orca2.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class GPU:
    """Memory and speed of one device. A GPU without numbers stands for the one of this machine."""

    name: str
    memory_mib: int | None
    """Memory as nvidia-smi shows it."""
    peak_tflops: float | None
    """Dense bf16 matrix products, 1e12 per second, from the vendor's data sheet."""
    expected_mfu: float
    """Share of the peak that the model's own arithmetic is expected to reach."""

    def __post_init__(self) -> None:
        found = []
        if self.memory_mib is not None and self.memory_mib < 1:
            found.append(f"memory_mib = {self.memory_mib}: must be above 0")
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            found.append(f"peak_tflops = {self.peak_tflops}: must be above 0")
        if not 0 < self.expected_mfu <= 1:
            found.append(f"expected_mfu = {self.expected_mfu}: a share, above 0 and at most 1")
        if found:
            raise ConfigError(f"gpu {self.name!r}: " + "; ".join(found))

    @property
    def memory(self) -> int | None:
        """Bytes."""
        return None if self.memory_mib is None else self.memory_mib * 2**20


EXAMPLE = GPU(name="a100_80", memory_mib=81_920, peak_tflops=312.0, expected_mfu=0.4)
"""The paper's GPU, as `conf/gpu/a100_80.yaml` has it: what a plan for a CPU names as a way out."""


def gpu_here(gpu: GPU) -> GPU | None:
    """`gpu`, or where it has no memory of its own the GPU of this machine; None without one.

    The memory of a detected GPU is what torch reports. Its peak speed is only known if `gpu` states it.
    """
    if gpu.memory_mib is not None:
        return gpu
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return replace(gpu, name=properties.name, memory_mib=properties.total_memory // 2**20)
