"""What a user installs: the extras, the entry points, and what importing costs."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import entry_points, metadata, requires, version
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
    assert "spconv-triton" in requirements("spconv-triton")
    assert {"crackle-codec", "matplotlib", "spconv"} <= set(requirements("bench"))
    assert {"hypothesis", "import-linter", "mypy", "pytest", "ruff"} <= set(requirements("dev"))


def test_torch_is_pinned_for_make_and_ci_only():
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().split()
    assert "constraints.txt" in (ROOT / "Makefile").read_text()


def test_zarr_finds_the_codec_by_its_entry_point():
    (found,) = [e for e in entry_points(group="zarr.codecs") if e.name == "quadcodec.quadtree"]
    assert found.load().__name__ == "QuadtreeCodec"


@pytest.mark.parametrize("statement", ["from quadcodec_cli.main import cli", "import quadcodec", "import qgn"])
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel as a user's pip does; return its path."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools builds in place, and old leftovers would end up in the wheel
    source.mkdir()
    for part in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / part, source)
    for part in ("quadcodec", "qgn", "cli", "data_manifests"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def run_installed(wheel, tmp_path_factory):
    """Return a function that runs Python statements on the wheel's contents, and on no file of the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    # -S runs no .pth file, so the editable install's import hook, which would fill in what the wheel lacks, is off;
    # other packages are found by the path instead.
    path = os.pathsep.join([str(folder), *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}])
    check = (
        "\nimport sys\n"
        "ours = [m for n, m in sys.modules.items() if n.split('.')[0] in ('quadcodec', 'quadcodec_cli', 'qgn')]\n"
        f"assert ours and all(m.__file__.startswith({str(folder) + os.sep!r}) for m in ours), ours\n"
        "assert not any('editable' in str(f) for f in sys.meta_path), sys.meta_path\n"
    )

    def run(statements, *arguments):
        program = f"import atexit\natexit.register(exec, {check!r}, {{}})\n{statements}"
        done = subprocess.run(
            [sys.executable, "-S", "-c", program, *arguments],
            cwd=folder.parent, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")  # what atexit finds is told on stderr only
        return done.stdout

    return run


def test_a_wheel_holds_the_packages_and_claims_no_other_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"quadcodec", "quadcodec_cli", "qgn"}
    folders = {"quadcodec": "quadcodec", "qgn": "qgn", "quadcodec_cli": "cli", "quadcodec/manifests": "data_manifests"}
    for package, folder in folders.items():
        files = [p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".toml", ".bin", ".html")]
        assert {f"{package}/{p.relative_to(ROOT / folder).as_posix()}" for p in files} <= set(names)
    assert {"quadcodec/kernels/tree.py", "quadcodec/manifests/cityscapes.toml"} <= set(names)


def test_the_commands_of_a_wheel_run(run_installed):
    start = "from quadcodec_cli.main import main; main()"
    text = run_installed(start, "--help")
    assert {"bench", "convert", "export", "info", "report", "stats", "validate", "view"} <= set(text.split())
    assert run_installed(start, "--version").split()[-1] == version("quadcodec")


def test_the_manifests_of_a_wheel_load(run_installed):
    statements = (
        "from quadcodec.manifest import load_manifest, manifest_names\n"
        "for name in manifest_names(): print(load_manifest(name).name)"
    )
    names = {p.stem for p in (ROOT / "data_manifests").glob("*.toml")}
    assert set(run_installed(statements).split()) == names


def test_the_codec_of_a_wheel_round_trips(run_installed, tmp_path):
    statements = """
import sys
import numpy as np
import zarr
import quadcodec
from quadcodec.record import PROFILES
mask = np.zeros((40, 50), np.uint8)
mask[7:30, 11:] = np.arange(39) % 5
for profile in PROFILES:
    np.testing.assert_array_equal(quadcodec.decode(quadcodec.encode(mask, profile=profile)), mask)
store = quadcodec.write(sys.argv[1], [mask])
np.testing.assert_array_equal(store[0], mask)
np.testing.assert_array_equal(zarr.open(sys.argv[1], mode="r")["labels"][0], mask)
print("equal")
"""
    assert run_installed(statements, str(tmp_path / "out.zarr")) == "equal\n"
