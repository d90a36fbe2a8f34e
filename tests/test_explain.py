"""A record explained: its parts are all of its bytes, its counts are those of the mask."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quadcodec
from quadcodec.errors import CorruptRecordError
from quadcodec.explain import explain
from quadcodec.pyramid import COMPOSITE, OUTSIDE, TPyramid
from quadcodec.record import decode_tree, encode

from .conftest import blocks
from .strategies import masks
from .test_cli import fails, invoke


@settings(deadline=None, max_examples=30)
@given(masks(70), st.sampled_from(["fast", "small"]), st.integers(2, 7))
def test_parts_are_the_record_and_counts_those_of_the_mask(mask, profile, levels):
    record = encode(mask, levels=levels, profile=profile)
    tree = decode_tree(record)
    found = explain(record, tree)
    assert sum(part.nbytes for part in found.parts) == found.nbytes == len(record)
    assert (found.height, found.width, found.bits) == (*mask.shape, 8 * mask.itemsize)
    present = np.unique(mask).tolist()
    assert list(found.labels) == present or found.profile == "small"
    assert set(present) <= set(found.labels)
    assert [row.level for row in found.levels] == list(range(levels - 1, -1, -1))
    for row in found.levels:
        values = tree.level(row.level)
        composites = np.count_nonzero(values == COMPOSITE)
        assert (row.nodes, row.outside) == (len(values), np.count_nonzero(values == OUTSIDE))
        assert row.leaves + row.outside + row.pairs + row.multi == row.nodes
        assert row.pairs + row.multi == composites
    assert sum(row.pixels for row in found.levels) == mask.size


@settings(deadline=None, max_examples=30)
@given(masks(40), st.integers(2, 6))
def test_composites_of_two_classes_are_told_from_others(mask, levels):
    tree = decode_tree(encode(mask, levels=levels))
    cells = TPyramid.from_mask(mask, levels)
    for row in explain(encode(mask, levels=levels), tree).levels[:-1]:
        size, kinds = 1 << row.level, []
        for y, x in np.argwhere(cells.upper[row.level - 1] == COMPOSITE):
            kinds.append(len(np.unique(mask[y * size : (y + 1) * size, x * size : (x + 1) * size])))
        assert (row.pairs, row.multi) == (kinds.count(2), len(kinds) - kinds.count(2))


def test_sections_of_the_fast_profile():
    mask = blocks(0, 300, 500)
    record = encode(mask)
    found = explain(record, decode_tree(record))
    assert found.profile == "fast"
    names = [part.name for part in found.parts]
    assert names == ["header", "class tables, levels 5 to 3", "level 2", "level 1", "level 0"]
    assert found.num_pairs == 10
    for part in found.parts[1:]:
        assert (part.stage == "stored") == (part.nbytes == part.unpacked_bytes + 4)
        assert part.stage == "stored" or part.nbytes < part.unpacked_bytes + 4
    assert any(part.stage == "zstd" for part in found.parts)
    low = encode(mask, levels=2)
    assert [p.name for p in explain(low, decode_tree(low)).parts] == [
        "header",
        "class tables, levels 1 to 1",
        "level 0",
    ]


def test_tiles_of_the_small_profile():
    mask = np.zeros((700, 1100), np.uint8)
    mask[100:300, 200:250] = 3
    mask[512:, 1024:] = np.random.default_rng(0).integers(0, 200, (188, 76))
    record = encode(mask, profile="small")
    found = explain(record, decode_tree(record))
    assert (found.profile, found.tile_side, found.own_tables, found.num_pairs) == ("small", 512, None, None)
    assert [(t.y, t.x, t.height, t.width) for t in found.tiles[-2:]] == [(512, 512, 188, 512), (512, 1024, 188, 76)]
    assert [t.mode for t in found.tiles] == ["chains", "uniform", "uniform", "uniform", "uniform", "plain"]
    assert [t.nbytes == 0 for t in found.tiles] == [False, True, True, True, True, False]
    by_name = {part.name: part.nbytes for part in found.parts}
    assert by_name["tiles, chains: 1"] == found.tiles[0].nbytes
    assert by_name["tiles, plain: 1"] == found.tiles[-1].nbytes
    assert len(found.labels) == len(np.unique(mask))
    uniform = encode(np.full((9, 9), 7, np.uint16), profile="small")
    alone = explain(uniform, decode_tree(uniform))
    assert (alone.tiles, alone.labels) == ((), (7,))


def test_a_damaged_head_is_refused():
    for profile in ("fast", "small"):
        record = encode(blocks(0, 40, 60), profile=profile)
        tree = decode_tree(record)
        with pytest.raises(CorruptRecordError):
            explain(record[:21] + bytes([record[21] ^ 1]) + record[22:], tree)


def test_the_command(tmp_path):
    masks_ = [blocks(k, 100, 160, classes=60) for k in range(2)]
    for profile in ("fast", "small"):
        folder = tmp_path / f"{profile}.zarr"
        store = quadcodec.write(folder, masks_, names=["a", "b"], classes={1: "road"}, profile=profile)
        code, out, err = invoke("info", folder, "b")
        assert (code, err) == (0, "")
        assert out.startswith(f"{folder}: record 1 'b', split all\n")
        assert "100 x 160 (height x width), ids of 8 bits" in out
        assert f"{len(store.record(1))} bytes" in out
        assert "0, 1 road, 2" in out
        assert f"{len(np.unique(masks_[1])) - 20} more" in out
        assert ("pairs of classes" in out) == (profile == "fast")
        assert ("those of the package" in out) == (profile == "small")
        values = json.loads(invoke("info", folder, "1", "--json")[1])
        assert (values["name"], values["index"], values["profile"]) == ("b", 1, profile)
        assert sum(part["nbytes"] for part in values["parts"]) == values["nbytes"] == len(store.record(1))
    assert json.loads(invoke("info", folder, "--json")[1])["images"] == 2
    assert "image 'c' does not exist" in fails("info", folder, "c")
