"""What `tests.fuzz` found, kept small."""

import base64
import json
import struct

import pytest

from quadcodec.errors import ManifestError, MaskError
from quadcodec.manifest_toml import parse_manifest
from quadcodec.masks import mask_form, read_mask


@pytest.mark.parametrize(
    ("text", "where"),
    [
        pytest.param(b"a = " + b"9" * 5000, "not TOML", id="a number of 5000 digits"),
        pytest.param(b"a = " + b"[" * 3000, "not TOML", id="lists nested 3000 deep"),
        pytest.param(b"a = " + b"{a=" * 900, "not TOML", id="tables nested 900 deep"),
        pytest.param(b'[[splits]]\nname = "a\\u0000"', "expected a text", id="NUL in a text"),
        pytest.param(b"[[layouts]]\nmasks = ['a.png', \"\\u0000{name}.png\"]", "key 'layouts", id="NUL in a list"),
        pytest.param(b"[labels]\n" + b"9" * 4400 + b" = 'x'", "the key is no id", id="an id of 4400 digits"),
    ],
)
def test_manifests(text, where):
    whole = (
        b"""name = 'a'\ntitle = 'a'\nlicence = 'a'\n[[splits]]\nname = 'all'\n[[layouts]]\nmasks = ['{name}.png']\n"""
    )
    assert parse_manifest("own.toml", whole).name == "a"
    with pytest.raises(ManifestError, match=where) as caught:
        parse_manifest("own.toml", whole + text)
    assert str(caught.value).startswith("own.toml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"width": 60_000}, id="a width that would take terabytes"),
        pytest.param({"width": 10**9}, id="a width beyond what torch counts"),
        pytest.param({"width": 1.5}, id="a width that is no whole number"),
        pytest.param({"image_size": [0, 64]}, id="an empty image"),
        pytest.param({"image_size": [2**40, 2**40]}, id="an image of 2**80 pixels"),
        pytest.param({"classes": {"names": [1, "b"]}}, id="a class name that is no text"),
        pytest.param({"classes": {"table": {"0": 0, "1": 1, "2": 7}}}, id="a class that is none"),
        pytest.param({"classes": {"colors": [[0, 0, 300], [1, 2, 3]]}}, id="a colour beyond 255"),
    ],
)
def test_descriptions_of_checkpoints(change, tmp_path):
    pytest.importorskip("torch", reason="checkpoints need torch")
    from qgn.checkpoint import load_checkpoint
    from qgn.errors import CheckpointError

    from .fuzz_targets import checkpoint_seeds

    data = checkpoint_seeds()[0]
    (length,) = struct.unpack_from("<Q", data)
    document = json.loads(data[8 : 8 + length])
    own = json.loads(document["__metadata__"]["qgn"])
    for key, value in change.items():
        own[key] = {**own[key], **value} if isinstance(value, dict) else value
    document["__metadata__"]["qgn"] = json.dumps(own)
    head = json.dumps(document).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    load_checkpoint(path)
    path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])
    with pytest.raises(CheckpointError, match=r"holds no description|do not fit") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_png_whose_header_is_of_another_length(tmp_path):
    """Its first 13 bytes pass the checksum that follows them, all of it passes that at its end."""
    data = base64.b64decode(
        b"iVBORw0KGgoAAAA+SUhEUgAAABcAAAAUAQAAAABOxZujAAAAFUlEQVR4nGNgYPjHQBD/J4z/M4AxAPlxHs5A4iY7AAAAAElFTkSu"
        b"QmCC3uYmDwAAAB9JREFUeJxjYEIDzBDAMNTFWaCAERUMeXEYA92/OMQBxNkD34K8AjEAAAAASUVORK5CYII="
    )
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for read in (read_mask, mask_form):
        with pytest.raises(MaskError, match="header is not 13 bytes"):
            read(path)
