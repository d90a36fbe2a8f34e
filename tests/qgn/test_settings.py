from dataclasses import MISSING, dataclass, fields
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qgn.config import TrainConfig
from qgn.errors import TrainingError
from qgn.settings import checked, describe, parse, read_toml, setting, to_toml

TEXT = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda text: text != "none")


@dataclass(frozen=True)
class Sample:
    """One field of every kind."""

    name: str = setting(MISSING, "text")
    count: int = setting(1, "a count", least=0, most=9)
    rate: float = setting(1.0, "a rate")
    on: bool = setting(False, "a switch")
    kind: Literal["a", "b"] = setting("a", "a choice")
    size: tuple[int, int] | None = setting(None, "a size")
    ids: tuple[int, ...] | None = setting(None, "some ids", least=0)
    words: tuple[str, ...] = setting((), "some words")
    share: tuple[float, float] | None = setting(None, "two numbers")
    maybe: float | None = setting(None, "a number, perhaps")


SAMPLES = st.builds(
    Sample,
    name=TEXT,
    count=st.integers(0, 9),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    on=st.booleans(),
    kind=st.sampled_from("ab"),
    size=st.none() | st.tuples(st.integers(1, 999999), st.integers(1, 999999)),
    ids=st.none() | st.lists(st.integers(0, 300), max_size=3).map(tuple),
    words=st.lists(TEXT, max_size=3).map(tuple),
    share=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    maybe=st.none() | st.floats(0, 1),
)


@given(SAMPLES)
def test_what_is_written_reads_back(tmp_path_factory, sample):
    path = tmp_path_factory.getbasetemp() / "sample.toml"
    path.write_text(to_toml(sample), encoding="utf-8")
    assert Sample(**checked(Sample, read_toml(path), "sample.toml")) == sample


def test_a_run_s_settings_read_back(tmp_path):
    config = TrainConfig(labels='a "b" \\ \x7f é.zarr', work_dir="w", void=(), image_size=(32, 64), lr=1e-5)
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    assert TrainConfig(**checked(TrainConfig, read_toml(tmp_path / "config.toml"), "x")) == config


def test_texts_of_the_command_line():
    texts = [
        "name=2024", "count=7", "rate=3", "on=true", "kind=b", "size=192x256", "ids=255,0", "words=x,y",
        "share=[0.5, 2]", "maybe=none",
    ]  # fmt: skip
    expected = Sample("2024", 7, 3.0, True, "b", (192, 256), (255, 0), ("x", "y"), (0.5, 2.0), None)
    assert Sample(**parse(Sample, texts)) == expected
    assert isinstance(parse(Sample, ["rate=3"])["rate"], float)
    assert parse(Sample, ["ids=none", "words=none", "size=none"]) == {"ids": (), "words": (), "size": None}
    assert parse(Sample, ["name=a=b", "name=c"]) == {"name": "c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count", "line: 'count' is no setting, expected key=value such as steps=400"),
        ("cout=1", "line: key 'cout' is no setting. Did you mean 'count'? 'qgn-train --help' lists them"),
        ("zzz=1", "line: key 'zzz' is no setting. 'qgn-train --help' lists them"),
        ("count=10", "key 'count': found 10, expected a whole number from 0 to 9. Correct the value"),
        ("count=-1", "found -1, expected a whole number from 0 to 9"),
        ("count=1.5", "found 1.5, expected a whole number"),
        ("count=true", "found True, expected a whole number"),
        ("count=x", "found 'x', expected a whole number"),
        ("rate=nan", "found nan, expected a number"),
        ("rate=true", "found True, expected a number"),
        ("on=1", "found 1, expected true or false"),
        ("kind=c", "found 'c', expected one of a, b"),
        ("size=192", "found '192', expected HEIGHTxWIDTH such as 192x256, or none"),
        ("size=0x5", "found '0x5', expected HEIGHT"),
        ("size=[1, 2]", "found '[1, 2]', expected HEIGHT"),
        ("ids=1,-2", "found [1, -2], expected a list of whole numbers from 0 on, or none"),
        ("share=1", "found [1], expected a list of 2 numbers"),
        ("maybe=x", "found 'x', expected a number, or none"),
    ],
)
def test_a_wrong_text_is_one_clear_error(text, message):
    with pytest.raises(TrainingError) as caught:
        parse(Sample, [text], "line")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_file_is_one_clear_error(tmp_path):
    with pytest.raises(TrainingError, match=r"none\.toml: cannot be read as TOML \(No such file"):
        read_toml(tmp_path / "none.toml")
    for content in (b"a = ", b"\xff"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(TrainingError, match=r"bad\.toml: cannot be read as TOML"):
            read_toml(tmp_path / "bad.toml")
    with pytest.raises(TrainingError, match=r"x\.toml: key 'name': found 3, expected text"):
        checked(Sample, {"name": 3}, "x.toml")


def test_every_setting_says_what_it_is():
    rows = {row.key: row for row in describe(TrainConfig)}
    assert list(rows) == [field.name for field in fields(TrainConfig)]
    assert all(row.about and "\n" not in row.about for row in rows.values())
    assert (rows["void"].is_list, rows["void"].unset) == (True, None)
    assert (rows["recompute"].is_switch, rows["recompute"].unset) == (True, "false")
    assert (rows["crop"].unset, rows["eval_every"].unset, rows["lr"].unset) == (None, "half of steps", "0.002")
