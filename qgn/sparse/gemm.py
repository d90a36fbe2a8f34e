"""Matrix products on the CPU by oneDNN."""

from __future__ import annotations

import torch
from torch import Tensor

_ONEDNN = torch.backends.mkldnn.is_available()


def matmul(a_ni: Tensor, b_io: Tensor) -> Tensor:
    """Return the product of two matrices of one dtype, (n, o). No gradient passes through.

    `torch.mm` takes float32 on the CPU to MKL, which keeps to AVX2 on AMD's processors: 48 multiply-adds a
    nanosecond and core of a Zen 5 where oneDNN's AVX-512 reaches 113 (benchmarks/README.md). oneDNN has the
    half-precision types already. A transposed view costs nothing.
    """
    if _ONEDNN and a_ni.device.type == "cpu" and a_ni.dtype == torch.float32 and a_ni.numel() and b_io.numel():
        return torch.ops.mkldnn._linear_pointwise(a_ni, b_io.T, None, "none", [], "")
    return a_ni @ b_io
