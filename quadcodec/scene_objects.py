"""The things of a generated street, each drawn at once into a label image and into a photo.

A thing draws its contour first and details that only a photo shows last: labels come out the same whether or
not a photo is wanted.
"""

import itertools

import numpy as np

from .scene_canvas import (
    BICYCLE,
    BUILDING,
    BUS,
    CAR,
    EYE,
    FENCE,
    FOCAL,
    LIGHT,
    PERSON,
    POLE,
    RIDER,
    SIGN,
    STATIC,
    TRUCK,
    VEGETATION,
    WALL,
    Array,
    Canvas,
    Figure,
    Rng,
    blob,
    box,
    disc,
    limb,
    pick,
)


def _palette(*colours: tuple[int, int, int]) -> Array:
    return np.array(colours, dtype=np.float64)


PLASTER = _palette(
    *((226, 208, 172), (210, 172, 118), (160, 90, 72), (170, 168, 162), (228, 224, 214), (214, 166, 144)),
    *((168, 176, 150), (148, 162, 176), (190, 122, 90), (198, 190, 152), (222, 190, 130), (236, 230, 222)),
)
TILES = _palette((152, 76, 56), (80, 84, 94), (100, 76, 64), (124, 68, 58), (96, 98, 104))
PAINT = _palette(
    *((216, 218, 220), (164, 168, 172), (96, 100, 106), (40, 42, 48), (42, 62, 112), (164, 36, 36)),
    *((38, 80, 68), (190, 176, 144), (206, 160, 52), (98, 140, 174), (124, 48, 54), (234, 234, 230)),
)
CLOTH = _palette(
    *((44, 50, 70), (156, 48, 52), (70, 108, 154), (56, 58, 62), (200, 176, 66), (92, 120, 88)),
    *((182, 182, 184), (128, 88, 68), (98, 66, 116), (222, 126, 66), (226, 222, 214), (60, 120, 124)),
)
LEAVES = _palette((92, 118, 54), (78, 108, 60), (112, 126, 58), (70, 98, 50), (128, 124, 52))
BARK = _palette((84, 70, 56), (100, 90, 78))
SKINS = _palette((214, 170, 142), (176, 126, 98), (120, 84, 66))
GLASS = np.array((46.0, 58.0, 72.0))
RUBBER = np.array((32.0, 32.0, 35.0))
STEEL = np.array((122.0, 126.0, 128.0))


def _facade(canvas: Canvas, rng: Rng, base: Array, along: Array, height: float, wall: Array, shops: bool) -> None:
    """Paint cornice, plinth, shop and windows on the wall that runs from `base` along `along`, both (3,) metres."""
    length = float(np.linalg.norm(along))
    floors = max(1, round((height - 0.8) / 3.1))
    columns = max(1, round(length / rng.uniform(2.1, 3.0)))
    wide, tall = rng.uniform(0.4, 0.6), rng.uniform(0.5, 0.64)
    storey = (height - 0.5) / floors
    frame = np.clip(wall * rng.choice([0.6, 1.2]), 0, 245)
    blind = np.array((198.0, 192.0, 178.0))
    near = FOCAL * storey / max(float(base[2]), 2.0) > 0.05
    patches: list[tuple[float, float, float, float]] = []  # left, right (0..1 of the wall), low, high (metres)
    colours: list[Array] = []

    def patch(u0: float, u1: float, low: float, high: float, colour: Array) -> None:
        patches.append((u0, u1, low, high))
        colours.append(colour)

    patch(0, 1, 0, 0.6, wall * 0.72)
    for floor in range(1, floors):
        patch(0, 1, floor * storey - 0.12, floor * storey + 0.06, wall * 0.88)
    patch(0, 1, height - 0.5, height, wall * 0.84)
    patch(0, 1, height - 0.12, height, wall * 1.08)
    if shops:
        patch(0.02, 0.98, 0.2, storey - 0.25, wall * 0.5)
        patch(0.02, 0.98, storey - 0.8, storey - 0.25, pick(rng, PAINT))
    for floor in range(floors):
        for column in range(columns):
            u0, u1 = (column + 0.5 - wide / 2) / columns, (column + 0.5 + wide / 2) / columns
            low, high = (floor + 0.9 - tall) * storey, (floor + 0.9) * storey
            if floor == 0 and shops:
                u0, u1, low, high = (column + 0.08) / columns, (column + 0.92) / columns, 0.5, storey - 0.9
            glass = GLASS * rng.uniform(0.7, 1.3)
            rim = 0.07 / columns
            if near:
                patch(u0 - rim, u1 + rim, low - 0.16, high + 0.1, frame)
            patch(u0, u1, low, high, glass)
            if near:
                patch(u0, u1, low + (high - low) * rng.uniform(0.35, 0.7), high, glass * 1.3 + 16)
                if rng.random() < 0.3:
                    patch(u0, u1, low + (high - low) * rng.uniform(0.2, 0.8), high, blind)
                patch((u0 + u1 - rim) / 2, (u0 + u1 + rim) / 2, low, high, frame)
    u0, u1, low, high = np.array(patches).T[:, :, None]
    up = np.array((0.0, 1.0, 0.0))
    corners = np.stack([base + along * u + up * y for u, y in ((u0, low), (u1, low), (u1, high), (u0, high))], axis=1)
    lit = canvas.light(np.array([base, base + along, base + up]))
    canvas.paint(canvas.camera.project(corners), np.array(colours) * lit, corners[:, :, 2].mean(axis=1))


