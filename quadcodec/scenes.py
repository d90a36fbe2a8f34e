"""Generated street scenes: photos and masks in Cityscapes' layout, from a seed.

`python -m quadcodec.scenes OUT --count 20` writes a data set to try everything on before a real one is at hand.
Contours are drawn as an annotator's polygons are, and the share of pixels in each quadtree level is near that of
Cityscapes (Table 5 of the paper). What things look like is in scene_objects.py; this file says where they stand,
gives the photo its light, texture and air, and writes the files.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from quadcodec import scene_canvas as street
from quadcodec import scene_objects as draw
from quadcodec.errors import QuadcodecError, StoreError
from quadcodec.files import new_folder
from quadcodec.scene_canvas import Array, Camera, Canvas, Rng, box, pick

Bytes = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]
Thing = tuple[float, Callable[[Canvas, Rng], None]]  # its Z in metres, and how to draw it

MAX_PIXELS = 2**26
"""A larger scene is refused: each pixel takes some 60 bytes of memory while it is drawn."""


@dataclass(frozen=True)
class Scene:
    """Hold a `photo`, (H, W, 3) uint8 RGB, and its `labels`, (H, W) uint8, Cityscapes' label ids."""

    photo: Bytes
    labels: Bytes


@dataclass(frozen=True)
class _Weather:
    """Hold the sky's colours (0..255), the colour of the light, and how sunny (0..1) and cloudy (0..1) it is."""

    zenith: tuple[int, int, int]
    horizon: tuple[int, int, int]
    tint: tuple[float, float, float]
    sunshine: float
    clouds: float


@dataclass(frozen=True)
class _Side:
    """Hold one side of the street: `sign` -1 left or 1 right; the rest in metres, outwards from the camera."""

    sign: int
    curb: float
    parked: bool
    walk: float
    verge: float
    wall: float
    mouth: tuple[float, float]  # the Z where a side street begins and ends

    def blocked(self, z: float, margin: float) -> bool:
        """Say whether Z is in the side street or nearer than `margin` to it."""
        return self.mouth[0] - margin < z < self.mouth[1] + margin


_WEATHERS = (
    _Weather((98, 146, 204), (200, 220, 236), (1.04, 1.01, 0.95), 1.0, 0.35),
    _Weather((140, 172, 206), (224, 228, 226), (1.0, 1.0, 0.98), 0.6, 0.6),
    _Weather((176, 184, 194), (220, 222, 222), (0.95, 0.98, 1.0), 0.15, 0.9),
    _Weather((116, 142, 190), (248, 218, 178), (1.09, 0.99, 0.86), 0.85, 0.5),
)


def street_scene(seed: int, size: tuple[int, int], index: int = 0) -> Scene:
    """Return scene `index` of the data set `seed`, (H, W) = `size` pixels: the same arguments, the same bytes."""
    canvas, weather, look = _street(seed, size, index, with_photo=True)
    labels = np.array(canvas.labels)
    photo = _develop(canvas, weather, look, labels)
    return Scene(photo, _finished(labels))


def street_labels(seed: int, size: tuple[int, int], index: int = 0) -> Bytes:
    """Return the labels of `street_scene`, (H, W) uint8, without the cost of its photo."""
    return _finished(np.array(_street(seed, size, index, with_photo=False)[0].labels))


def _finished(labels: Bytes) -> Bytes:
    """Close gaps of one pixel, and add the border that rectifying leaves; the photo has none, as in Cityscapes."""
    middle, left = labels[1:-1, 1:-1], labels[1:-1, :-2]
    alone = (middle != left) & (middle != labels[1:-1, 2:])
    alone &= (middle != labels[:-2, 1:-1]) & (middle != labels[2:, 1:-1])
    middle[alone] = left[alone]
    height, width = labels.shape
    y, x = np.ogrid[0.5 / height : 1 - 0.5 / height : height * 1j, 0.5 / width : 1 - 0.5 / width : width * 1j]
    labels[(y < 0.0047) | (y > 0.9973) | (x < 0.0028) | (x > 0.9974)] = street.OUT_OF_ROI
    return labels


