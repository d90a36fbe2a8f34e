from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

import quadcodec
from qgn.data.batch import VOID
from qgn.data.classes import ClassMap, class_map, class_shares, count_pixels
from qgn.data.dataset import SegmentationDataset
from qgn.data.photos import MEAN, STD, read_photo
from qgn.data.sampler import TrainingOrder
from qgn.data.samples import Samples, collate, load_sample, raising
from qgn.data.views import Views
from qgn.errors import TrainingError
from qgn.losses import QuadtreeLoss
from qgn.models.build import build_model
from qgn.sparse.frontier import IGNORE_INDEX
from quadcodec.errors import MaskError
from quadcodec.pyramid import TPyramid
from quadcodec.quadtree import LinearQuadtree


def samples_of(store, seed=0, **views):
    classes = class_map(store, count_pixels(store, range(len(store))))
    return Samples(store, Path(store.info.image_root), classes, Views(**views), seed)


def painted_classes(images_hw3):
    """Read the classes off the photos of the `painted` store; 10 is void."""
    return np.rint(images_hw3[..., 0] / 20).astype(int)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 4), st.integers(0, 10**6), st.booleans())
def test_photo_and_tree_always_agree(painted, index, draw, crop):
    samples = samples_of(painted, flip=True, crop=(32, 64) if crop else None, seed=3)
    sample = samples[index, draw]
    mask = sample.tree.to_mask()
    np.testing.assert_array_equal(painted_classes(sample.photo), np.where(mask == VOID, 10, mask))
    assert sample.photo.shape[:2] == (sample.tree.height, sample.tree.width)


def test_draws_flip_and_crop_as_a_pure_function(painted):
    samples = samples_of(painted, flip=True, crop=(32, 32), seed=1)
    first = [samples[2, draw].photo.tobytes() for draw in range(20)]
    assert first == [samples[2, draw].photo.tobytes() for draw in range(20)]
    assert len(set(first)) > 2


def test_a_batch_places_every_image_where_its_tree_has_it(painted):
    samples = samples_of(painted, flip=True)
    items = [samples[i, 10 + i] for i in range(5)]
    assert any(item.tree.origin[1] for item in items)
    batch = collate(items)
    assert batch.images_bchw.shape == (5, 3, 96, 96)
    labels = batch.labels
    assert labels.grid == (5, 3, 3)
    for b, item in enumerate(items):
        (y, x), (height, width) = item.tree.origin, item.photo.shape[:2]
        photo = batch.images_bchw[b].permute(1, 2, 0).numpy() * STD + MEAN
        np.testing.assert_allclose(photo[y : y + height, x : x + width], item.photo, atol=1e-3)
        outside = np.ones((96, 96), bool)
        outside[y : y + height, x : x + width] = False
        assert (batch.images_bchw[b].numpy()[:, outside] == 0).all()


def test_resized_photo_and_tree_are_those_of_the_size(painted):
    sample = samples_of(painted, size=(20, 35))[0, 0]
    assert sample.photo.shape == (20, 35, 3)
    table = dict.fromkeys([255], VOID) | {i: i for i in range(4)}
    np.testing.assert_array_equal(
        sample.tree.to_mask(), quadcodec.resample(painted.quadtree(0).remap(table), (20, 35)).to_mask()
    )


def test_no_raster_is_made_on_the_way_to_the_loss(painted, monkeypatch):
    samples = samples_of(painted, flip=True, crop=(32, 64))
    model, criterion = build_model("qgn_resnet18", 4, width=2), QuadtreeLoss()

    def forbidden(*args, **kwargs):
        raise AssertionError("a raster was made")

    monkeypatch.setattr(LinearQuadtree, "to_level", forbidden)
    monkeypatch.setattr(TPyramid, "from_mask", forbidden)
    monkeypatch.setattr(TPyramid, "__init__", forbidden)
    with pytest.raises(AssertionError, match="a raster was made"):
        painted[0]
    batch = collate([samples[i, i] for i in range(4)])
    prediction = model(batch.images_bchw, batch.labels, "gtc")
    for level, targets in enumerate(prediction.targets):
        assert torch.equal(targets, batch.labels.level(level).long())  # the node list is the target vector
    criterion(prediction.logits, prediction.targets).total.backward()


def test_targets_are_the_remapped_nodes(scenes):
    store = quadcodec.open(scenes)
    samples = samples_of(store)
    batch = collate([samples[0, 0]])
    tree = store.quadtree(0).remap(samples.classes.table)
    for level in range(6):
        values = tree.level(level).astype(int)
        expected = np.where((values == VOID) | (values == -2), IGNORE_INDEX, values + 1)
        np.testing.assert_array_equal(batch.labels.level(level).numpy(), expected)