def building(canvas: Canvas, rng: Rng, x: float, z: float, length: float, height: float, depth: float) -> None:
    """Draw a house whose front stands at X = `x` from Z = `z` on for `length` metres; `depth` leads outwards."""
    side = float(np.sign(x))
    back, far = x + side * depth, z + length
    wall, roof = pick(rng, PLASTER), pick(rng, TILES)
    rise = depth * rng.uniform(0.3, 0.5) if rng.random() < 0.65 else 0.0
    top, ridge = height + rise, (x + back) / 2
    for at in z + length * rng.uniform(0.1, 0.9, int(rng.integers(0, 4))):
        wide, tip = rng.uniform(0.3, 0.8), top + rng.uniform(0.6, 1.4)
        stack = [
            (ridge - wide, height, at),
            (ridge + wide, height, at),
            (ridge + wide, tip, at),
            (ridge - wide, tip, at),
        ]
        canvas.face(np.array(stack), BUILDING, wall * 0.7)
    if rise:
        slope = [(x, height, z), (x, height, far), (ridge, top, far), (ridge, top, z)]
        canvas.face(np.array(slope), BUILDING, roof)
    gable = [(x, 0, z), (back, 0, z), (back, height, z), (ridge, top, z), (x, height, z)]
    canvas.face(np.array(gable, dtype=np.float64), BUILDING, wall)
    cuts = np.linspace(far, z, 4)
    for a, b in zip(cuts[1:], cuts[:-1], strict=True):  # in three pieces, so that haze grows along the front
        canvas.face(np.array([(x, 0, b), (x, 0, a), (x, height, a), (x, height, b)]), BUILDING, wall)
    if canvas.colours is not None:
        corner = np.array((x, 0.0, z))
        _facade(canvas, rng, corner, np.array((back - x, 0.0, 0.0)), height, wall, False)
        _facade(canvas, rng, corner, np.array((0.0, 0.0, length)), height, wall, rng.random() < 0.5)


def foliage(canvas: Canvas, rng: Rng, lobes: Array, green: Array, distance: float, rough: float) -> None:
    """Draw a crown of `lobes`, (n, 4) rows of x, y and the two radii in picture heights."""
    low, high = float(lobes[:, 1].max()), float(lobes[:, 1].min())
    light = 0.76 + 0.36 * (low - lobes[:, 1]) / (low - high + 1e-6)
    order = np.argsort(0.5 * lobes[:, 3] - lobes[:, 1])
    for i in order:
        canvas.fill(blob(rng, lobes[i, :2], lobes[i, 2:], rough), VEGETATION, green * light[i] * 0.8, distance)
    if canvas.colours is None:
        return
    for i in order:
        n = int(np.clip(lobes[i, 3] * 1000, 5, 120))
        turn, away = rng.uniform(0, 2 * np.pi, n), 0.72 * np.sqrt(rng.random(n))
        offset = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * away[:, None]
        glow = light[i] * (1 + 0.3 * (offset @ (np.sign(canvas.sun[0]) * 0.7, -0.9)) + rng.normal(0, 0.1, n))
        size = np.minimum(lobes[i, 3] * rng.uniform(0.08, 0.2, n), 0.022)
        spin = turn[:, None] + np.linspace(0, 2 * np.pi, 7, endpoint=False)
        leaf = np.stack([np.cos(spin), np.sin(spin)], axis=-1) * rng.uniform(0.5, 1.3, (n, 7, 1))
        points = (lobes[i, :2] + offset * lobes[i, 2:])[:, None] + leaf * size[:, None, None]
        ranks = np.argsort(glow)
        tint = green * glow[:, None] + np.array((26.0, 18.0, 0.0)) * (glow[:, None] - 0.9)
        canvas.paint(points[ranks], tint[ranks], distance)


