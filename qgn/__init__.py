"""Networks that predict quadtrees, and their dense rivals: training, evaluation, prediction.

>>> predictor = qgn.load("runs/out/best.safetensors")
>>> predictor(photo).classes
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .predict import Predictor


def load(path: str | Path, device: str | None = None) -> Predictor:
    """Return a predictor: call it with a photo (H, W, 3) uint8.

    Parameters
    ----------
    path : a checkpoint, as qgn-train and qgn-zoo write it.
    device : torch device; CUDA where there is one, else the CPU.

    Raises
    ------
    CheckpointError : no such file, not a checkpoint of this project, or weights that do not fit its settings.
    """
    # Imported here: torch takes seconds, and `import qgn` needs none of it.
    import torch

    from .predict import load_predictor

    return load_predictor(path, device or ("cuda" if torch.cuda.is_available() else "cpu"))
