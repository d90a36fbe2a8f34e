import pytest

from qgn.config import TrainConfig
from qgn.errors import TrainingError
from qgn.setup import prepare
from qgn.trainer import train

pytest.importorskip("tensorboard", reason="tensorboard is not installed (extra 'tensorboard')")


def test_a_board_shows_the_log_s_numbers_and_predictions(scenes, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = TrainConfig(
        labels=str(scenes), work_dir=str(tmp_path / "run"), width=4, steps=2, batch_size=2, eval_every=2, workers=0,
        tensorboard=True,
    )  # fmt: skip
    train(prepare(config))
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    names = set(board.Tags()["scalars"])
    levels = {f"{name}/{level}" for name in ("level_losses", "beta") for level in range(6)}
    scores = {"scores/pc/miou", "scores/pc/composite_precision/5", "scores/pc/composite_recall/5"}
    assert levels | scores | {"loss", "lr", "grad_norm", "sites"} <= names
    assert [event.step for event in board.Scalars("loss")] == [1, 2]
    setup = prepare(config)
    names = {setup.store.names[i] for i in setup.images.val}
    assert set(board.Tags()["images"]) == {f"{kind}/{name}" for kind in ("classes", "tree") for name in names}
    (event,) = board.Images(f"classes/{min(names)}")
    assert (event.step, event.height, event.width) == (2, 64, 128)


def test_a_full_disk_under_the_board_ends_in_one_line(scenes, tmp_path, monkeypatch):
    def full(writer):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.flush", full)
    config = TrainConfig(
        labels=str(scenes), work_dir=str(tmp_path / "run"), width=2, steps=1, batch_size=2, workers=0,
        image_size=(32, 64), tensorboard=True,
    )  # fmt: skip
    with pytest.raises(TrainingError, match=r"tensorboard: cannot be written \(No space left on device\)"):
        train(prepare(config))
