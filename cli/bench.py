"""The command ``quadcodec bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .tables import align

if TYPE_CHECKING:
    from quadcodec.bench.run import Report

ALL = "png,webp,jxl,zstd,zarr-default,crackle,compresso"


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--against", default=ALL, show_default=True, metavar="NAMES", help="Rivals, separated by commas.")
@click.option(
    "--format", "layout", default="auto", show_default=True, metavar="NAME", help="Of a folder, as in convert."
)
@click.option(
    "--megapixels", default=8.0, show_default=True, type=click.FloatRange(0, min_open=True),
    help="How many to measure; the masks are taken evenly from all of PATH, one at least.",
)  # fmt: skip
@click.option(
    "--tables", "tables_file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Table file of the small profile that never saw these masks, if the shipped tables did.",
)  # fmt: skip
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="PNG to draw: size against decoding speed.")
@click.option("--overwrite", is_flag=True, help="Replace the plot if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def bench(
    path: Path, against: str, layout: str, megapixels: float, tables_file: Path | None, picture: Path | None,
    overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure size and speed of quadcodec and rivals on your own masks.

    PATH is a folder of masks, a data set that convert knows, or a label store. Every codec's masks are compared
    with the originals. Speeds are of one thread, in millions of pixels of the whole image a second of CPU time,
    also where only a part is decoded: the least time of several calls on each mask, codecs in turns.

    \b
    bits/pixel  all bytes that a reader needs beside the installed package
    decode      to a dense raster
    nodes       to the nodes of the quadtree, without a raster
    8x8 cells   to T_3: a class for each cell of 8x8 pixels, or none
    region      256x256 pixels, at the same four places for every codec

    '-' (null in JSON): the codec has no such call. It would decode the whole mask, at the speed that stands
    under decode, and then crop it or count. A codec in chunks or tiles decodes those that a region touches.
    Every codec is called directly, zarr's default too: what zarr itself spends on a chunk is in no figure.

    small-own and zstd-own have tables (a dictionary) trained on the other half of these masks; their bytes are
    counted once for all masks of PATH. The shipped tables were trained on masks of ADE20K, CamVid, Cityscapes,
    COCO-Stuff, LoveDA, NYUv2, RELLIS-3D, VOC and some smaller sets: there, give other ones with --tables.

    \b
    quadcodec bench masks/
    quadcodec bench out.zarr --against zstd,crackle --plot frontier.png
    """
    from tqdm import tqdm

    from quadcodec.bench.rivals import RIVALS
    from quadcodec.bench.run import bench
    from quadcodec.tables import Tables

    names = [name.strip() for name in against.split(",") if name.strip()]
    unknown = [name for name in names if name not in RIVALS]
    if unknown:
        raise click.UsageError(f"rival {unknown[0]!r} is unknown, expected some of {','.join(RIVALS)}")
    if picture:
        from quadcodec.bench.plot import draw  # needs matplotlib: say so before the work starts
        from quadcodec.render import check_picture, write_picture

        check_picture(picture, overwrite=overwrite)
    tables = Tables.from_bytes(tables_file.read_bytes()) if tables_file else None
    with tqdm(desc="bench", unit="step", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        report = bench(path, against=names, layout=layout, megapixels=megapixels, tables=tables, progress=show)
    click.echo(json.dumps({"codecs": [r.to_json() for r in report.results]}) if as_json else text(report))
    for line in remarks(report):
        click.echo(line, err=True)
    if picture:
        write_picture(picture, draw(report), overwrite=overwrite)
    if any(row.profile and not result.lossless for row, result in report.pairs):
        raise click.exceptions.Exit(1)


def text(report: Report) -> str:
    """Return the machine, the masks and the table of figures."""
    from quadcodec.bench.run import environment

    sample = report.sample
    bits = "/".join(sorted({str(8 * mask.itemsize) for mask in sample.masks}))
    head = (
        f"{sample.path}: {sample.dataset}, {len(sample.masks)} of {sample.available} masks, "
        f"{sample.pixels / 1e6:.2f} megapixels, {bits}-bit ids\n{environment()}"
    )
    lines = [["codec", "setting", "bits/pixel", "encode", "decode", "nodes", "8x8 cells", "region"]]
    for row, r in report.pairs:
        speeds = (r.encode_mpix_s, r.decode_mpix_s, r.nodes_mpix_s, r.coarse_mpix_s, r.region_mpix_s)
        lines.append([r.name, row.setting, *(_figure(value) for value in (r.bpp, *speeds))])
    foot = "Speeds in megapixels of the whole image a second of CPU time; '-': no such call."
    return f"{head}\n\n{align(lines, left=2)}\n\n{foot}"


def _figure(value: float | None) -> str:
    """Return a number with four digits, or as whole."""
    return "-" if value is None else f"{value:.4g}" if value < 10 else f"{value:.0f}"


def remarks(report: Report) -> list[str]:
    """Return what a reader must know beside the figures: rivals left out, codecs that failed."""
    lines = [f"{r.name}: {r.problem}. Its figures are left out" for r in report.results if r.problem]
    if report.missing:
        modules = ", ".join(sorted(set(report.missing.values())))
        lines.append(
            f"left out: {', '.join(report.missing)} (not installed: {modules}). pip install 'quadcodec[bench]'"
        )
    return lines
