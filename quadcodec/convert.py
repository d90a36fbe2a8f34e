"""Conversion: a folder of masks -> a store, one shard a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .build import (
    clear_replaced,
    create,
    finish,
    is_label_store,
    remove_store,
    restore_replaced,
    write_shard,
)
from .errors import ManifestError, MaskError, QuadcodecError, StoreError
from .files import exclusive, is_held
from .info import ClassInfo, Columns, Problem, StoreInfo
from .manifest import Manifest, Source, detect_manifest, find_masks, load_manifest
from .masks import image_size, mask_form, mask_size, read_mask
from .ngff import add_levels, check_levels
from .parallel import processes
from .record import encode
from .shard import EMPTY, choose_shard_size, read_shard_index, shard_path
from .store import open_store, partial_path, store_attributes, stored_plan, stored_tables
from .table_training import train_on_masks
from .tables import Tables

__all__ = ["Plan", "Report", "check_target", "convert", "plan_conversion", "planned", "worker_pool"]


@dataclass(frozen=True, eq=False)
class Plan:
    """Describe a conversion before it starts: every image, its size, and the store's description."""

    root: Path
    info: StoreInfo
    columns: Columns
    sizes: NDArray[np.uint32]
    dtype: np.dtype[Any]
    colors: dict[tuple[int, int, int], int] | None
    own_tables: bool = False
    """Train the small profile's tables on these masks, and keep them in the store."""

    @property
    def num_shards(self) -> int:
        """Number of shards, each of them one task."""
        return -(-len(self.columns) // self.info.shard_size)

    @property
    def without_photo(self) -> int:
        """Number of masks that have no photo."""
        return sum(not image for image in self.columns.image)

    def without(self, problems: Sequence[Problem]) -> Plan:
        """Leave out the masks that ``problems`` name."""
        bad = {problem.path for problem in problems}
        keep = [i for i, source in enumerate(self.columns.source) if source not in bad]
        if not keep:
            raise ManifestError(f"{self.root}: no mask can be read, the first because: {problems[0].message}")
        columns = Columns(*(tuple(values[i] for i in keep) for values in vars(self.columns).values()))
        info = replace(
            self.info,
            shard_size=choose_shard_size(len(keep)),
            splits=tuple(dict.fromkeys(columns.split)),
            skipped=(*self.info.skipped, *problems),
        )
        return replace(self, columns=columns, info=info, sizes=self.sizes[keep])


@dataclass(frozen=True)
class Report:
    """Say what a conversion did."""

    path: str
    dataset: str
    splits: dict[str, int]
    """Number of images by split."""
    pixels: int
    stored_bytes: int
    source_bytes: int
    without_photo: int
    skipped: tuple[Problem, ...]


def plan_conversion(
    root: str | Path,
    *,
    layout: str = "auto",
    splits: Sequence[str] | None = None,
    void: Sequence[int] | None = None,
    levels: int = 6,
    profile: str = "fast",
    own_tables: bool = False,
    skip_bad: bool = False,
) -> Plan:
    """Find a data set's masks and photos and read their sizes; nothing is written.

    Parameters
    ----------
    root : the data set's folder.
    layout : the name of a manifest, or 'auto' to recognise it.
    splits : those to take; by default all that have masks.
    void : ids that are unlabelled, where the manifest knows none.
    levels, profile : as `quadcodec.encode`.
    own_tables : with the small profile: train its tables on these masks, and keep them in the store.
    skip_bad : leave out masks that cannot be read instead of raising.

    Raises
    ------
    ManifestError : no masks, an unknown split, photos without masks, or a photo of another size than its mask.
    MaskError : a mask cannot be read.
    ValueError : tables of its own for another profile than 'small'.
    """
    if own_tables and profile != "small":
        raise ValueError(f"profile is {profile!r}, and only 'small' has tables")
    root = Path(root)
    manifest = detect_manifest(root) if layout == "auto" else load_manifest(layout)
    data = find_masks(root, manifest, splits)
    if data.unmatched_photos:
        raise ManifestError(
            f"{root / data.unmatched_photos[0]}: this photo has no mask ({len(data.unmatched_photos)} such photos). "
            "Add their masks, move the photos away, or choose other splits with --split"
        )
    sizes, bits, forms, kept, problems = [], 8, [], [], []
    for source in data.sources:
        try:
            height, width, mask_bits = _check_source(root, source, manifest)
            forms.append(mask_form(root / source.mask))
        except MaskError as error:
            if not skip_bad:
                raise
            problems.append(Problem(source.mask, str(error)))
            continue
        sizes.append((height, width))
        bits = max(bits, mask_bits)
        kept.append(source)
    if not kept:
        raise ManifestError(f"{root}: no mask can be read, the first because: {problems[0].message}")
    columns = Columns(
        tuple(s.name for s in kept), tuple(s.split for s in kept), tuple(s.mask for s in kept),
        tuple(s.image for s in kept), tuple(forms),
    )  # fmt: skip
    info = StoreInfo(
        dataset=manifest.name,
        splits=tuple(dict.fromkeys(columns.split)),
        classes=_classes(manifest),
        train_classes=manifest.class_names,
        void=tuple(sorted({*manifest.void, *(void or ())})),
        color_masks=manifest.color_masks,
        image_root=str(root.resolve()),
        published=manifest.published,
        skipped=tuple(problems),
        levels=levels,
        profile=profile,
        shard_size=choose_shard_size(len(kept)),
    )
    dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
    return Plan(root, info, columns, np.array(sizes, np.uint32), dtype, manifest.mask_colors, own_tables)


def _classes(manifest: Manifest) -> tuple[ClassInfo, ...]:
    return tuple(
        ClassInfo(i, manifest.labels.get(i, str(i)), manifest.colors.get(i), manifest.class_ids.get(i))
        for i in sorted({*manifest.labels, *manifest.colors})
    )


def _check_source(root: Path, source: Source, manifest: Manifest) -> tuple[int, int, int]:
    """Return height, width and bits of a mask; raise ManifestError if its photo has another size."""
    height, width, bits = mask_size(root / source.mask, colors=manifest.mask_colors)
    if source.image:
        photo = image_size(root / source.image)
        if photo != (height, width):
            raise ManifestError(
                f"{root / source.image}: photo of {photo[0]} x {photo[1]} pixels (height x width), but its mask "
                f"{source.mask} has {height} x {width}. Mend the pair or move it away"
            )
    return height, width, bits


@dataclass(frozen=True)
class _ShardTask:
    """Carry what a worker needs to make one shard."""

    root: Path
    target: Path
    shard: int
    sources: tuple[str, ...]
    sizes: NDArray[np.uint32]
    info: StoreInfo
    dtype: np.dtype[Any]
    colors: dict[tuple[int, int, int], int] | None
    tables: Tables | None
    skip_bad: bool


def _convert_shard(task: _ShardTask) -> tuple[int, tuple[Problem, ...]]:
    """Read, encode and write the masks of one shard; with problems nothing is written."""
    records, problems = [], []
    for source, (height, width) in zip(task.sources, task.sizes, strict=True):
        try:
            mask = read_mask(task.root / source, colors=task.colors)
            if mask.shape != (height, width) or mask.itemsize > task.dtype.itemsize:
                raise MaskError(
                    f"{task.root / source}: found {mask.dtype} of {mask.shape[0]} x {mask.shape[1]} pixels, expected "
                    f"{task.dtype} of {height} x {width} as its header said. The file changed: convert again"
                )
        except MaskError as error:
            if not task.skip_bad:
                raise
            problems.append(Problem(source, str(error)))
            continue
        records.append(encode(mask, levels=task.info.levels, profile=task.info.profile, tables=task.tables))
    if not problems:
        write_shard(task.target, task.shard, records, task.info.shard_size)
    return len(task.sources), tuple(problems)


def convert(
    plan: Plan,
    target: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    skip_bad: bool = False,
    pyramid: Sequence[int] = (),
    executor: Executor | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Report:
    """Carry out a plan.

    The store grows in ``TARGET.partial`` and gets its name when it is complete, so that no reader ever
    meets half a store; ``pyramid`` joins it then, as whole. What is finished when an error or a kill ends
    the run is taken up by ``resume``.

    Parameters
    ----------
    overwrite : replace a label store at ``target`` (when the new one is complete), and begin anew.
    resume : keep the shards of an earlier, unfinished run of the same plan.
    skip_bad : leave out masks that cannot be read instead of raising.
    pyramid : levels to write as ordinary arrays, too: pyramid/5, .. (docs/format.md, section 7).
    executor : runs one task a shard; without one all run here.
    progress : called with the number of images done since the last call.

    Raises
    ------
    StoreError : the target exists, the disk refuses, no such level, or an unfinished run had another plan.
    MaskError : a mask cannot be read.
    """
    target = Path(target)
    check_target(target, overwrite=overwrite, resume=resume)
    check_levels(pyramid, plan.info.levels, str(target))
    with exclusive(target):
        check_target(target, overwrite=overwrite, resume=resume, held=True)  # again: another may have been faster
        partial = partial_path(target)
        if resume and not partial.exists() and target.exists():
            clear_replaced(target)
            plan = _check_same_plan(plan, target, skip_bad)
            add_levels(target, pyramid)
            return _report(plan, target)
        replaces = overwrite or _replaces(partial)
        if resume and _is_begun(partial):
            plan = _check_same_plan(plan, partial, skip_bad)
            tables = stored_tables(partial)
            for leftover in partial.rglob("*.partial"):
                leftover.unlink()
        else:
            restore_replaced(target)
            if target.exists() and not replaces:  # a kill came before anything said that it may be replaced
                raise StoreError(f"{target}: exists already. Choose another name, or replace it with --overwrite")
            tables = _train_tables(plan, skip_bad) if plan.own_tables else None
            _begin(plan, partial, tables, replaces)
        while problems := _run_or_keep(plan, partial, tables, skip_bad, executor, progress):
            progress(-len(plan.columns))
            plan = plan.without(problems)  # the images after a gap move up, so every shard is made again
            _begin(plan, partial, tables, replaces)
        finish(partial, target)
        add_levels(target, pyramid)
        return _report(plan, target)


def _replaces(partial: Path) -> bool:
    """Whether an earlier run was told to replace a store."""
    try:
        return bool(store_attributes(partial).get("replaces"))
    except StoreError:
        return False


def _begin(plan: Plan, partial: Path, tables: Tables | None, replaces: bool) -> None:
    if partial.exists():
        remove_store(partial)
    create(partial, plan.info, plan.columns, plan.sizes, plan.dtype, tables=tables, replaces=replaces)


def _run_or_keep(
    plan: Plan,
    partial: Path,
    tables: Tables | None,
    skip_bad: bool,
    executor: Executor | None,
    progress: Callable[[int], object],
) -> list[Problem]:
    """Write the shards that are missing; on an error keep what --resume can use, and say so."""
    try:
        return _run(plan, partial, tables, skip_bad, executor, progress)
    except BaseException as error:
        done = len(list((partial / "labels" / "c").glob("*/0/0")))
        if not done:
            remove_store(partial)
        elif isinstance(error, QuadcodecError):
            kept = f"{done} of {plan.num_shards} shards are kept in {partial}: continue with --resume"
            raise type(error)(f"{error} ({kept})") from error
        raise


def check_target(target: Path, *, overwrite: bool, resume: bool, held: bool = False) -> None:
    """Raise StoreError if a conversion may not write to ``target``: before anything is read.

    ``held`` says that the caller has the right to write there, so that nobody else can.
    """
    partial = partial_path(target)
    if overwrite and resume:
        raise ValueError("overwrite begins anew, resume continues: choose one of them")
    if not target.parent.is_dir():
        raise StoreError(f"{target.parent}: no such folder, so {target.name} cannot be made there. Make it first")
    if not held and is_held(target):
        raise StoreError(f"{target}: another process is writing it. Wait until it ends")
    for path in (target, partial):
        if overwrite and path.exists() and not is_label_store(path):
            raise StoreError(f"{path}: is no store, so it is not overwritten. Move it away or choose another name")
    if target.exists() and not (overwrite or resume):
        raise StoreError(f"{target}: exists already. Choose another name, or replace it with --overwrite")
    if partial.exists() and not (overwrite or resume):
        raise StoreError(
            f"{partial}: an earlier conversion did not finish. Continue it with --resume, "
            "or begin anew with --overwrite"
        )


def _is_begun(partial: Path) -> bool:
    """Whether an earlier run got as far as its description, which is written last and not half deleted."""
    try:
        return "format_version" in store_attributes(partial) and (partial / "index" / "zarr.json").exists()
    except StoreError:
        return False


def _check_same_plan(plan: Plan, path: Path, skip_bad: bool) -> Plan:
    """Return the plan, less what the run at ``path`` skipped; refuse to mix it with a run of another plan."""
    info, columns, sizes = stored_plan(path)
    present = {problem.path: problem for problem in info.skipped}
    skipped = [present[source] for source in plan.columns.source if source in present]
    if skipped and skip_bad:
        plan = plan.without(skipped)
    for name in vars(info):
        if getattr(info, name) != getattr(plan.info, name):
            raise StoreError(
                f"{path}: was begun with {name} {getattr(info, name)!r}, now it is {getattr(plan.info, name)!r}. "
                "Use the same options, or begin anew with --overwrite"
            )
    if columns != plan.columns:
        raise StoreError(
            f"{path}: was begun with another list of images ({len(columns)} then, {len(plan.columns)} now). "
            "Restore the source folder, or begin anew with --overwrite"
        )
    if (stored_tables(path) is not None) != plan.own_tables:
        raise StoreError(
            f"{path}: was begun with{'out' if plan.own_tables else ''} tables of its own. "
            "Use the same options, or begin anew with --overwrite"
        )
    changed = np.flatnonzero((sizes != plan.sizes).any(axis=1))
    if len(changed):
        raise StoreError(
            f"{path}: {plan.columns.source[changed[0]]} has another size than when the run was begun. "
            "Restore the source folder, or begin anew with --overwrite"
        )
    return plan


def _train_tables(plan: Plan, skip_bad: bool) -> Tables:
    """Return tables trained on masks of a plan, in an order that is always the same."""

    def masks() -> Iterator[NDArray[Any]]:
        for i in np.random.default_rng(0).permutation(len(plan.columns)):
            try:
                yield read_mask(plan.root / plan.columns.source[i], colors=plan.colors)
            except MaskError:
                if not skip_bad:
                    raise

    return train_on_masks(masks())


def _run(
    plan: Plan,
    partial: Path,
    tables: Tables | None,
    skip_bad: bool,
    executor: Executor | None,
    progress: Callable[[int], object],
) -> list[Problem]:
    tasks = []
    size = plan.info.shard_size
    for shard in range(plan.num_shards):
        part = slice(shard * size, (shard + 1) * size)
        sources = plan.columns.source[part]
        if _is_written(plan.root, partial, shard, size, sources):
            progress(len(sources))
            continue
        task = _ShardTask(
            plan.root, partial, shard, sources, plan.sizes[part], plan.info, plan.dtype, plan.colors, tables, skip_bad
        )
        tasks.append(task)
    problems: list[Problem] = []
    if executor is None:
        for task in tasks:
            done, found = _convert_shard(task)
            problems.extend(found)
            progress(done)
        return problems
    futures: list[Future[tuple[int, tuple[Problem, ...]]]] = [executor.submit(_convert_shard, task) for task in tasks]
    try:
        for future in as_completed(futures):
            done, found = future.result()
            problems.extend(found)
            progress(done)
    except BrokenExecutor as error:
        raise StoreError(
            f"{partial}: a worker process died, perhaps for lack of memory. Run again with --resume --workers 1"
        ) from error
    finally:
        for future in futures:
            future.cancel()
        wait(futures)  # whoever is still writing must be done before the caller tidies up
    return sorted(problems, key=lambda p: p.path)


def _is_written(root: Path, partial: Path, shard: int, shard_size: int, sources: Sequence[str]) -> bool:
    """Whether an earlier run wrote a shard whole, and no source has changed since; writes are atomic."""
    path = shard_path(partial, shard)
    try:
        index = read_shard_index(path, shard_size)
        written = path.stat().st_mtime
        # ctime, since a copy or an archive may set an older mtime
        fresh = all((root / source).stat().st_ctime <= written for source in sources)
    except (StoreError, OSError):
        return False
    return fresh and bool((index[: len(sources), 0] != EMPTY).all())


def _report(plan: Plan, target: Path) -> Report:
    store = open_store(target)
    return replace(planned(plan, target), stored_bytes=sum(store.stored_bytes(i) for i in range(len(store))))


def planned(plan: Plan, target: str | Path) -> Report:
    """Return what a conversion would report, with nothing stored."""
    counts = {split: plan.columns.split.count(split) for split in plan.info.splits}
    return Report(
        path=str(target),
        dataset=plan.info.dataset,
        splits=counts,
        pixels=int(plan.sizes.astype(np.int64).prod(axis=1).sum()),
        stored_bytes=0,
        source_bytes=sum((plan.root / source).stat().st_size for source in plan.columns.source),
        without_photo=plan.without_photo,
        skipped=plan.info.skipped,
    )


@contextmanager
def worker_pool(plan: Plan, workers: int) -> Iterator[Executor | None]:
    """Yield an executor of processes for a plan, or None where one process does as well.

    The encoder's kernels are compiled here first and left in numba's cache, so that workers only load them.
    """
    workers = min(workers, plan.num_shards)
    if workers == 1:
        yield None
        return
    encode(np.eye(2, dtype=plan.dtype), levels=plan.info.levels, profile=plan.info.profile)
    with processes(workers) as executor:
        yield executor
