"""What a training step allocates on a GPU."""

from __future__ import annotations

import torch
from torch import nn

from qgn.data.batch import LabelBatch
from qgn.losses import criterion_of


def peak_bytes(model: nn.Module, labels: LabelBatch) -> int:
    """Return the most that CUDA allocates in a forward and backward pass, an image, beside weights and images.

    Gradients of the weights count.

    Parameters
    ----------
    model
        On the GPU, a `Segmenter`.
    labels
        Trees of the images, on the CPU; the sparse decoder carries on their composite cells.
    """
    batch, rows, cols = labels.grid
    labels = labels.to("cuda")
    images = torch.randn(batch, 3, 32 * rows, 32 * cols, device="cuda")
    criterion = criterion_of(model).cuda()
    model.train().zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    prediction = model(images, labels, model.schemes[0])
    criterion(prediction.logits, prediction.targets).total.backward()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) // batch
