"""Golden files: what a released version of the format wrote is read for ever, bit for bit."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

import quadcodec
from quadcodec.header import FORMAT_VERSION
from quadcodec.record import SMALL_START, check_record
from quadcodec.tables import Tables
from quadcodec.validate import validate

from . import oracle, oracle_small

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = range(1, FORMAT_VERSION + 1)
RECORDS = 30


def _load(version):
    with np.load(GOLDEN / f"v{version}" / "masks.npz") as file:
        return dict(file)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_golden_record_decodes(version):
    arrays = _load(version)
    files = sorted((GOLDEN / f"v{version}").glob("*.qdtr"))
    assert len(files) == RECORDS
    tables = Tables.from_bytes((GOLDEN / f"v{version}" / "tables.bin").read_bytes())
    for file in files:
        record = file.read_bytes()
        own = tables if file.stem.endswith("own") else None
        expected = arrays[file.stem.split("-")[0]]
        check_record(record, tables=own)
        found = quadcodec.decode(record, tables=own)
        assert found.dtype == expected.dtype, file.stem
        np.testing.assert_array_equal(found, expected, file.stem)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_golden_store_opens(version, tmp_path):
    arrays = _load(version)
    with zipfile.ZipFile(GOLDEN / f"v{version}" / "store.zip") as archive:
        archive.extractall(tmp_path / "store.zarr")
    assert validate(tmp_path / "store.zarr", deep=True) == []
    store = quadcodec.open(tmp_path / "store.zarr")
    assert store.info.format_version == version
    assert (store.names, store.splits) == (("crop", "void", "many"), ("train", "train", "val"))
    for name, mask in zip(store.names, store, strict=True):
        np.testing.assert_array_equal(mask, arrays[name])


@pytest.mark.parametrize("name", ["crop", "void", "pixel", "checkerboard", "many"])
def test_the_plain_python_reader_of_the_documents_agrees(name):
    folder = GOLDEN / f"v{FORMAT_VERSION}"
    mask = _load(FORMAT_VERSION)[name]
    assert oracle.decode((folder / f"{name}-fast.qdtr").read_bytes())[1] == mask.tolist()
    payload = (folder / f"{name}-small.qdtr").read_bytes()[SMALL_START:]
    assert oracle_small.decode(payload, *mask.shape, mask.itemsize, oracle_small.shipped_tables()) == mask.tolist()


@pytest.mark.parametrize("profile", ["raw", "small"])
def test_encoders_write_what_they_wrote(profile):
    """Readers need not care, but shards that two versions of the software share should be the same bytes."""
    for name, mask in _load(FORMAT_VERSION).items():
        golden = (GOLDEN / f"v{FORMAT_VERSION}" / f"{name}-{profile}.qdtr").read_bytes()
        if name not in ("noise", "wide"):  # zstd, which may find other bytes in another release
            assert quadcodec.encode(mask, profile=profile) == golden, name