def tree(canvas: Canvas, rng: Rng, x: float, z: float, height: float) -> None:
    """Draw a tree of `height` metres: a trunk, branches and a crown of many lobes."""
    figure = Figure(canvas, x, z)
    green, bark = pick(rng, LEAVES), pick(rng, BARK)
    crown, lean = height * rng.uniform(0.3, 0.4), rng.uniform(-0.3, 0.3)
    middle, girth = height - crown, height * rng.uniform(0.018, 0.03)
    figure.fill(limb(0, 0, lean, middle, girth, girth * 0.6), VEGETATION, bark)
    figure.fill(limb(girth * 0.5, 0, lean + girth * 0.3, middle, girth * 0.4, girth * 0.3), None, bark * 0.75)
    for reach in rng.uniform(-0.7, 0.7, 4):
        tip = middle + crown * rng.uniform(-0.2, 0.4)
        branch = limb(lean * 0.7, middle * 0.7, lean + reach * crown, tip, girth * 0.45, girth * 0.15)
        figure.fill(branch, VEGETATION, bark * 0.8)
    n = int(rng.integers(8, 15))
    turn, away = rng.uniform(0, 2 * np.pi, n), crown * np.sqrt(rng.uniform(0.05, 0.8, n))
    where = np.stack([lean + np.cos(turn) * away, middle + np.sin(turn) * away * 0.8], axis=-1)
    size = crown * rng.uniform(0.22, 0.5, (n, 1)) * FOCAL / z
    centres = figure.foot + where * figure.scale
    foliage(canvas, rng, np.hstack([centres, size * rng.uniform(0.8, 1.25, (n, 1)), size]), green, z, 0.4)
    canvas.cast(x, z, girth, 0.0, middle)
    canvas.cast(x, z, crown, middle - 0.5 * crown, middle + 0.5 * crown)


def thicket(canvas: Canvas, rng: Rng, x: float, z: float, length: float, height: float) -> None:
    """Draw a row of bushes from (X, Z) on along the street."""
    n = int(np.clip(length * 1.2, 3, 24))
    depth = np.sort(z + length * rng.random(n))[::-1]
    centres = np.stack([x + rng.normal(0, 0.3, n), height * rng.uniform(0.3, 0.55, n), depth], axis=-1)
    radius = (FOCAL * height / depth)[:, None] * rng.uniform(0.35, 0.6, (n, 1))
    lobes = np.hstack([canvas.camera.project(centres), radius * 1.3, radius])
    foliage(canvas, rng, lobes, pick(rng, LEAVES) * 0.92, z + length / 2, 0.3)


def barrier(canvas: Canvas, rng: Rng, label: int, x: float, z: float, length: float, height: float) -> None:
    """Draw a FENCE (a railing that one sees through) or a WALL along the street."""
    at = z + np.linspace(length, 0, max(2, int(length)))

    def band(low: float, high: float) -> Array:
        edges = [np.stack([np.full_like(at, x), np.full_like(at, y), at], axis=-1) for y in (low, high)]
        return np.concatenate([edges[0], edges[1][::-1]])

    if label == WALL:
        stone = pick(rng, PLASTER) * 0.8
        canvas.face(band(0, height), WALL, stone)
        canvas.face(band(height - 0.12, height), None, stone * 1.15)
        for low in np.arange(0.25, height - 0.2, 0.3):
            canvas.face(band(low, low + 0.03), None, stone * 0.85)
        return
    iron = pick(rng, _palette((84, 92, 88), (140, 144, 146), (120, 96, 74)))
    canvas.face(band(0, height), FENCE, None)
    for low in (0.1, height - 0.07):
        canvas.face(band(low, low + 0.07), None, iron)
    bars = np.arange(z + length, z, -0.16)
    post = np.array([(x, 0, -0.03), (x, 0, 0.03), (x, height, 0.03), (x, height, -0.03)])
    corners = post + np.stack([np.zeros_like(bars), np.zeros_like(bars), bars], axis=-1)[:, None]
    canvas.paint(canvas.camera.project(corners), np.broadcast_to(iron, (len(bars), 3)), bars)