def _street(seed: int, size: tuple[int, int], index: int, *, with_photo: bool) -> tuple[Canvas, _Weather, Rng]:
    """Draw a street; return it with its weather and the generator that finishes its photo."""
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    look = rng.spawn(1)[0]  # draws what labels do not show
    camera = Camera(1 + rng.uniform(-0.22, 0.22), rng.uniform(0.4, 0.46), rng.uniform(-0.0016, 0.0016))
    weather = _WEATHERS[rng.choice(len(_WEATHERS), p=[0.4, 0.2, 0.2, 0.2])]
    sun = np.array((rng.choice([-1, 1]) * rng.uniform(0.4, 0.8), rng.uniform(0.5, 0.8), rng.uniform(-0.7, 0.1)))
    canvas = Canvas(size, camera, sun / np.linalg.norm(sun) * weather.sunshine, with_photo)
    leafy = rng.random()
    sides = [_side(rng, sign) for sign in (-1, 1)]
    _sky(canvas, look, weather)
    _ground(canvas, rng, sides)
    _skyline(canvas, rng)
    for things in (_rows(canvas, rng, sides, leafy), _things(rng, sides, leafy)):
        for (_, show), child in zip(sorted(things, key=lambda t: -t[0]), rng.spawn(len(things)), strict=True):
            show(canvas, child)
    _bonnet(canvas)
    return canvas, weather, look


def _side(rng: Rng, sign: int) -> _Side:
    """Choose how one side of the street is laid out."""
    parked = bool(rng.random() < 0.55)
    curb = (2.3 if sign > 0 else 5.2) + rng.uniform(0, 1.0) + 2.1 * parked
    walk = curb + rng.uniform(2.4, 5.5)
    verge = walk + (rng.uniform(1.0, 4.0) if rng.random() < 0.45 else 0.0)
    wall = verge + rng.uniform(0.2, 1.0)
    start = rng.uniform(16, 60) if rng.random() < 0.6 else 1e6
    return _Side(sign, curb, parked, walk, verge, wall, (start, start + rng.uniform(6, 10)))


def _sky(canvas: Canvas, look: Rng, weather: _Weather) -> None:
    """Fill the labels with sky, and the photo with clouds and the colours of the weather."""
    canvas.fill(box(-1, -1, 3, 2), street.SKY, np.array(weather.horizon, dtype=np.float64), 0.0)
    if canvas.colours is None:
        return
    width, shape = canvas.colours.size[0], (64, 256)
    up = np.linspace(1, 0, shape[0], dtype=np.float32)[:, None]
    cloud = _noise(look, shape, 2) + 0.6 * _noise(look, shape, 5) + 0.35 * _noise(look, shape, 13)
    cover = (0.3 + 0.7 * up) / (1 + np.exp(-2.2 * (cloud - 1.2 + 2.2 * weather.clouds)))
    zenith, horizon = np.array((weather.zenith, weather.horizon), dtype=np.float32)
    sky = horizon + (zenith - horizon) * up[..., None] ** 0.8
    white = 250 - 30 * weather.clouds * np.clip(cloud, 0, 1.5)
    sky = sky + (white[..., None] - sky) * (0.75 * cover)[..., None]
    picture = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8))
    height = int(canvas.camera.y * canvas.colours.size[1])
    canvas.colours.paste(picture.resize((width, max(1, height)), Image.Resampling.BICUBIC).convert("RGBA"))


