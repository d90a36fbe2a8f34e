"""Draw the things of a generated street, each once into a label image and once into a photo.

Everything is placed in metres: X to the right of the camera, Y up from the ground, Z ahead. A picture point is
(x, y) in picture heights of a 2 by 1 picture, so one scene fits every size. A thing draws its contour first and
its photo-only details last, so that labels come out the same whether or not there is a photo.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[np.float64]
Rng = np.random.Generator

# Cityscapes' label ids, as its labelIds files hold them.
EGO, BORDER, OUT_OF_ROI, STATIC, ROAD, SIDEWALK, BUILDING, WALL, FENCE = 1, 2, 3, 4, 7, 8, 11, 12, 13
POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY = 17, 19, 20, 21, 22, 23
PERSON, RIDER, CAR, TRUCK, BUS, BICYCLE = 24, 25, 26, 27, 28, 33

FOCAL = 2.2  # picture heights, as Cityscapes' cameras
EYE = 1.3  # metres above the ground
HAZE_METRES = 260.0
SUPERSAMPLING = 2  # the photo is drawn at twice its size

WALLS = np.array(
    [
        (224, 206, 170), (206, 168, 116), (158, 88, 70), (168, 166, 160), (226, 222, 212),
        (212, 164, 142), (166, 174, 148), (146, 160, 174), (188, 120, 88), (196, 188, 150),
    ],
    dtype=float,
)  # fmt: skip
ROOFS = np.array([(148, 74, 54), (78, 82, 92), (98, 74, 62), (120, 66, 56)], dtype=float)
PAINTS = np.array(
    [
        (214, 216, 218), (160, 164, 168), (92, 96, 102), (34, 36, 42), (38, 58, 108), (158, 32, 34),
        (34, 74, 62), (186, 172, 140), (216, 168, 44), (96, 138, 172), (120, 44, 52), (232, 232, 228),
    ],
    dtype=float,
)  # fmt: skip
CLOTHES = np.array(
    [
        (40, 46, 64), (150, 44, 48), (66, 104, 150), (52, 54, 56), (196, 172, 60), (88, 116, 84),
        (178, 178, 180), (122, 84, 64), (92, 60, 110), (220, 122, 62),
    ],
    dtype=float,
)  # fmt: skip
GLASS = np.array((44.0, 56.0, 70.0))
STEEL = np.array((118.0, 122.0, 124.0))
SKIN = np.array((206.0, 160.0, 132.0))


@dataclass(frozen=True)
class Camera:
    """Hold where the street vanishes (`x`, `y`, picture heights) and how it bends (`bend`, 1/metre)."""

    x: float
    y: float
    bend: float

    def project(self, points: Array) -> Array:
        """Map (..., 3) float64 points in metres to (..., 2) picture points; what is too near is moved away."""
        depth = np.maximum(points[..., 2], 1.5)
        x = self.x + FOCAL * (points[..., 0] / depth + self.bend * depth)
        return np.stack([x, self.y + FOCAL * (EYE - points[..., 1]) / depth], axis=-1)


class Canvas:
    """Collect polygons, later ones over earlier ones, in a label image and, when asked, in a photo.

    `labels` is an 8-bit grey image; `colours` an RGBA image at twice the size whose alpha is the clearness of the
    air (255 near, 0 far away) or None; `shadows` an 8-bit grey image of half the size, 255 where nothing shades
    the ground, or None.
    """

    def __init__(self, size: tuple[int, int], camera: Camera, sun: Array, with_photo: bool) -> None:
        height, width = size
        self.size = size
        self.camera = camera
        self.sun = sun
        self.labels = Image.new("L", (width, height), 0)
        self.colours: Image.Image | None = None
        self.shadows: Image.Image | None = None
        self._draw_labels = ImageDraw.Draw(self.labels)
        if with_photo:
            big = (width * SUPERSAMPLING, height * SUPERSAMPLING)
            self.colours = Image.new("RGBA", big)
            self.shadows = Image.new("L", (-(-width // 2), -(-height // 2)), 255)
            self._draw_colours = ImageDraw.Draw(self.colours)
            self._draw_shadows = ImageDraw.Draw(self.shadows)

    @property
    def has_photo(self) -> bool:
        """Say whether photo-only details are worth drawing."""
        return self.colours is not None

    def _pixels(self, points: Array, scale: float) -> list[int]:
        height, width = self.size
        pixels = np.rint(points * (scale * width / 2, scale * height) - 0.5)
        flat: list[int] = np.clip(pixels, -30000, 30000).astype(np.int64).ravel().tolist()
        return flat

    def fill(self, points: Array, label: int | None, colour: Array | None, distance: float) -> None:
        """Fill the polygon `points`, (n, 2) picture points: its label, its (3,) colour 0..255, or both."""
        if label is not None:
            self._draw_labels.polygon(self._pixels(points, 1), fill=label)
        if colour is not None and self.colours is not None:
            red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
            air = int(255 * np.exp(-max(distance, 0.0) / HAZE_METRES))
            self._draw_colours.polygon(self._pixels(points, SUPERSAMPLING), fill=(red, green, blue, air))

    def face(self, corners: Array, label: int | None, colour: Array, lit: float | None = None) -> None:
        """Fill a flat (n, 3) polygon in metres, lit by the sun (or by `lit`) on the side that the camera sees."""
        shade = self.light(corners) if lit is None else lit
        self.fill(self.camera.project(corners), label, colour * shade, float(corners[:, 2].mean()))

    def light(self, corners: Array) -> float:
        """Return the brightness, about 0.6..1.15, of a flat (n, 3) polygon."""
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        normal /= np.linalg.norm(normal) + 1e-9
        if normal @ (corners[0] - (0.0, EYE, 0.0)) > 0:
            normal = -normal
        return float(0.66 + 0.5 * max(0.0, normal @ self.sun) + 0.08 * normal[1])

    def shadow(self, corners: Array, depth: float) -> None:
        """Shade the ground inside the (n, 2) polygon of (X, Z) metres by `depth`, 0 (no shade) to 1 (black)."""
        if self.shadows is not None:
            ground = np.stack([corners[:, 0], np.zeros(len(corners)), corners[:, 1]], axis=-1)
            pixels = self._pixels(self.camera.project(ground), 0.5)
            self._draw_shadows.polygon(pixels, fill=int(255 * (1 - depth)))


def pick(rng: Rng, colours: Array, spread: float = 0.08) -> Array:
    """Return one row of an (n, 3) palette, made up to `spread` brighter, darker and off its hue."""
    chosen: Array = colours[rng.integers(len(colours))]
    return chosen * (1 + rng.uniform(-spread, spread)) * (1 + rng.uniform(-spread, spread, 3) / 3)


def blob(rng: Rng, centre: Array, radii: Array, rough: float, step: float = 0.008) -> Array:
    """Return an (n, 2) closed outline around `centre`: an ellipse with harmonics that fall like a fractal's.

    `step` is the distance between two vertices in picture heights: what an annotator's clicks would leave.
    """
    n = int(np.clip(2 * np.pi * float(radii.mean()) / step, 10, 240))
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    k = np.arange(2, max(3, min(n // 3, 36)))[:, None]
    waves = rough * k**-1.05 * rng.uniform(0.5, 1.5, k.shape)
    radius = 1 + (waves * np.cos(k * angle + rng.uniform(0, 2 * np.pi, k.shape))).sum(axis=0)
    return centre + radii * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def disc(centre: tuple[float, float], radius: float, n: int = 16, turn: float = 0.0) -> Array:
    """Return a regular (n, 2) polygon, its first vertex at `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False) + turn
    return np.asarray(centre) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def limb(start: tuple[float, float], end: tuple[float, float], first: float, last: float) -> Array:
    """Return the (12, 2) outline of a rounded limb from `start` to `end`, `first` to `last` metres in radius."""
    a, b = np.asarray(start), np.asarray(end)
    heading = np.arctan2(b[1] - a[1], b[0] - a[0])
    turns = heading + np.linspace(-np.pi / 2, np.pi / 2, 6)
    arc = np.stack([np.cos(turns), np.sin(turns)], axis=-1)
    return np.concatenate([b + last * arc, a - first * arc])


class Billboard:
    """Draw flat figures, in metres around a point on the ground, facing the camera."""

    def __init__(self, canvas: Canvas, x: float, z: float) -> None:
        self.canvas = canvas
        self.z = z
        self.foot = canvas.camera.project(np.array((x, 0.0, z)))
        self.scale = FOCAL / z

    def points(self, figure: Array) -> Array:
        """Map (..., 2) metres, right and up from the foot, to picture points."""
        return self.foot + figure * (self.scale, -self.scale)

    def fill(self, figure: Array, label: int | None, colour: Array | None) -> None:
        """Fill an (n, 2) figure."""
        self.canvas.fill(self.points(figure), label, colour, self.z)


def _panes(
    canvas: Canvas, rng: Rng, base: Array, along: Array, height: float, wall: Array, shops: bool
) -> None:
    """Draw floors of windows on the wall that starts at `base` (3,) and runs along `along` (3,); photo only."""
    length = float(np.linalg.norm(along))
    floors = max(1, round((height - 0.8) / 3.1))
    columns = max(1, round(length / rng.uniform(2.1, 3.0)))
    if FOCAL * length / base[2] < 0.02:
        return
    lit = canvas.light(base + np.array([(0, 0, 0), along, (0, height, 0)]))
    wide, tall = rng.uniform(0.42, 0.62), rng.uniform(0.5, 0.66)
    storey = (height - 0.5) / floors
    frame = np.clip(wall * rng.choice([0.62, 1.22]), 0, 245)
    up = np.array((0.0, 1.0, 0.0))

    def patch(u0: float, u1: float, y0: float, y1: float, colour: Array) -> None:
        corners = np.array([base + along * u + up * y for u, y in ((u0, y0), (u1, y0), (u1, y1), (u0, y1))])
        canvas.face(corners, None, colour, lit)

    patch(0, 1, height - 0.45, height, wall * 0.86)
    patch(0, 1, storey - 0.2, storey + 0.05, wall * 0.84)
    patch(0, 1, 0, 0.5, wall * 0.7)
    trade = pick(rng, PAINTS)
    for floor in range(floors):
        low = floor * storey
        if floor == 0 and shops:
            patch(0.02, 0.98, 0.3, storey - 0.3, wall * 0.55)
            patch(0.02, 0.98, storey - 0.75, storey - 0.3, trade)
        for column in range(columns):
            u0 = (column + 0.5 - wide / 2) / columns
            u1 = u0 + wide / columns
            y0, y1 = low + storey * (0.9 - tall), low + storey * 0.9
            if floor == 0 and shops:
                u0, u1, y0, y1 = (column + 0.08) / columns, (column + 0.92) / columns, 0.5, storey - 0.85
            near = FOCAL * storey / max(base[2] + along[2] * u0, 2) > 0.05
            glass = GLASS * rng.uniform(0.75, 1.35)
            if near:
                patch(u0 - 0.06 / columns, u1 + 0.06 / columns, y0 - 0.15, y1 + 0.1, frame)
            patch(u0, u1, y0, y1, glass)
            if near:
                kind = rng.random()
                if kind < 0.35:
                    patch(u0, u1, y0 + (y1 - y0) * rng.uniform(0.3, 0.8), y1, np.array((196.0, 190.0, 176.0)))
                else:
                    patch(u0, u1, y0 + (y1 - y0) * 0.55, y1, glass * 1.35 + 12)
                middle = (u0 + u1) / 2
                patch(middle - 0.025 / columns, middle + 0.025 / columns, y0, y1, frame)


def building(
    canvas: Canvas, rng: Rng, x: float, z: float, length: float, height: float, depth: float
) -> None:
    """Draw a house whose front stands at X = `x` from Z = `z` on for `length` metres; `depth` leads outwards."""
    out = np.sign(x) * depth
    wall, roof = pick(rng, WALLS, 0.12), pick(rng, ROOFS, 0.1)
    far, pitched = z + length, rng.random() < 0.6
    rise = depth * rng.uniform(0.35, 0.5) if pitched else 0.0
    shops, front_lit = rng.random() < 0.45, 1.0
    ridge = x + out / 2
    for at in rng.uniform(0.1, 0.9, int(rng.integers(1, 4))):
        stack = z + length * at
        top, half = height + rise + rng.uniform(0.5, 1.3), rng.uniform(0.3, 0.6)
        wide = rng.uniform(0.35, 0.9)
        chimney = [(ridge - wide, height, stack), (ridge + wide, height, stack)]
        chimney += [(ridge + wide, top, stack), (ridge - wide, top, stack - half)]
        canvas.face(np.array(chimney), BUILDING, wall * 0.7)
    if pitched:
        eave = x - np.sign(x) * 0.35
        slope = np.array(
            [(eave, height, z), (eave, height, far), (ridge, height + rise, far), (ridge, height + rise, z)]
        )
        canvas.face(slope, BUILDING, roof)
    gable = [(x, 0, z), (x + out, 0, z), (x + out, height, z), (ridge, height + rise, z), (x, height, z)]
    canvas.face(np.array(gable), BUILDING, wall)
    cuts = np.linspace(z, far, 4)
    for a, b in zip(
        cuts[:0:-1], cuts[-2::-1], strict=True
    ):  # three strips, so that haze grows along the front
        front = np.array([(x, 0, b), (x, 0, a), (x, height, a), (x, height, b)])
        front_lit = canvas.light(front)
        canvas.face(front, BUILDING, wall, front_lit)
    if canvas.has_photo:
        _panes(canvas, rng, np.array((x, 0.0, z)), np.array((out, 0.0, 0.0)), height, wall, False)
        _panes(canvas, rng, np.array((x, 0.0, z)), np.array((0.0, 0.0, length)), height, wall, shops)


def foliage(canvas: Canvas, rng: Rng, lobes: Array, green: Array, distance: float, rough: float) -> None:
    """Draw the crown made of `lobes`, (n, 4) rows of x, y and two radii in picture heights."""
    low, high = lobes[:, 1].max(), lobes[:, 1].min()
    order = np.argsort(-lobes[:, 1] + lobes[:, 2] * 0.5)
    light = 0.78 + 0.4 * (low - lobes[:, 1]) / (low - high + 1e-6)
    for i in order:
        outline = blob(rng, lobes[i, :2], lobes[i, 2:], rough)
        canvas.fill(outline, VEGETATION, green * light[i] * 0.86, distance)
    if not canvas.has_photo:
        return
    side = np.sign(canvas.sun[0])
    for i in order:
        n = int(np.clip(lobes[i, 2] * 700, 4, 90))
        away = np.sqrt(rng.random(n)) * 0.78
        turn = rng.uniform(0, 2 * np.pi, n)
        offset = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * away[:, None]
        glow = light[i] * (1 + 0.24 * (side * offset[:, 0] - offset[:, 1]) + rng.normal(0, 0.09, n))
        size = np.minimum(lobes[i, 2] * rng.uniform(0.08, 0.2, n), 0.02)
        for j in np.argsort(glow):
            leaf = disc((0.0, 0.0), 1.0, 7, float(turn[j])) * rng.uniform(0.6, 1.3, (7, 1)) * size[j]
            tint = green * glow[j] + np.array((14.0, 10.0, 0.0)) * (glow[j] - 1)
            canvas.fill(lobes[i, :2] + offset[j] * lobes[i, 2:] + leaf, None, tint, distance)


def tree(canvas: Canvas, rng: Rng, x: float, z: float, height: float) -> None:
    """Draw a tree of `height` metres: trunk, branches and a crown of many lobes."""
    board = Billboard(canvas, x, z)
    green = pick(
        rng, np.array([(88, 112, 52), (74, 104, 58), (104, 118, 56), (66, 92, 48)], dtype=float), 0.12
    )
    bark = pick(rng, np.array([(84, 70, 56), (98, 88, 76)], dtype=float))
    crown, lean = height * rng.uniform(0.3, 0.42), rng.uniform(-0.3, 0.3)
    middle, girth = height - crown * 0.95, 0.03 * height * rng.uniform(0.8, 1.2)
    board.fill(limb((0, 0), (lean, middle), girth, girth * 0.6), VEGETATION, bark * 0.8)
    for reach in rng.uniform(-0.7, 0.7, 4):
        tip = (lean + reach * crown, middle + crown * rng.uniform(-0.2, 0.4))
        board.fill(limb((lean * 0.7, middle * 0.65), tip, girth * 0.5, girth * 0.15), VEGETATION, bark * 0.7)
    n = int(rng.integers(8, 15))
    angle, away = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(0.05, 1, n))
    where = np.stack(
        [lean + np.cos(angle) * away * crown, middle + np.sin(angle) * away * crown * 0.8], axis=-1
    )
    size = crown * rng.uniform(0.22, 0.5, (n, 1)) * board.scale
    lobes = np.concatenate([board.points(where), size * rng.uniform(0.8, 1.25, (n, 1)), size], axis=1)
    foliage(canvas, rng, lobes, green, z, 0.3)


def bushes(canvas: Canvas, rng: Rng, x: float, z: float, length: float, height: float) -> None:
    """Draw a hedge or a thicket along the street."""
    n = int(np.clip(length * 1.2, 3, 24))
    depth = np.sort(z + length * rng.random(n))[::-1]
    points = np.stack([x + rng.normal(0, 0.3, n), height * rng.uniform(0.3, 0.55, n), depth], axis=-1)
    radius = (FOCAL * height / depth)[:, None] * rng.uniform(0.35, 0.6, (n, 1))
    lobes = np.concatenate([canvas.camera.project(points), radius * 1.3, radius], axis=1)
    green = pick(rng, np.array([(76, 98, 50), (92, 108, 58)], dtype=float), 0.12)
    foliage(canvas, rng, lobes, green, z + length / 2, 0.24)


# Side views: (metres from the rear, metres up, what covers the stretch to the next point: body, glass or dark).
_SHAPES: dict[str, list[tuple[float, float, str]]] = {
    "hatch": [
        (0.06, 0.28, "dark"), (0.0, 0.5, "body"), (0.03, 0.8, "body"), (0.12, 0.98, "glass"), (0.48, 1.36, "body"),
        (0.7, 1.45, "body"), (1.5, 1.5, "body"), (2.1, 1.45, "glass"), (3.0, 1.0, "body"), (3.7, 0.86, "body"),
        (3.93, 0.7, "body"), (4.0, 0.48, "dark"), (3.94, 0.26, "dark"),
    ],
    "sedan": [
        (0.06, 0.28, "dark"), (0.0, 0.5, "body"), (0.05, 0.85, "body"), (0.14, 0.99, "body"), (0.75, 1.03, "glass"),
        (1.35, 1.36, "body"), (1.7, 1.44, "body"), (2.5, 1.44, "glass"), (3.35, 1.0, "body"), (4.2, 0.84, "body"),
        (4.44, 0.68, "body"), (4.5, 0.46, "dark"), (4.44, 0.26, "dark"),
    ],
    "suv": [
        (0.06, 0.34, "dark"), (0.0, 0.6, "body"), (0.03, 0.95, "body"), (0.1, 1.12, "glass"), (0.4, 1.54, "body"),
        (0.65, 1.64, "body"), (1.6, 1.68, "body"), (2.4, 1.62, "glass"), (3.2, 1.14, "body"), (4.15, 1.02, "body"),
        (4.45, 0.86, "body"), (4.55, 0.56, "dark"), (4.5, 0.32, "dark"),
    ],
    "van": [
        (0.04, 0.32, "dark"), (0.0, 0.6, "body"), (0.0, 1.15, "glass"), (0.12, 1.78, "body"), (0.3, 1.94, "body"),
        (2.0, 1.98, "body"), (3.5, 1.92, "glass"), (4.35, 1.22, "body"), (4.8, 1.04, "body"), (5.0, 0.8, "body"),
        (5.02, 0.5, "dark"), (4.96, 0.3, "dark"),
    ],
    "bus": [
        (0.0, 0.35, "dark"), (0.0, 0.8, "body"), (0.0, 1.5, "glass"), (0.05, 2.5, "body"), (0.2, 2.9, "body"),
        (1.0, 3.02, "body"), (10.6, 3.02, "body"), (10.9, 2.8, "glass"), (11.0, 1.2, "body"), (11.0, 0.7, "dark"),
        (10.98, 0.35, "dark"),
    ],
    "truck": [
        (0.0, 0.55, "dark"), (0.0, 1.0, "body"), (0.0, 3.4, "body"), (5.9, 3.4, "dark"), (5.95, 2.5, "body"),
        (6.3, 2.75, "body"), (7.1, 2.7, "glass"), (7.65, 1.6, "body"), (7.8, 0.9, "dark"), (7.75, 0.4, "dark"),
    ],
}  # fmt: skip
_WIDTHS = {"hatch": 1.72, "sedan": 1.8, "suv": 1.86, "van": 1.95, "bus": 2.55, "truck": 2.45}
_LABELS = {"bus": BUS, "truck": TRUCK}


def vehicle(
    canvas: Canvas, rng: Rng, kind: str, x: float, z: float, yaw: float, braking: bool = False
) -> None:
    """Draw a car, van, bus or truck around (X, Z), heading `yaw` radians right of straight ahead.

    The body is its side view drawn out to its width, narrower at the roof and at both ends: the contour is that of
    a solid in perspective.
    """
    shape, label = _SHAPES[kind], _LABELS.get(kind, CAR)
    along, up = np.array([p[0] for p in shape]), np.array([p[1] for p in shape])
    length, roof, belt = along.max(), up.max(), 0.62 * up.max()
    boxy = label != CAR
    half = _WIDTHS[kind] / 2 * (1 - (0.03 if boxy else 0.2) * np.clip((up - belt) / (roof - belt), 0, 1))
    half = half * np.where(np.minimum(along, length - along) < 0.2, 0.98 if boxy else 0.93, 1.0)
    paint = pick(rng, PAINTS, 0.1)
    forward, right = np.array((np.sin(yaw), 0, np.cos(yaw))), np.array((np.cos(yaw), 0, -np.sin(yaw)))
    origin = np.array((x, 0.0, z)) - forward * length / 2

    def world(l_n: Array, y_n: Array, w_n: Array) -> Array:
        return origin + l_n[:, None] * forward + y_n[:, None] * (0.0, 1.0, 0.0) + w_n[:, None] * right

    def seen(corners: Array) -> bool:
        p = canvas.camera.project(corners)
        q = np.roll(p, -1, axis=0)
        return float((p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]).sum()) > 0

    def wheel(at: float, w: float, radius: float, tyre: Array, on: int | None) -> None:
        ring = disc((at, radius if radius > 0.25 else 0.33), radius, 18)
        canvas.face(world(ring[:, 0], ring[:, 1], np.full(18, w)), on, tyre, 1.0)

    tyre_size, rubber = (0.48 if boxy else 0.33), np.array((30.0, 30.0, 32.0))
    axles = (length * 0.19, length * 0.8)
    for at in axles:
        for w in (-half[1], -half[1] + 0.2, half[1] - 0.2, half[1]):
            wheel(at, w, tyre_size, rubber, label)
    coats = {"body": paint, "glass": GLASS * 1.1, "dark": np.minimum(paint * 0.45, 60)}
    order = sorted(range(len(shape) - 1), key=lambda i: -abs(float((origin + forward * along[i])[2])))
    for i in order:
        l_n, y_n = along[[i, i + 1, i + 1, i]], up[[i, i + 1, i + 1, i]]
        w_n = np.array([half[i], half[i + 1], -half[i + 1], -half[i]])
        strip = world(l_n, y_n, w_n)
        if seen(strip):
            canvas.face(strip, label, coats[shape[i][2]])
            if shape[i][2] == "glass" and canvas.has_photo:
                inner = world(l_n, y_n, w_n * 0.86)
                canvas.face(inner, None, GLASS * 0.8)
                canvas.face(
                    inner[[1, 2]].repeat(2, axis=0)[[0, 2, 3, 1]] * 0.6 + inner[[0, 3, 3, 0]] * 0.4,
                    None,
                    GLASS,
                )
    side = 0
    for sign in (1, -1):
        flank = world(along, up, sign * half)
        if seen(flank[::sign]):
            side = sign
            canvas.face(flank, label, paint, canvas.light(flank[[1, 5, 8]]))
    if canvas.has_photo:
        _trim(canvas, world, seen, shape, half, side, paint, axles, wheel, braking)