# Side views: centimetres from the rear and up; the stretch to the next point is body, glass, dark or load.
_SHAPES = {
    "hatch": "d6,28 b0,50 b3,80 g12,98 b48,136 b70,145 b150,150 g210,145 b300,100 b370,86 b393,70 d400,48 d394,26",
    "sedan": "d6,28 b0,50 b5,85 b14,99 g75,103 b135,136 b170,144 g250,144 b335,100 b420,84 b444,68 d450,46 d444,26",
    "suv": "d6,34 b0,60 b3,95 g10,112 b40,154 b65,164 b160,168 g240,162 b320,114 b415,102 b445,86 d455,56 d450,32",
    "van": "d4,32 b0,60 g0,115 b12,178 b30,194 b200,198 g350,192 b435,122 b480,104 b500,80 d502,50 d496,30",
    "bus": "d0,35 b0,80 g0,150 b5,250 b20,290 b100,302 b1060,302 g1090,280 b1100,120 d1100,70 d1098,35",
    "truck": "d0,55 l0,100 l0,340 l590,340 b595,250 b630,275 g710,270 b765,160 d780,90 d775,40",
}
_WIDTHS = {"hatch": 1.72, "sedan": 1.8, "suv": 1.86, "van": 1.95, "bus": 2.55, "truck": 2.45}