def _ground(canvas: Canvas, rng: Rng, sides: list[_Side]) -> None:
    """Draw verges, sidewalks and roads with their paint."""
    camera = canvas.camera
    distances = np.geomspace(2.5, 600, 70)
    canvas.fill(box(-1, camera.y + 0.002, 3, 2), street.TERRAIN, np.array((104.0, 124.0, 70.0)), 0.0)

    def ribbon(x0: float, x1: float, label: int | None, colour: Array, z: Array = distances) -> None:
        edges = [np.stack([np.full_like(z, x), np.zeros_like(z), z], axis=-1) for x in (x0, x1)]
        canvas.fill(camera.project(np.concatenate([edges[0], edges[1][::-1]])), label, colour, 0.0)

    asphalt = np.array((100.0, 100.0, 105.0)) * rng.uniform(0.86, 1.1)
    paving = pick(rng, np.array([(166.0, 156.0, 148.0), (152.0, 150.0, 148.0), (174.0, 152.0, 138.0)]), 0.06)
    white = np.array((208.0, 208.0, 202.0))
    for side in sides:
        s = side.sign
        ribbon(s * side.walk, s * (side.wall + 2), street.SIDEWALK, paving * 0.95)
        if side.verge > side.walk:
            ribbon(s * side.walk, s * side.verge, street.TERRAIN, np.array((102.0, 126.0, 66.0)))
        ribbon(s * side.curb, s * side.walk, street.SIDEWALK, paving)
        ribbon(s * side.curb, s * 90.0, street.ROAD, asphalt, np.array(side.mouth))
    left, right = -sides[0].curb, sides[1].curb
    ribbon(left, right, street.ROAD, asphalt)
    for side in sides:
        for low, high in ((2.5, side.mouth[0]), (side.mouth[1], 600.0)):
            if low < high:
                z = np.geomspace(low, min(high, 600.0), 40)
                ribbon(side.sign * side.curb, side.sign * (side.curb + 0.15), None, paving * 1.15, z)
                ribbon(side.sign * (side.curb - 0.3), side.sign * side.curb, None, asphalt * 0.86, z)
                if side.parked:
                    ribbon(side.sign * (side.curb - 2.15), side.sign * (side.curb - 2.05), None, white * 0.85, z)
    for _ in range(int(rng.integers(2, 6))):  # repairs
        x, z0 = rng.uniform(left, right - 1.0), rng.uniform(5, 40)
        span = np.array((z0, z0 + rng.uniform(0.8, 5)))
        ribbon(x, x + rng.uniform(0.5, 1.6), None, asphalt * rng.choice([0.84, 0.9, 1.1]), span)
    lane = (left + 2.1 * sides[0].parked + right - 2.1 * sides[1].parked) / 2
    for z0 in np.arange(rng.uniform(2, 7), 140, 7.0):
        ribbon(lane - 0.07, lane + 0.07, None, white, np.linspace(z0, z0 + 3.2, 4))
    if rng.random() < 0.45:  # a zebra crossing
        z0 = min(side.mouth[0] for side in sides) - 5
        z0 = z0 if z0 < 100 else rng.uniform(12, 40)
        for x in np.arange(left + 0.4, right - 0.5, 1.0):
            ribbon(x, x + 0.5, None, white, np.array((z0, z0 + 3.0)))


def _skyline(canvas: Canvas, rng: Rng) -> None:
    """Draw far trees and roofs along the horizon."""
    camera = canvas.camera
    for x in np.arange(rng.uniform(-0.1, 0.1), 2, 0.12):
        if rng.random() < 0.4:
            wall = pick(rng, draw.PLASTER)
            canvas.fill(
                box(x, camera.y - rng.uniform(0.02, 0.07), x + 0.08, camera.y + 0.01), street.BUILDING, wall, 350
            )
    n = 40
    y, radii = camera.y - rng.uniform(0.0, 0.012, n), rng.uniform(0.012, 0.03, n)
    lobes = np.stack([np.linspace(0, 2, n) + rng.normal(0, 0.02, n), y, radii * 2, radii], axis=1)
    draw.foliage(canvas, rng.spawn(1)[0], lobes, pick(rng, draw.LEAVES), 240, 0.2)


