"""Camera, canvas and outlines: what every thing of a generated street is drawn with.

Everything is placed in metres: X to the right of the camera, Y up from the ground, Z ahead. A picture point is
(x, y) in picture heights of a 2 by 1 picture, so that one scene fits every size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[np.float64]
Rng = np.random.Generator

# Cityscapes' ids, as its labelIds files hold them.
EGO, OUT_OF_ROI, STATIC, ROAD, SIDEWALK, BUILDING, WALL, FENCE = 1, 3, 4, 7, 8, 11, 12, 13
POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY = 17, 19, 20, 21, 22, 23
PERSON, RIDER, CAR, TRUCK, BUS, BICYCLE = 24, 25, 26, 27, 28, 33

FOCAL = 2.2  # picture heights, as in Cityscapes' camera
EYE = 1.3  # metres above the ground
HAZE_METRES = 240.0  # the distance at which the air has taken 1 - 1/e of a colour
FINENESS = 2  # the photo is drawn at this many times its size


@dataclass(frozen=True)
class Camera:
    """Hold where the street vanishes, (`x`, `y`) in picture heights, and how it bends, `bend` in 1/metre."""

    x: float
    y: float
    bend: float

    def project(self, points: Array) -> Array:
        """Map (..., 3) float64 points in metres to (..., 2) picture points; what is too near is pushed away."""
        depth = np.maximum(points[..., 2], 1.5)
        x = self.x + FOCAL * (points[..., 0] / depth + self.bend * depth)
        return np.stack([x, self.y + FOCAL * (EYE - points[..., 1]) / depth], axis=-1)


class Canvas:
    """Collect polygons, later ones over earlier ones, in a label image and, if asked to, in a photo.

    `labels` is an 8-bit grey image of `size`, (H, W). `colours` is None or, FINENESS times as large, RGBA, where A
    is the clearness of the air, 255 here to 0 far away. `sun` is the (3,) vector that points to the sun, its length
    0 for a clouded sky to 1 for a clear one.
    """

    def __init__(self, size: tuple[int, int], camera: Camera, sun: Array, with_photo: bool) -> None:
        height, width = size
        self.size, self.camera, self.sun = size, camera, sun
        self.labels = Image.new("L", (width, height))
        self._label_pen = ImageDraw.Draw(self.labels)
        self.colours: Image.Image | None = None
        self._shades: list[tuple[float, list[int]]] = []
        if with_photo:
            self.colours = Image.new("RGBA", (width * FINENESS, height * FINENESS))
            self._colour_pen = ImageDraw.Draw(self.colours)

    def _pixels(self, points: Array, scale: float) -> npt.NDArray[np.int64]:
        """Map (..., k, 2) picture points to (..., 2 k) pixel indices at `scale` times the picture's size."""
        height, width = self.size
        pixels = np.rint(points * (scale * width / 2, scale * height) - 0.5).astype(np.int64)
        return np.clip(pixels, -30000, 30000).reshape(*points.shape[:-2], -1)

    def fill(self, points: Array, label: int | None, colour: Array | None, distance: float) -> None:
        """Fill the (k, 2) polygon with its label, with its (3,) colour, 0..255, or with both."""
        if label is not None:
            self._label_pen.polygon(self._pixels(points, 1).tolist(), fill=label)
        if colour is not None:
            self.paint(points[None], colour[None], distance)

    def face(self, corners: Array, label: int | None, colour: Array | None, lit: float | None = None) -> None:
        """Fill the flat (k, 3) polygon in metres; the sun lights it, unless `lit` says how bright it is."""
        if colour is not None:
            colour = colour * (self.light(corners) if lit is None else lit)
        self.fill(self.camera.project(corners), label, colour, float(corners[:, 2].mean()))

    def paint(self, points: Array, colours: Array, distances: float | Array) -> None:
        """Paint (n, k, 2) polygons in (n, 3) colours, in the photo only."""
        if self.colours is None:
            return
        air = np.broadcast_to(255 * np.exp(-np.maximum(distances, 0.0) / HAZE_METRES), len(points))
        inks = np.clip(np.column_stack([colours, air]), 0, 255).astype(np.int64).tolist()
        for flat, ink in zip(self._pixels(points, FINENESS).tolist(), inks, strict=True):
            self._colour_pen.polygon(flat, fill=tuple(ink))

    def light(self, corners: Array) -> float:
        """Return the brightness, 0.6 to 1.2, of the side of a flat (k, 3) polygon that the camera sees."""
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        normal = normal / (float(np.linalg.norm(normal)) + 1e-9)
        if float(normal @ (corners[0] - (0.0, EYE, 0.0))) > 0:
            normal = -normal
        shine = float(normal @ self.sun)
        return float(0.86 - 0.2 * np.linalg.norm(self.sun) + 0.55 * max(0.0, shine) + 0.06 * normal[1])

    def shade(self, ground: Array, depth: float) -> None:
        """Remember to darken the (k, 2) polygon of X and Z on the ground by `depth`, 0 for nothing to 1 for black."""
        if self.colours is not None:
            corners = np.stack([ground[:, 0], np.zeros(len(ground)), ground[:, 1]], axis=-1)
            self._shades.append((depth, self._pixels(self.camera.project(corners), 0.5).tolist()))

    def cast(self, x: float, z: float, radius: float, low: float, high: float) -> None:
        """Shade the ground as something round does that reaches from `low` to `high` metres above (X, Z)."""
        strength = float(np.linalg.norm(self.sun))
        for up in np.linspace(low, high, 4) if high - low > radius else (high,):
            away = -self.sun[::2] / self.sun[1] * up
            self.shade(disc(x + float(away[0]), z + float(away[1]), radius, 14), 0.42 * strength)

    def shadows(self) -> Image.Image:
        """Return all shades, half as large as the labels, as 8-bit grey: 255 where the ground is in the light."""
        height, width = self.size
        image = Image.new("L", (-(-width // 2), -(-height // 2)), 255)
        pen = ImageDraw.Draw(image)
        for depth, pixels in sorted(self._shades, key=lambda shade: shade[0]):
            pen.polygon(pixels, fill=int(255 * (1 - depth)))
        return image


def pick(rng: Rng, palette: Array, spread: float = 0.1) -> Array:
    """Return a row of the (n, 3) palette, up to `spread` brighter or darker and a little off its hue."""
    chosen: Array = palette[rng.integers(len(palette))]
    return chosen * rng.uniform(1 - spread, 1 + spread) * rng.uniform(1 - spread / 3, 1 + spread / 3, 3)


def blob(rng: Rng, centre: Array, radii: Array, rough: float, step: float = 0.008) -> Array:
    """Return the (k, 2) outline of a clump around `centre`: an ellipse whose harmonics fall as a fractal's do.

    `step` is the distance of two vertices in picture heights, as an annotator's clicks would leave it.
    """
    n = int(np.clip(2 * np.pi * float(np.mean(radii)) / step, 9, 240))
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    k = np.arange(2, max(3, min(n // 3, 36)))[:, None]
    waves = rough * k**-1.05 * rng.uniform(0.5, 1.5, k.shape)
    radius = 1 + (waves * np.cos(k * angle + rng.uniform(0, 2 * np.pi, k.shape))).sum(axis=0)
    outline: Array = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return centre + radii * outline


def disc(x: float, y: float, radius: float, n: int = 16, turn: float = 0.0) -> Array:
    """Return a regular (n, 2) polygon around (x, y), its first vertex at `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False) + turn
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=-1)


def limb(x0: float, y0: float, x1: float, y1: float, first: float, last: float) -> Array:
    """Return the (12, 2) outline of a round-ended limb that is `first` to `last` metres in radius."""
    turns = np.arctan2(y1 - y0, x1 - x0) + np.linspace(-np.pi / 2, np.pi / 2, 6)
    arc = np.stack([np.cos(turns), np.sin(turns)], axis=-1)
    return np.concatenate([(x1, y1) + last * arc, (x0, y0) - first * arc])


def box(x0: float, y0: float, x1: float, y1: float) -> Array:
    """Return an upright (4, 2) rectangle."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


class Figure:
    """Draw flat figures that face the camera, in metres right of and above a point on the ground."""

    def __init__(self, canvas: Canvas, x: float, z: float, squeeze: float = 1.0) -> None:
        self.canvas, self.z = canvas, z
        self.foot = canvas.camera.project(np.array((x, 0.0, z)))
        self.scale = np.array((squeeze, -1.0)) * FOCAL / z

    def fill(self, outline: Array, label: int | None, colour: Array | None) -> None:
        """Fill a (k, 2) outline."""
        self.canvas.fill(self.foot + outline * self.scale, label, colour, self.z)
