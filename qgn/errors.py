"""What can go wrong in training, evaluation and prediction, in quadcodec's family of errors."""

from quadcodec.errors import QuadcodecError


class TrainingError(QuadcodecError):
    """Report data or settings that cannot be trained with, or a run that cannot go on."""


class CheckpointError(QuadcodecError):
    """Report a checkpoint that cannot be read, or that does not fit what it is used for."""