def _rows(canvas: Canvas, rng: Rng, sides: list[_Side], leafy: float) -> list[Thing]:
    """Choose what stands behind the sidewalks: houses with their shade, or gardens."""
    things: list[Thing] = []
    for side in sides:
        z, tall, sign = rng.uniform(-6, 2), rng.uniform(9, 20), side.sign
        while z < 170:
            length = float(rng.uniform(8, 20))
            if z < side.mouth[1] and z + length > side.mouth[0]:
                length = side.mouth[0] - z
                if length < 3:
                    z = side.mouth[1] + rng.uniform(0.5, 2.5)
                    continue
            x = sign * (side.wall + rng.uniform(0, 0.8))
            if rng.random() < 0.08 + 0.3 * leafy:
                for _ in range(int(rng.integers(1, 4))):
                    at, away = max(z + length * rng.random(), 7.0), sign * rng.uniform(2, 7)
                    things.append((at, partial(draw.tree, x=x + away, z=at, height=rng.uniform(6, 14))))
                hedge = partial(draw.thicket, x=x + sign, z=max(z, 5.0), length=length, height=rng.uniform(1.0, 2.8))
                things.append((z + 0.2, hedge))
                if rng.random() < 0.6:
                    kind, high = int(rng.choice([street.FENCE, street.WALL])), rng.uniform(0.8, 1.7)
                    things.append((z, partial(draw.barrier, label=kind, x=x, z=z, length=length, height=high)))
            else:
                high, deep = float(np.clip(tall * rng.uniform(0.65, 1.35), 4, 24)), rng.uniform(8, 13)
                house = partial(draw.building, x=x, z=z, length=length, height=high, depth=deep)
                things.append((z, house))
                reach = -canvas.sun[0] / canvas.sun[1] * high
                cast = np.sign(reach) * min(abs(reach), side.wall * 1.1)
                if cast * sign < 0:
                    ends = np.array([(x, z), (x, z + length), (x + cast, z + length), (x + cast, z)])
                    canvas.shade(ends, 0.42 * float(np.linalg.norm(canvas.sun)))
            z += length + (rng.uniform(1, 6) if rng.random() < 0.3 else 0)
    return things


def _things(rng: Rng, sides: list[_Side], leafy: float) -> list[Thing]:
    """Choose what stands and moves on the street."""
    things: list[Thing] = []
    for side in sides:
        sign, edge = side.sign, side.sign * (side.curb + 0.6)
        if side.parked:
            for z in np.cumsum(rng.uniform(5.2, 7.0, 20)) + rng.uniform(2, 6):
                kind = str(rng.choice(["hatch", "sedan", "suv", "van"], p=[0.4, 0.3, 0.2, 0.1]))
                x, yaw = sign * (side.curb - 1.05 + rng.uniform(-0.1, 0.1)), 0.0 if sign > 0 else np.pi
                if rng.random() < 0.65 and not side.blocked(z, 3):
                    things.append((z, partial(draw.vehicle, kind=kind, x=x, z=z, yaw=yaw + rng.normal(0, 0.02))))
        for z in np.arange(rng.uniform(9, 20), 140, rng.uniform(9, 16)):
            if rng.random() < 0.1 + 0.65 * leafy and not side.blocked(z, 1):
                tree = partial(draw.tree, x=sign * (side.walk - 0.6), z=z, height=rng.uniform(6, 11))
                things.append((z, tree))
        for z in np.arange(rng.uniform(10, 30), 150, 26.0):
            if not side.blocked(z, 0):
                things.append((z, partial(draw.lamp, x=edge, z=z, height=rng.uniform(6, 8))))
        for z in np.cumsum(rng.uniform(6, 30, 4)) + rng.uniform(4, 10):
            things.append((z, partial(draw.sign, x=edge, z=z)))
        if side.mouth[0] < 1e3:
            things.append((side.mouth[0], partial(draw.traffic_light, x=edge, z=side.mouth[0])))
        for z in rng.uniform(11, 90, int(rng.integers(2, 10))):
            x = sign * rng.uniform(side.curb + 0.6, side.walk)
            for friend in range(int(rng.integers(1, 4))):
                walker = partial(draw.person, x=x + 0.6 * friend, z=z + 0.3 * friend)
                things.append((z + 0.3 * friend, walker))
        for z in rng.uniform(12, 60, int(rng.integers(0, 3))):
            things.append((z, partial(draw.column, x=sign * (side.walk - 0.4), z=z)))
        for z in rng.uniform(12, 50, int(rng.integers(0, 3))):
            things.append((z, partial(draw.bicycles, x=sign * (side.walk - 0.5), z=z)))
        if rng.random() < 0.4:
            start = rng.uniform(12, 30)
            things += [(z, partial(draw.post, x=edge, z=z)) for z in np.arange(start, start + 14, 1.8)]
    for z in np.cumsum(rng.uniform(10, 40, 2)) + rng.uniform(1, 6):
        things.append((z, partial(draw.vehicle, kind=str(rng.choice(["hatch", "sedan", "suv"])), x=0.1, z=z, yaw=0.0)))
    for z in np.cumsum(rng.uniform(10, 50, 3)) + rng.uniform(1, 10):
        kind = str(rng.choice(["hatch", "sedan", "suv", "van", "bus", "truck"], p=[0.3, 0.25, 0.15, 0.1, 0.1, 0.1]))
        things.append((z, partial(draw.vehicle, kind=kind, x=-3.2, z=z + 4, yaw=np.pi)))
    for z in rng.uniform(11, 50, int(rng.integers(0, 3))):
        x = sides[1].curb - 0.6 - 2.1 * sides[1].parked
        things.append((z, partial(draw.person, x=x, z=z, riding=True)))
    for z in rng.uniform(15, 60, int(rng.integers(0, 3))):
        things.append((z, partial(draw.person, x=rng.uniform(-5, 3), z=z)))
    return things


