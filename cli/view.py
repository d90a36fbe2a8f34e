"""The command ``quadcodec view``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["levels", "detail", "tree"]),
    default="levels",
    show_default=True,
    help="levels: the nodes of each level. detail: the image as each level knows it. tree: the cells over the photo.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="PNG to write.  [default: open a window]")
@click.option("--photos", type=click.Path(path_type=Path), help="Folder of the photos.  [default: as in the store]")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def view(
    store: Path, images: tuple[str, ...], kind: str, output: Path | None, photos: Path | None, overwrite: bool
) -> None:
    """Draw images of a store (their names or numbers) as Tables 8 and 9 of the paper do, or over the photo.

    \b
    quadcodec view out.zarr 0                       opens a window
    quadcodec view out.zarr 0 1 2 -o levels.png     a row for each image
    quadcodec view out.zarr 0 --as tree -o tree.png
    """
    from quadcodec.render import check_display, check_picture, show_picture, write_picture
    from quadcodec.store import open_store
    from quadcodec.view import view

    if output is None:
        check_display()
    else:
        check_picture(output, overwrite=overwrite)
    opened = open_store(store)
    indices = [opened.find(image) for image in images]
    picture = view(opened, indices, kind, photos=photos)
    names = ", ".join(opened.names[i] for i in indices)
    if output is None:
        show_picture(picture, names)
    else:
        write_picture(output, picture, overwrite=overwrite)
        click.echo(f"{output}: {kind} of {names}")