class _Vehicle:
    """Hold where a vehicle stands: lengthwise, upwards and sideways metres become metres of the street."""

    def __init__(self, canvas: Canvas, rng: Rng, kind: str, x: float, z: float, yaw: float) -> None:
        self.canvas = canvas
        self.label = {"bus": BUS, "truck": TRUCK}.get(kind, CAR)
        points = _SHAPES[kind].split()
        self.coverings = [point[0] for point in points]
        self.long, self.up = np.array([point[1:].split(",") for point in points], dtype=np.float64).T / 100
        self.length, self.roof = float(self.long.max()), float(self.up.max())
        slim, boxy = 0.62 * self.roof, self.label != CAR
        lean = np.clip((self.up - slim) / (self.roof - slim), 0, 1) * (0.03 if boxy else 0.2)
        ends = np.minimum(self.long, self.length - self.long) < 0.2
        self.half = _WIDTHS[kind] / 2 * (1 - lean) * np.where(ends, 0.985 if boxy else 0.93, 1.0)
        self.tyre = 0.46 if boxy else 0.33
        self.paint = pick(rng, PAINT)
        self.inks = {"b": self.paint, "g": self.paint, "d": self.paint * 0.3 + 12, "l": pick(rng, PLASTER)}
        forward, right = (np.sin(yaw), 0.0, np.cos(yaw)), (np.cos(yaw), 0.0, -np.sin(yaw))
        self.axes = np.array([forward, (0.0, 1.0, 0.0), right])
        self.origin = np.array((x, 0.0, z)) - self.axes[0] * self.length / 2

    def world(self, long: Array | float, up: Array | float, side: Array | float) -> Array:
        """Return (k, 3) metres of the street."""
        placed: Array = self.origin + np.stack(np.broadcast_arrays(long, up, side), axis=-1) @ self.axes
        return placed

    def seen(self, corners: Array) -> bool:
        """Say whether the camera sees the outside of a (k, 3) face that is wound as the side view is."""
        x, y = self.canvas.camera.project(corners).T
        return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) < 0

    def wheels(self, side: float, radius: float, colour: Array, label: int | None) -> None:
        """Draw the discs, or the arches, of the two wheels at `side` metres."""
        low = 0.3 if radius > self.tyre else 0.0  # a wheel's arch ends with the body
        for at in (self.length * 0.2, self.length * 0.81):
            rim = disc(at, self.tyre, radius, 20)
            self.canvas.face(self.world(rim[:, 0], np.maximum(rim[:, 1], low), side), label, colour, 1.0)

    def below(self) -> None:
        """Draw the four tyres and what they and the floor shade."""
        wide = float(self.half.max())
        sun = self.canvas.sun
        cast = -sun[::2] / sun[1] * self.roof * 0.7
        for grow, depth, away in ((1.0, 0.42 * float(np.linalg.norm(sun)), cast), (1.15, 0.5, 0), (0.95, 0.75, 0)):
            long = (np.array((0, 0, 1, 1)) - 0.5) * self.length * grow + self.length / 2
            floor = self.world(long, 0.0, np.array((-1, 1, 1, -1)) * wide * grow)[:, ::2]
            self.canvas.shade(floor + away, depth)
        for outer in (-0.97 * wide, 0.97 * wide):
            inner = outer * 0.76
            for at in (self.length * 0.2, self.length * 0.81):
                tread = self.world(at, box(0, 0, 1, 2 * self.tyre)[:, 1], np.array((outer, inner, inner, outer)))
                self.canvas.face(tread, self.label, RUBBER * 0.8, 1.0)
            for side in (inner, outer):
                self.wheels(side, self.tyre, RUBBER * 0.8, self.label)

    def hull(self) -> None:
        """Draw the side view swept across the width, farthest strips first."""
        order = np.argsort(-np.linalg.norm(self.world(self.long, self.up, 0.0) - (0, EYE, 0), axis=1))
        for i in order[order < len(self.long) - 1]:
            at = [i, i + 1, i + 1, i]
            strip = self.world(self.long[at], self.up[at], self.half[at] * (1, 1, -1, -1))
            if not self.seen(strip):
                continue
            self.canvas.face(strip, self.label, self.inks[self.coverings[i]])
            if self.coverings[i] == "g":
                low, high = strip[[0, 3]], strip[[1, 2]]
                for start, ink in ((0.08, GLASS), (0.6, GLASS * 1.5 + 14)):
                    sill, lintel = low + (high - low) * start, low + (high - low) * 0.95
                    pane = np.array([sill[0], lintel[0], lintel[1], sill[1]])
                    middle = pane.mean(axis=0)
                    self.canvas.face(middle + (pane - middle) * (0.9, 1, 1), None, ink)

    def flank(self, sign: int) -> None:
        """Draw the side at `sign`, its windows and its wheels, if the camera sees it."""
        outline = self.world(self.long, self.up, self.half * sign)
        if not self.seen(outline[::-sign]):
            return
        width, lit = float(self.half.max()) * sign, self.canvas.light(outline[[1, len(outline) // 2, -2]])
        self.canvas.face(outline, self.label, self.paint, lit)

        def panel(points: list[tuple[float, float]], ink: Array) -> None:
            long, up = np.array(points).T
            leant = width * (0.8 if self.label == CAR else 0.97)
            across = np.interp(up, (0.62 * self.roof, self.roof), (width, leant))
            self.canvas.face(self.world(long, up, across), None, ink, lit)

        def upright(x0: float, x1: float, y0: float, y1: float, ink: Array) -> None:
            panel([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], ink)

        end = self.length
        upright(0.06, end - 0.06, 0.36, 0.6, self.paint * 0.82)
        upright(0.1, end - 0.1, 0.27, 0.38, self.inks["d"])
        if self.label == TRUCK:
            upright(0, 5.9, 0.95, 3.4, self.inks["l"])
            panel([(6.5, 1.65), (7.5, 1.65), (7.0, 2.5), (6.5, 2.5)], GLASS)
        else:
            first, last = (i for i, c in enumerate(self.coverings) if c == "g")
            rear, front = self.long[first], self.long[last + 1]
            belt, top = max(self.up[first], self.up[last + 1]) + 0.02, self.up[last] - 0.08
            middle = (belt + top) / 2
            back, nose = self.long[first + 1] + 0.15, self.long[last]
            panel([(rear + 0.2, belt), (front - 0.3, belt), (nose, top), (back, top)], GLASS)
            panel(
                [((rear + back) / 2 + 0.15, middle), ((front + nose) / 2 - 0.15, middle), (nose, top), (back, top)],
                GLASS * 1.4 + 10,
            )
            doors = np.arange(1.0, end - 0.5, 1.4)[1:] if self.label == BUS else [(rear + front) / 2]
            for at in doors:
                upright(at - 0.06, at + 0.06, belt, top, self.paint * 0.8)
                upright(at - 0.015, at + 0.015, 0.4, belt, self.paint * 0.7)
                upright(at - 0.3, at - 0.12, belt - 0.14, belt - 0.1, self.paint * 0.6)
        for radius, ink in ((1.2, self.paint * 0.2 + 10), (1.0, RUBBER), (0.64, STEEL * 1.2), (0.25, STEEL * 0.6)):
            self.wheels(width, self.tyre * radius, ink, self.label if radius == 1 else None)

    def lamps(self, braking: bool) -> None:
        """Paint the lamps, the plate and the grille of the end that the camera sees."""
        wide, high = float(self.half[1]), float(self.up[3]) if self.label == CAR else 1.2
        white = np.array((240.0, 238.0, 226.0))
        red = np.array((216.0, 32.0, 28.0)) if braking else np.array((132.0, 24.0, 26.0))
        for at, sign, ink, low in ((-0.01, 1, red, 0.74 * high), (self.length + 0.01, -1, white, 0.62 * high)):
            end = self.world(at, np.array((0.3, 1, 1, 0.3)), wide * sign * np.array((1, 1, -1, -1)))
            if not self.seen(end):
                continue
            tall = high * (0.16 if sign > 0 else 0.13)
            patches = [(box(-wide * 0.94, 0.4, wide * 0.94, 0.45), self.inks["d"])]
            patches += [(box(e * wide * 0.66, low, e * wide * 0.96, low + tall), ink) for e in (-1, 1)]
            patches += [(box(-wide * 0.55, low * 0.9, wide * 0.55, low + tall * 0.8), self.inks["d"])] * (sign < 0)
            patches += [(box(-0.26, 0.5, 0.26, 0.61), white * 0.92)]
            for outline, colour in patches:
                self.canvas.face(self.world(at, outline[:, 1], outline[:, 0]), None, colour, 1.0)


def vehicle(canvas: Canvas, rng: Rng, kind: str, x: float, z: float, yaw: float) -> None:
    """Draw a hatch, sedan, suv, van, bus or truck around (X, Z), turned `yaw` radians right of straight ahead."""
    car = _Vehicle(canvas, rng, kind, x, z, yaw)
    car.below()
    car.hull()
    car.lamps(rng.random() < 0.3)
    for sign in (-1, 1):
        car.flank(sign)


def person(canvas: Canvas, rng: Rng, x: float, z: float, riding: bool = False) -> None:
    """Draw somebody who walks or stands, or somebody on a bicycle."""
    label, grown = (RIDER if riding else PERSON), rng.uniform(0.92, 1.06)
    canvas.cast(x, z, 0.22, 0.1, 1.6)
    figure = Figure(canvas, x, z, grown * rng.choice([-1, 1]) * (rng.uniform(0.5, 1.0) if riding else 1.0))
    figure.scale[1] *= grown
    top, legs, skin = pick(rng, CLOTH), pick(rng, CLOTH) * 0.7, pick(rng, SKINS)
    hair = pick(rng, _palette((60, 44, 34), (36, 32, 32), (150, 116, 70), (120, 116, 112)))
    if riding:
        _bicycle(rng, figure)
        steps, hip, chest = [(0.28, 0.62, 0.12, 0.2, 0.8), (0.36, 0.75, 0.2, 0.42, 1.0)], (-0.14, 1.0), (0.16, 1.42)
        hands, bulk = [(0.32, 1.22, 0.46, 1.06)], 0.16
    else:
        a = rng.uniform(0.04, 0.34)
        steps = [(0.06 - 0.3 * a, 0.5, -a, 0.09, 0.8), (0.05 + 0.6 * a, 0.52, a, 0.06, 1.0)]
        hip, chest, bulk = (0.0, 0.9), (0.0, 1.34), rng.uniform(0.15, 0.19)
        hands = [(0.14 + 0.2 * a, 1.12, 0.16 + 0.5 * a, 0.86), (-0.18 - 0.2 * a, 1.1, -0.16 - 0.5 * a, 0.84)]
    for knee_x, knee_y, foot_x, foot_y, shade in steps:
        figure.fill(limb(*hip, knee_x, knee_y, 0.1, 0.075), label, legs * shade)
        figure.fill(limb(knee_x, knee_y, foot_x, foot_y, 0.075, 0.05), label, legs * shade)
        figure.fill(limb(foot_x, foot_y - 0.02, foot_x + 0.13, foot_y - 0.03, 0.05, 0.035), label, legs * 0.4)
    if not riding and rng.random() < 0.3:
        figure.fill(limb(0.0, 0.7, *chest, 0.19, bulk), label, top * 0.92)
    if not riding and rng.random() < 0.35:
        figure.fill(limb(-0.24, 0.82, -0.26, 1.0, 0.11, 0.09), label, pick(rng, CLOTH) * 0.7)
    figure.fill(limb(*hip, *chest, bulk * 0.85, bulk), label, top)
    figure.fill(limb(hip[0] - 0.06, hip[1] + 0.05, chest[0] - 0.08, chest[1] - 0.05, 0.06, 0.07), None, top * 0.82)
    for elbow_x, elbow_y, hand_x, hand_y in hands:
        figure.fill(limb(chest[0] * 0.9, chest[1] + 0.05, elbow_x, elbow_y, 0.07, 0.055), label, top * 0.88)
        figure.fill(limb(elbow_x, elbow_y, hand_x, hand_y, 0.055, 0.045), label, top * 0.9)
        figure.fill(disc(hand_x, hand_y, 0.05, 8), label, skin)
    neck = chest[0] * 1.15 + 0.02
    figure.fill(limb(neck, chest[1] + 0.1, neck + 0.02, chest[1] + 0.25, 0.06, 0.06), label, skin * 0.85)
    figure.fill(limb(neck + 0.02, chest[1] + 0.27, neck + 0.02, chest[1] + 0.34, 0.095, 0.1), label, skin)
    figure.fill(limb(neck - 0.03, chest[1] + 0.34, neck + 0.01, chest[1] + 0.38, 0.09, 0.095), label, hair)


def bicycles(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw some bicycles that are parked side by side."""
    for i in range(int(rng.integers(1, 5))):
        _bicycle(rng, Figure(canvas, x + rng.normal(0, 0.1), z - 0.5 * i, rng.uniform(0.5, 1.0)))


def _bicycle(rng: Rng, figure: Figure) -> None:
    """Draw a bicycle; its wheels are labelled as discs, as in Cityscapes, though the photo shows their rings."""
    paint = pick(rng, PAINT)
    for at in (-0.52, 0.52):
        figure.fill(disc(at, 0.34, 0.34, 22), BICYCLE, None)
        ring = np.concatenate([disc(at, 0.34, 0.345, 22), disc(at, 0.34, 0.345, 1)])
        hole = np.concatenate([disc(at, 0.34, 0.285, 22), disc(at, 0.34, 0.285, 1)])[::-1]
        figure.fill(np.concatenate([ring, hole]), None, RUBBER)
    tubes = [(-0.52, 0.34, -0.12, 0.34), (-0.12, 0.34, 0.36, 0.78), (-0.2, 0.8, 0.38, 0.82), (0.52, 0.34, 0.38, 0.98)]
    for tube in [*tubes, (-0.12, 0.34, -0.22, 0.92), (-0.52, 0.34, -0.2, 0.8)]:
        figure.fill(limb(*tube, 0.035, 0.035), BICYCLE, paint)
    figure.fill(limb(-0.32, 0.94, -0.12, 0.95, 0.05, 0.03), BICYCLE, RUBBER)
    figure.fill(limb(0.34, 1.02, 0.5, 1.04, 0.03, 0.03), BICYCLE, RUBBER)


def lamp(canvas: Canvas, rng: Rng, x: float, z: float, height: float) -> None:
    """Draw a street lamp whose arm reaches over the road."""
    figure, steel = Figure(canvas, x, z, -float(np.sign(x))), STEEL * rng.uniform(0.6, 1.0)
    figure.fill(limb(0, 0, 0, 0.8, 0.11, 0.1), POLE, steel * 0.9)
    figure.fill(limb(0, 0, 0, height - 0.8, 0.09, 0.06), POLE, steel)
    turn = np.linspace(0, np.pi / 2, 6)
    arm = np.stack([1.1 * (1 - np.cos(turn)), height - 0.8 + 0.7 * np.sin(turn)], axis=-1)
    for (x0, y0), (x1, y1) in itertools.pairwise(arm):
        figure.fill(limb(x0, y0, x1, y1, 0.06, 0.055), POLE, steel)
    figure.fill(limb(1.0, height - 0.1, 1.7, height - 0.05, 0.08, 0.12), POLE, steel * 1.1)


def sign(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a pole with one or two traffic signs."""
    figure, steel = Figure(canvas, x, z), STEEL * rng.uniform(0.8, 1.1)
    high = rng.uniform(2.2, 2.8)
    figure.fill(limb(0, 0, 0, high, 0.045, 0.04), POLE, steel)
    red, white, black = np.array((196.0, 34.0, 38.0)), np.array((238.0, 238.0, 234.0)), np.array((40.0, 40.0, 44.0))
    blue, yellow = np.array((36.0, 88.0, 176.0)), np.array((242.0, 194.0, 44.0))
    kinds = [
        (24, 0.0, red, red * 1.08, box(-0.62, -0.14, 0.62, 0.14), white),
        (3, np.pi / 2, red, white, box(-0.07, -0.2, 0.07, 0.36), black),
        (24, 0.0, white, blue, limb(0, -0.45, 0, 0.45, 0.12, 0.12), white),
        (4, 0.0, white, yellow, box(0, 0, 0, 0), yellow),
        (4, np.pi / 4, white, blue, limb(0, 0.15, 0, 0.25, 0.3, 0.3), white),
    ]
    for _ in range(int(rng.integers(1, 3))):
        size, (corners, turn, edge, plate, glyph, ink) = rng.uniform(0.28, 0.37), kinds[rng.integers(len(kinds))]
        figure.fill(disc(0, high, size * 1.1, corners, turn), SIGN, edge)
        figure.fill(disc(0, high, size * 0.88, corners, turn), None, plate)
        figure.fill((0, high) + size * glyph, None, ink)
        high -= 2.1 * size


def traffic_light(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a traffic light on its pole, now and then with a second one on an arm over the road."""
    figure, steel = Figure(canvas, x, z, -float(np.sign(x))), STEEL * 0.8
    reach = rng.uniform(2.0, 3.5) if rng.random() < 0.5 else 0.0
    high, lit = 5.4 if reach else 3.2, int(rng.integers(3))
    figure.fill(limb(0, 0, 0, high, 0.09, 0.07), POLE, steel)
    if reach:
        figure.fill(limb(0, high - 0.2, reach, high, 0.07, 0.05), POLE, steel)
    colours = _palette((60, 220, 120), (250, 190, 40), (240, 50, 40))
    for at, low in ((0.0, 2.4), (reach, high - 0.7)) if reach else ((0.0, 2.4),):
        figure.fill(box(at - 0.2, low, at + 0.2, low + 1.05), LIGHT, np.array((46.0, 50.0, 48.0)))
        for i in range(3):
            glow = colours[i] * (1.0 if i == lit else 0.3)
            figure.fill(disc(at, low + 0.2 + 0.32 * i, 0.12, 12), None, glow)


def column(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a bin, a box of the post or an advertising column."""
    figure, wide = Figure(canvas, x, z), rng.uniform(0.22, 0.6)
    high, colour = wide * rng.uniform(2.0, 4.0), pick(rng, PAINT) * 0.8
    figure.fill(box(-wide, 0, wide, high), STATIC, colour)
    figure.fill(box(-wide, 0, -wide * 0.3, high), None, colour * 1.15)
    figure.fill(box(-wide * 1.15, high, wide * 1.15, high + 0.15), STATIC, colour * 0.7)
    figure.fill(box(-wide * 0.6, high * 0.45, wide * 0.6, high * 0.8), None, pick(rng, PLASTER))


def post(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a bollard."""
    figure, ink = Figure(canvas, x, z), STEEL * rng.uniform(0.7, 1.2)
    figure.fill(limb(0, 0, 0, 0.95, 0.08, 0.08), POLE, ink)
    figure.fill(box(-0.08, 0.74, 0.08, 0.84), None, np.array((226.0, 224.0, 216.0)))