def _bonnet(canvas: Canvas) -> None:
    """Draw the bonnet of the car that carries the camera."""
    x = np.linspace(0.25, 1.75, 41)
    for drop, label, ink in ((0.936, street.EGO, 46.0), (0.944, None, 78.0), (0.952, None, 52.0)):
        edge = np.stack([x, drop + 0.07 * ((x - 1) / 0.75) ** 2], axis=-1)
        canvas.fill(np.concatenate([edge, [(1.75, 2), (0.25, 2)]]), label, np.array((ink, ink + 2, ink + 8)), 4.0)


# How much fine, middling and coarse noise a class carries, as a share of its brightness.
_TEXTURE = {
    street.VEGETATION: (0.07, 0.07, 0.08), street.TERRAIN: (0.1, 0.08, 0.08), street.ROAD: (0.035, 0.015, 0.04),
    street.SIDEWALK: (0.04, 0.02, 0.05), street.BUILDING: (0.018, 0.012, 0.035), street.WALL: (0.05, 0.04, 0.05),
    street.PERSON: (0.03, 0.03, 0.0), street.RIDER: (0.03, 0.03, 0.0), street.STATIC: (0.03, 0.03, 0.03),
}  # fmt: skip


def _noise(rng: Rng, size: tuple[int, int], cells: int) -> Plane:
    """Return smooth (H, W) float32 noise of deviation near 1 with `cells` cells from top to bottom."""
    grid = rng.standard_normal((cells, 2 * cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize(size[::-1], Image.Resampling.BICUBIC))


def _develop(canvas: Canvas, weather: _Weather, rng: Rng, labels: Bytes) -> Bytes:
    """Return the (H, W, 3) uint8 photo: the drawn colours with texture, shade, haze, light and grain."""
    if canvas.colours is None:
        raise ValueError("a canvas without a photo cannot be developed")
    height, width = canvas.size
    drawn = np.asarray(canvas.colours.reduce(street.FINENESS), dtype=np.float32)
    air: Plane = drawn[..., 3:] / np.float32(255)

    amounts = np.zeros((3, 256), dtype=np.float32)
    for label, amount in _TEXTURE.items():
        amounts[:, label] = amount
    grain = rng.standard_normal(canvas.size, dtype=np.float32)
    texture = amounts[0][labels] * _noise(rng, canvas.size, 400) + amounts[2][labels] * _noise(rng, canvas.size, 12)
    texture += amounts[1][labels] * (_noise(rng, canvas.size, 150) + 0.7 * _noise(rng, canvas.size, 60))
    _lay_ground(canvas, rng, labels, texture, air)
    haze = np.array(weather.horizon, dtype=np.float32) * np.float32(0.94)
    photo = haze + (drawn[..., :3] * (1 + texture[..., None]) - haze) * air
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = (1.04 - 0.1 * (x**2 + y**2)).astype(np.float32)[..., None]
    photo *= vignette * (np.array(weather.tint, dtype=np.float32) * np.float32(rng.uniform(1.0, 1.12)))
    photo += 2.2 * grain[..., None]
    finished: Bytes = np.clip(photo, 0, 255).astype(np.uint8)
    return finished


def _lay_ground(canvas: Canvas, rng: Rng, labels: Bytes, texture: Plane, air: Plane) -> None:
    """Add stains, flagstones and shade to `texture`, (H, W), and set the ground's distance in `air`, (H, W, 1)."""
    height, width = canvas.size
    camera = canvas.camera
    top = min(height - 1, int((camera.y + 0.004) * height) + 1)
    ground = air[top:, :, 0] > 0.988  # only the ground is drawn as if no air were before it
    y = (np.arange(top, height, dtype=np.float32)[:, None] + 0.5) / height
    x = (np.arange(width, dtype=np.float32)[None] + 0.5) * 2 / width
    z = street.FOCAL * street.EYE / (y - camera.y)
    across = (x - camera.x) * z / street.FOCAL - camera.bend * z**2
    near = np.clip(1.5 - z / 25, 0, 1)

    stains = (_noise(rng, (512, 512), 24) + _noise(rng, (512, 512), 100)) * 0.03
    cells = [(metres * fine).astype(np.int64) % 1022 for metres, fine in ((z, 25), (across + 9, 50))]
    mark = stains[np.minimum(cells[0], 1022 - cells[0]), np.minimum(cells[1], 1022 - cells[1])] * near
    for track in (-3.9, -2.5, -0.7, 0.7):
        mark -= 0.035 * np.exp(-(((across - track) / 0.3) ** 2)) * (labels[top:] == street.ROAD)
    joint = (across % 0.75 < 0.035) | (z % 0.75 < 0.05)
    mark -= 0.16 * near**2 * (joint & (labels[top:] == street.SIDEWALK))
    shadows = canvas.shadows().filter(ImageFilter.GaussianBlur(height / 500)).resize((width, height))
    shade = np.asarray(shadows, dtype=np.float32)[top:] / 255
    texture[top:] = np.where(ground, (1 + texture[top:] + mark) * shade - 1, texture[top:])
    air[top:, :, 0] = np.where(ground, np.exp(-z / street.HAZE_METRES), air[top:, :, 0])


def write_scenes(out: str | Path, count: int, size: tuple[int, int], seed: int, val_count: int | None = None) -> None:
    """Write `count` scenes of (H, W) = `size` pixels, the last `val_count` to validate, in Cityscapes' layout.

    Unless `val_count` is given, a fifth validates, and at least one of two. Scene i is the same whatever `count`
    is. Until the last is written, the folder is named OUT.partial; on an error nothing stays. Raises StoreError when
    `out` holds files already, when the numbers make no data set, and when the disk refuses.
    """
    if val_count is None:
        val_count = max(count // 5, int(count > 1))
    if count < 1 or not 0 <= val_count <= count or min(size) < 1:
        asked = f"{count} scenes of {size[0]}x{size[1]} pixels, {val_count} of them to validate"
        raise StoreError(f"{asked}: expected at least one scene of one pixel, and no more to validate than there are.")
    if size[0] * size[1] > MAX_PIXELS:
        raise StoreError(f"{size[0]}x{size[1]} pixels: expected at most {MAX_PIXELS}. Ask for a smaller size.")
    if seed < 0:
        raise StoreError(f"seed {seed}: expected a whole number from 0 on.")
    with new_folder(Path(out)) as partial:
        for index in range(count):
            scene = street_scene(seed, size, index)
            split = "train" if index < count - val_count else "val"
            for folder, suffix, pixels in (
                ("leftImg8bit", "leftImg8bit", scene.photo),
                ("gtFine", "gtFine_labelIds", scene.labels),
            ):
                path = partial / folder / split / "scenes" / f"scenes_{index:06d}_000000_{suffix}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path, compress_level=2)


def _size(text: str) -> tuple[int, int]:
    """Read HxW."""
    try:
        height, width = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"found '{text}', expected HEIGHTxWIDTH, as 1024x2048") from None
    return height, width


class _Parser(argparse.ArgumentParser):
    """Report a wrong command line as click does: its usage, then a line 'Error: ...'."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"Error: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Write the data set that the command line asks for; return the exit code."""
    parser = _Parser("python -m quadcodec.scenes", description="Write generated street scenes.")
    parser.add_argument("out", type=Path, metavar="OUT", help="the data set's folder, new or empty")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="scenes in all (default 20)")
    parser.add_argument("--size", type=_size, default=(512, 1024), metavar="HxW", help="pixels (default 512x1024)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="one seed, one data set (default 0)")
    parser.add_argument("--val-count", type=int, metavar="M", help="scenes to validate with (default a fifth)")
    given = parser.parse_args(arguments)
    try:
        write_scenes(given.out, given.count, given.size, given.seed, given.val_count)
    except QuadcodecError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Error: {given.out}: interrupted, nothing is left of it. Run again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