def test_classes_of_a_manifest(scenes):
    store = quadcodec.open(scenes)
    pixels = count_pixels(store, range(len(store)))
    classes = class_map(store, pixels)
    assert classes.names[:3] == ("road", "sidewalk", "building")
    assert len(classes) == 19
    assert classes.table[7] == 0
    assert classes.table[1] == VOID
    assert classes.raw_ids[:3] == (7, 8, 11)
    rows = class_shares(classes, pixels)
    assert sum(share for _, _, share in rows) == pytest.approx(100)
    assert rows[-1][0] == "ignored"
    with pytest.raises(TrainingError, match=r"ids \[99\] occur, but the manifest 'cityscapes' does not name them"):
        class_map(store, {7: 1, 99: 1})
    assert class_map(store, {7: 1, 99: 1}, void=[99]).table[99] == VOID


def test_void_adds_to_the_stores_and_empty_classes_vanish(scenes, tmp_path):
    store = quadcodec.open(scenes)
    whole, fewer = class_map(store, [7]), class_map(store, [7], void=[8])
    assert whole.table[8] == 1
    assert (len(fewer), fewer.names[:2], fewer.table[8], fewer.table[11]) == (18, ("road", "building"), VOID, 1)
    assert fewer.raw_ids == tuple(raw for raw in whole.raw_ids if raw != 8)
    assert fewer.colors == whole.colors[:1] + whole.colors[2:]
    masks = plain(tmp_path, [3, 7, 9], void=[9])
    assert class_map(masks, [3, 7, 9], void=[7]).table == {3: 0, 7: VOID, 9: VOID}
    assert class_map(masks, [3, 7, 9], void=[]).table == {3: 0, 7: 1, 9: 2}


def test_a_class_without_an_id_is_no_class():
    with pytest.raises(ValueError, match=r"classes \['b'\] have no raw id"):
        ClassMap(("a", "b"), {3: 0, 4: VOID}, ((0, 0, 0), (1, 1, 1)))


def test_an_image_that_cannot_be_read_is_a_value_until_it_is_raised(painted):
    photo = Path(painted.info.image_root) / "2.png"
    photo.write_bytes(photo.read_bytes()[:-40])
    samples = samples_of(painted)
    assert isinstance(samples[2, 0], TrainingError)
    good, bad = DataLoader(
        samples, batch_sampler=[[(0, 0)], [(1, 0), (2, 0), (2, 1)]], collate_fn=collate, num_workers=1
    )
    assert good.indices == (0,)
    assert isinstance(bad, TrainingError)
    batches = raising([good, bad])
    assert next(batches) is good
    with pytest.raises(TrainingError, match=r"2\.png: the photo cannot be read .*leave it out$"):
        next(batches)


def plain(tmp_path, values, void=()):
    mask = np.resize(np.array(values, np.uint8), (4, 4))
    return quadcodec.write(tmp_path / "plain.zarr", [mask], void=void)


def test_nothing_is_guessed_in_a_plain_folder(tmp_path):
    store = plain(tmp_path, [0, 255])
    with pytest.raises(TrainingError, match="Use void=255 if it is unlabelled, or void=none if it is a class"):
        class_map(store, [0, 255])
    assert class_map(store, [0, 255], void=[255]).table == {0: 0, 255: VOID}
    assert class_map(store, [0, 255], void=[]).table == {0: 0, 255: 1}
    with pytest.raises(TrainingError, match=r"id 255 occurs among 0, 1, 2, 3, 4, 5, \.\., and nothing"):
        class_map(store, range(256))


def test_ids_of_a_plain_folder_are_its_classes(tmp_path):
    store = plain(tmp_path, [3, 7, 9], void=[9])
    classes = class_map(store, [3, 7, 9])
    assert classes.names == ("3", "7")
    assert classes.table == {3: 0, 7: 1, 9: VOID}
    with pytest.raises(TrainingError, match="found 0 training classes"):
        class_map(store, [9])


def test_ids_outside_the_map_are_refused_by_name(painted):
    classes = class_map(painted, [0, 1, 2, 3], void=[])
    with pytest.raises(MaskError, match=r"painted\.zarr: record 0 '0': ids \[255\] are not in the label map"):
        load_sample(painted, 0, Path(painted.info.image_root), classes)


