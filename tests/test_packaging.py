"""What a user installs: the extras, the entry points, and what importing costs."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, metadata, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def requirements(extra=None):
    found = {}
    for line in requires("quadcodec"):
        requirement = Requirement(line)
        marker = str(requirement.marker or "")
        if ("extra ==" in marker) == (extra is not None) and (extra is None or f'extra == "{extra}"' in marker):
            found[requirement.name] = requirement
    return found


def test_the_core_is_light():
    core = requirements()
    assert set(core) == {"click", "google-crc32c", "numba", "numpy", "pillow", "tqdm", "zarr", "zstandard"}
    assert metadata("quadcodec")["Requires-Python"] == ">=3.11"
    assert "3.1.6" in core["zarr"].specifier
    assert "3.4.2" in core["zarr"].specifier
    assert "4.0" not in core["zarr"].specifier


def test_the_extras():
    train = requirements("train")
    assert {"torch", "safetensors"} <= set(train)
    assert all(version in train["torch"].specifier for version in ("2.11", "2.13.0", "2.14"))
    cu120 = requirements("spconv-cu120")["spconv-cu120"]
    assert cu120.marker.evaluate({"python_version": "3.11", "extra": "spconv-cu120"})
    assert not cu120.marker.evaluate({"python_version": "3.12", "extra": "spconv-cu120"})
    assert "spconv-cu126" in requirements("spconv-cu126")
    assert "crackle-codec" in requirements("bench")
    assert {"hypothesis", "import-linter", "mypy", "pytest", "ruff"} <= set(requirements("dev"))


def test_torch_is_pinned_for_make_and_ci_only():
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().split()
    assert "constraints.txt" in (ROOT / "Makefile").read_text()


def test_zarr_finds_the_codec_by_its_entry_point():
    (found,) = [e for e in entry_points(group="zarr.codecs") if e.name == "quadcodec.quadtree"]
    assert found.load().__name__ == "QuadtreeCodec"


@pytest.mark.parametrize("statement", ["from quadcodec_cli.main import cli", "import quadcodec"])
def test_help_imports_neither_numba_nor_torch(statement):
    code = f"{statement}\nimport sys\nprint(*(m for m in ('numba', 'torch', 'zarr', 'numpy') if m in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.split() == []


def test_no_module_of_quadcodec_needs_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pkgutil, importlib, quadcodec\n"
        "for m in pkgutil.walk_packages(quadcodec.__path__, 'quadcodec.'): importlib.import_module(m.name)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_wheel_holds_the_packages_and_claims_no_other_name(tmp_path):
    source = tmp_path / "source"  # setuptools builds in place, and old leftovers would end up in the wheel
    source.mkdir()
    for part in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / part, source)
    for part in ("quadcodec", "qgn", "cli", "data_manifests"):
        shutil.copytree(ROOT / part, source / part)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"quadcodec", "quadcodec_cli", "qgn"}
    assert "quadcodec/manifests/cityscapes.toml" in names
    assert "quadcodec_cli/main.py" in names
    assert "quadcodec/kernels/tree.py" in names
