"""The Triton backend: its products, run in another process; its kernels, compiled for a GPU that is not here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qgn.errors import TrainingError

triton = pytest.importorskip("triton", reason="triton is not installed (extra 'triton')")
from qgn.sparse import triton_conv  # noqa: E402
from qgn.sparse.backends import load_backend  # noqa: E402
from qgn.sparse.sites import Sites  # noqa: E402

if triton_conv.INTERPRETED:
    pytest.skip("TRITON_INTERPRET is set: the kernels cannot be compiled", allow_module_level=True)

NAMES = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
PRODUCTS = ["forward", "input_gradient", "weight_gradient"]
SHARED_BYTES = 227 * 1024  # what a block may have on sm_90


@pytest.mark.parametrize("interpret", ["1", pytest.param("0", marks=pytest.mark.gpu)])
def test_products(interpret):
    """In Triton's interpreter, and with -m gpu on CUDA."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            Path(__file__).with_name("triton_products.py"),
        ],
        env={**os.environ, "TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    last = done.stdout.strip().splitlines()[-1]
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "passed" in last
    assert "skipped" not in last


def compiled(product, dtype, i, o):
    """Compile the kernel of a product for sm_90 as a launch with aligned tensors of i and o channels would."""
    transposed = product == "weight_gradient"
    kernel = triton_conv.multiply_transposed if transposed else triton_conv.gather_multiply
    given = triton_conv.tiles(dtype, i, o, transposed=transposed)
    options = {name: given.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion")}
    types = dict.fromkeys(("n", "i", "o", "splits", "place_stride", "i_stride", "o_stride"), "i32")
    types |= dict.fromkeys(("x_ptr", "dy_ptr", "weight_ptr", "y_ptr"), f"*{NAMES[dtype]}")
    types |= {"nbr_ptr": "*i32", "part_ptr": "*fp64" if dtype == torch.float64 else "*fp32"}
    if not transposed:
        turned = product == "input_gradient"
        given |= {"TURNED": turned, "i_stride" if turned else "o_stride": 1}
    names = kernel.arg_names
    signature = {name: "constexpr" if name in given else types[name] for name in names}
    ragged = ("n", "splits", *(("i", "o") if i % 16 or o % 16 else ()), *given)
    attrs = {(names.index(name),): [["tt.divisibility", 16]] for name in names if name not in ragged}
    constants = {(names.index(name),): value for name, value in given.items()}
    source = triton.compiler.ASTSource(kernel, signature, constants, attrs)
    return triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", 90, 32), options=options)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize(("dtype", "i", "o"), [*((dtype, 256, 256) for dtype in NAMES), (torch.bfloat16, 21, 37)])
def test_kernels_compile_for_sm_90(product, dtype, i, o, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = compiled(product, dtype, i, o)
    ptx, cubin = kernel.asm["ptx"], tmp_path / "kernel.cubin"
    assert ".target sm_90" in ptx
    assert kernel.metadata.shared <= SHARED_BYTES
    instructions = set(re.findall(r"^\t(?:@\S+ )?([a-z]+[.\w]*)", ptx, re.MULTILINE))
    assert not [name for name in instructions if name.startswith(("atom", "red.")) or "tf32" in name]
    if i == 256:
        assert any(name.startswith("wgmma.mma_async") for name in instructions) == (dtype.itemsize == 2)
        # The flat loop is pipelined; the one with a branch is not.
        assert any(name.startswith("cp.async") for name in instructions) == (product != "weight_gradient")
    cubin.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    usage = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    assert re.search(r"REG:\d+ STACK:0 ", usage), usage  # no register is spilled


def test_rows_that_are_not_on_cuda_are_refused():
    nothing = torch.empty(0, dtype=torch.int64)
    sites = Sites((1, 1, 1), nothing, nothing, torch.empty(9, 0, dtype=torch.int32))
    backend = load_backend("triton")
    x, weight = torch.empty(0, 4), torch.zeros(9, 4, 4)
    message = r"backend 'triton': found rows on cpu, expected CUDA. Use a CUDA device, or choose 'native'"
    with pytest.raises(TrainingError, match=message):
        backend.forward(x, weight, sites)
    for wants in ((True, False), (False, True)):
        with pytest.raises(TrainingError, match=message):
            backend.gradients(x, x, weight, sites, wants)