def test_every_epoch_takes_every_image_once():
    order = TrainingOrder(range(10), batch_size=4, steps=10, seed=5)
    draws = [key for batch in order for key in batch]
    assert [draw for _, draw in draws] == list(range(40))
    for epoch in range(4):
        assert Counter(image for image, _ in draws[10 * epoch : 10 * epoch + 10]) == Counter(range(10))
    assert draws[:10] != draws[10:20]
    assert list(order) == list(TrainingOrder(range(10), 4, 10, 5))
    assert list(islice(order, 2)) != list(islice(TrainingOrder(range(10), 4, 10, 6), 2))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 3), st.integers(0, 9), st.integers(0, 9))
def test_the_order_starts_at_any_step_and_parts_make_the_whole(images, part, world, start, steps):
    start = min(start, steps)
    whole = list(TrainingOrder(range(images), part * world, steps, 7))
    parts = [TrainingOrder(range(images), part * world, steps, 7, start, rank, world) for rank in range(world)]
    assert [len(own) for own in parts] == [steps - start] * world
    batches = [[key for own in batch for key in own] for batch in zip(*parts, strict=True)]
    assert batches == whole[start:]
    assert {len(own) for batch in zip(*parts, strict=True) for own in batch} <= {part}


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"batch_size": 3, "world": 2}, "rank 0 of 2 and a batch of 3"),
        ({"rank": 1}, "rank 1 of 1"),
        ({"start": 6}, "start is 6, expected 0..5"),
    ],
)
def test_an_order_that_cannot_be_is_refused(values, found):
    with pytest.raises(ValueError, match=found):
        TrainingOrder(range(4), **{"batch_size": 2, "steps": 5, "seed": 0} | values)


def test_photos_that_cannot_serve_are_named(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    assert read_photo(path).shape == (60, 80, 3)
    with pytest.raises(TrainingError, match=r"a\.jpg: photo of 60 x 80 pixels .* its mask has 60 x 81"):
        read_photo(path, native=(60, 81))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(TrainingError, match=r"a\.jpg: the photo cannot be read"):
        read_photo(path)
    with pytest.raises(TrainingError, match=r"none\.jpg: the photo cannot be read"):
        read_photo(tmp_path / "none.jpg")


@pytest.mark.parametrize(
    "image", ["../secret.png", "/etc/secret.png", "a/../../secret.png", "link.png", "linked/secret.png"]
)
def test_a_photo_never_lies_outside_the_image_root(tmp_path, image):
    (tmp_path / "root").mkdir()
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "secret.png")
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "root" / "linked").symlink_to(tmp_path)
    store = quadcodec.write(
        tmp_path / "out.zarr", [np.zeros((2, 2), np.uint8)], images=[image], image_root=str(tmp_path / "root")
    )
    with pytest.raises(TrainingError, match="leads out of the image root"):
        SegmentationDataset.open(store.path)


def test_links_within_the_image_root_are_followed(tmp_path):
    (tmp_path / "root" / "photos").mkdir(parents=True)
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "root" / "photos" / "a.png")
    (tmp_path / "root" / "link.png").symlink_to("photos/a.png")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "root")
    store = quadcodec.write(
        tmp_path / "out.zarr", [np.zeros((2, 2), np.uint8)], images=["link.png"], image_root=str(tmp_path / "elsewhere")
    )
    assert len(SegmentationDataset.open(store.path)) == 1


def test_the_data_set_for_other_loops(painted):
    dataset = SegmentationDataset.open(painted.path, "train")
    assert len(dataset) == 4
    photo, mask = dataset[0]
    assert photo.shape == (3, 40, 70)
    assert photo.dtype == torch.uint8
    assert mask.dtype == torch.int64
    np.testing.assert_array_equal(mask.numpy(), painted[0])
    tree = SegmentationDataset.open(painted.path, target="tree")[4][1]
    np.testing.assert_array_equal(tree.to_mask(), painted[4])
    doubled = SegmentationDataset.open(painted.path, transform=lambda p, m: (p, 2 * m))
    assert torch.equal(doubled[0][1], 2 * mask)
    photos, masks = next(iter(DataLoader(dataset, batch_size=1, num_workers=1)))
    assert photos.shape == (1, 3, 40, 70)
    assert masks.shape == (1, 40, 70)


def test_images_without_photos_are_left_out(painted):
    (Path(painted.info.image_root) / "1.png").unlink()
    assert SegmentationDataset.open(painted.path, "train").indices == (0, 2, 3)
    with pytest.raises(TrainingError, match="no image of split 'train' has a photo"):
        SegmentationDataset.open(painted.path, "train", images="/nowhere")
