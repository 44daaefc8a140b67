"""Rendered faces with known attributes: the data set that needs no download.

Every face is a function of (seed, index) alone: filled polygons on a canvas several times the final size, which is then
averaged down so that edges are smooth. Its binary attributes, named as CelebA names them where CelebA has them, say
what was drawn, even where a hat or sunglasses were then drawn over it.

Positions on a head are in head units: the origin at the head's centre, x to the right, y downward, 1 the head's
half-height. Colours are RGB in [0, 255].
"""

import math
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw

VERSION = 1  # of the drawing; another number whenever the faces change, so that they are rendered again

SKIN = ((250, 226, 206), (240, 205, 178), (224, 178, 144), (196, 145, 106), (150, 101, 69), (98, 64, 45))
HAIR = {  # the share of heads that have it, and its colour
    "Black_Hair": (0.28, (32, 27, 28)),
    "Brown_Hair": (0.26, (98, 62, 36)),
    "Blond_Hair": (0.2, (222, 184, 108)),
    "Gray_Hair": (0.14, (172, 172, 176)),
    "Red_Hair": (0.12, (164, 72, 32)),
}
IRIS = {"brown": (84, 52, 28), "blue": (70, 122, 188), "green": (86, 132, 84), "black": (34, 26, 24)}
FRAMES = ((24, 24, 28), (112, 62, 28), (196, 158, 72), (150, 24, 36), (40, 62, 120))
EAR_RINGS = ((236, 200, 88), (226, 228, 236), (200, 40, 70))
WHITE, BLACK, BLOOD = (255, 255, 255), (10, 8, 10), (60, 20, 10)


@lru_cache(maxsize=64)
def arc(start: float, stop: float, count: int) -> np.ndarray:
    """Points [count, 2] on the unit circle from one angle to another, in turns; 0 is right, 0.25 is down."""
    angles = 2 * np.pi * np.linspace(start, stop, count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def arch(left: float, right: float, y: float, rise: float, count: int) -> np.ndarray:
    """A parabola from (left, y) to (right, y) whose middle is `rise` above its ends: points [count, 2]."""
    t = np.linspace(-1, 1, count)
    return np.stack([(left + right) / 2 + (right - left) / 2 * t, y - rise * (1 - t * t)], axis=1)


def mix(first, second, share: float) -> tuple:
    """The colour that is `share` of the way from the first to the second."""
    return tuple(a + share * (b - a) for a, b in zip(first, second, strict=True))


class Pen:
    """Fills shapes that are given in a frame of their own: its origin is at `centre`, in canvas pixels, one of its
    units is `unit` pixels, and it is turned by `tilt` radians, clockwise on the screen."""

    def __init__(self, canvas: ImageDraw.ImageDraw, centre: tuple[float, float], unit: float, tilt: float = 0.0):
        self.canvas, self.centre = canvas, centre
        cos, sin = math.cos(tilt) * unit, math.sin(tilt) * unit
        self.turn = np.array([[cos, sin], [-sin, cos]])

    def polygon(self, points, colour) -> None:
        """Fill the polygon with the corners [P, 2]."""
        pixels = np.asarray(points) @ self.turn + self.centre
        self.canvas.polygon(pixels.ravel().tolist(), fill=tuple(map(int, colour)))

    def ellipse(self, x: float, y: float, width: float, height: float, colour) -> None:
        """Fill the ellipse around (x, y) with the given half-axes."""
        self.polygon(arc(0, 1, 25) * (width, height) + (x, y), colour)

    def ellipses(self, x: float, *shape) -> None:
        """Fill an ellipse and its mirror image."""
        self.ellipse(-x, *shape)
        self.ellipse(x, *shape)

    def stroke(self, points, thickness, colour) -> None:
        """Fill a band along a line that runs from left to right; `thickness` is one number or one per point."""
        half = np.zeros_like(points)
        half[:, 1] = np.asarray(thickness) / 2
        self.polygon(np.concatenate([points - half, (points + half)[::-1]]), colour)


def choose_face(rng: np.random.Generator) -> SimpleNamespace:
    """Everything that is random about one face and its picture, always drawn in the same order."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * rng.random()

    def chance(share: float) -> bool:
        return rng.random() < share

    def pick(choices, shares=None):
        limits = np.cumsum(shares or [1 / len(choices)] * len(choices))
        return choices[min(np.searchsorted(limits, rng.random()), len(choices) - 1)]

    def colour(low: float, high: float) -> tuple:
        return tuple(low + (high - low) * rng.random(3))

    f = SimpleNamespace()
    # the picture
    f.background, f.background_angle = (colour(20, 245), colour(20, 245)), uniform(0, 2 * np.pi)
    f.light, f.light_angle = uniform(0.12, 0.38), uniform(0, 2 * np.pi)
    f.x, f.y = uniform(0.41, 0.59), uniform(0.46, 0.55)
    f.half_height, f.tilt = uniform(0.27, 0.34), uniform(-0.28, 0.28)
    # skin and head
    f.width, f.jaw = uniform(0.66, 0.86), uniform(0.04, 0.3)
    f.skin_tone = uniform(0, 1)
    place, lower = f.skin_tone * (len(SKIN) - 1), min(int(f.skin_tone * (len(SKIN) - 1)), len(SKIN) - 2)
    f.skin = mix(mix(SKIN[lower], SKIN[lower + 1], place - lower), colour(0, 255), 0.03)
    f.shade, f.deep_shade = mix(f.skin, BLOOD, 0.22), mix(f.skin, BLOOD, 0.5)
    f.rosy = chance(0.25)
    # hair
    f.hair_name, f.bald, f.bangs = pick(list(HAIR), [share for share, _ in HAIR.values()]), chance(0.12), chance(0.35)
    f.hair = mix(HAIR[f.hair_name][1], colour(0, 255), 0.08)
    f.dark_hair = mix(f.hair, BLACK, 0.3)
    f.length, f.volume = uniform(0, 1), uniform(0.06, 0.2)
    f.hairline, f.parting = uniform(0.5, 0.68), uniform(-0.8, 0.8)
    f.long_hair, f.hair_end = f.length > 0.55 and not f.bald, 0.45 + 2.9 * (f.length - 0.55)
    # eyes and brows
    f.eye_x, f.eye_y = uniform(0.37, 0.46) * f.width / 0.76, uniform(-0.16, -0.06)
    f.eye_width, f.eye_open = uniform(0.125, 0.17), uniform(0.3, 0.75)
    f.iris = pick(list(IRIS), (0.36, 0.28, 0.16, 0.2))
    f.gaze_x, f.gaze_y = uniform(-1, 1), uniform(-0.6, 0.6)
    f.brow_thickness, f.brow_rise = uniform(0.03, 0.115), uniform(0.02, 0.09)
    f.brow_slant, f.brow_gap = uniform(-0.06, 0.06), uniform(0.06, 0.14)
    # nose and mouth
    f.nose_width, f.nose_length = uniform(0.09, 0.2), uniform(0.26, 0.38)
    f.mouth_y, f.mouth_width, f.smile = uniform(0.48, 0.56), uniform(0.2, 0.34), uniform(-0.09, 0.15)
    f.lips, f.lipstick = uniform(0.035, 0.09), chance(0.3)
    f.mouth_open, f.opening = chance(0.4), uniform(0.08, 0.18)
    # what grows and what is worn
    f.beard, f.goatee, f.mustache = chance(0.18), chance(0.2), chance(0.22)
    f.goatee = f.goatee and not f.beard
    f.glasses, f.shades = chance(0.36), chance(0.36)
    f.glasses_shape, f.frame = pick(("round", "square", "aviator")), pick(FRAMES)
    f.hat, f.hat_shape = chance(0.22), pick(("beanie", "cap", "brimmed"))
    f.hat_colour, f.band_colour, f.cap_side = colour(20, 235), colour(20, 235), pick((-1, 1))
    f.earrings, f.earring_colour = chance(0.28), pick(EAR_RINGS)
    f.shirt, f.collar = colour(25, 235), pick(("round", "open", "folded"))
    f.necktie, f.necktie_colour = chance(0.2), colour(20, 220)
    return f


def attributes_of(f: SimpleNamespace) -> dict[str, bool]:
    """What is known of a face, in the order of the names."""
    return {
        "Bald": f.bald,
        "Bangs": f.bangs and not f.bald,
        "Big_Lips": f.lips > 0.07,
        "Big_Nose": f.nose_width > 0.165,
        "Black_Hair": f.hair_name == "Black_Hair" and not f.bald,
        "Blond_Hair": f.hair_name == "Blond_Hair" and not f.bald,
        "Blue_Eyes": f.iris == "blue",
        "Brown_Hair": f.hair_name == "Brown_Hair" and not f.bald,
        "Bushy_Eyebrows": f.brow_thickness > 0.085,
        "Chubby": f.width * (1 - f.jaw / 2) > 0.74,
        "Eyeglasses": f.glasses,
        "Goatee": f.goatee,
        "Gray_Hair": f.hair_name == "Gray_Hair" and not f.bald,
        "Light_From_Left": math.cos(f.light_angle) < 0,
        "Long_Hair": f.long_hair,
        "Looking_Left": f.gaze_x < -0.3,
        "Mouth_Slightly_Open": f.mouth_open,
        "Mustache": f.mustache,
        "Narrow_Eyes": f.eye_open < 0.42,
        "No_Beard": not (f.beard or f.goatee),
        "Pale_Skin": f.skin_tone < 0.22,
        "Rosy_Cheeks": f.rosy,
        "Smiling": f.smile > 0.05,
        "Sunglasses": f.glasses and f.shades,
        "Tilted_Left": f.tilt < -0.08,
        "Wearing_Earrings": f.earrings,
        "Wearing_Hat": f.hat,
        "Wearing_Lipstick": f.lipstick,
        "Wearing_Necktie": f.necktie,
    }


ATTRIBUTES = tuple(attributes_of(choose_face(np.random.default_rng(0))))  # their names


def draw_background(f: SimpleNamespace, size: int) -> Image.Image:
    """A linear gradient between two colours; the functions below draw the parts of the picture, from back to front."""
    direction = np.array([math.cos(f.background_angle), math.sin(f.background_angle)])
    corners = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)]) @ direction / np.abs(direction).sum()
    first, second = np.array(f.background)
    ramp = first + (corners[:, None] + 1) / 2 * (second - first)
    # Bilinear interpolation between the centres of four pixels is a linear gradient.
    pixels = Image.fromarray(ramp.reshape(2, 2, 3).astype(np.uint8))
    return pixels.resize((size, size), Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))


def draw_back_hair_and_body(f: SimpleNamespace, head: Pen, body: Pen) -> None:
    if f.long_hair:
        outer, end = f.width + f.volume + 0.06, f.hair_end
        ends = [(outer + 0.06, end), (0.4 * outer, end + 0.1), (-0.4 * outer, end + 0.1), (-outer - 0.06, end)]
        head.polygon(np.concatenate([arc(0.5, 1, 20) * (outer, 1 + f.volume), ends]), f.dark_hair)
    neck, chin = 0.55 * f.width, 1.3
    body.polygon([(-neck, 0.3), (neck, 0.3), (neck, 1.6), (-neck, 1.6)], f.shade)
    body.polygon([*arch(-1.9, 1.9, 2.1, 0.82, 15), (2.2, 4), (-2.2, 4)], f.shirt)
    if f.collar == "round":
        body.ellipse(0, chin - 0.02, neck * 1.08, 0.2, f.shade)
    else:
        tip = chin + (0.42 if f.collar == "open" else 0.3)
        body.polygon([(-neck * 1.1, chin - 0.1), (neck * 1.1, chin - 0.1), (0, tip)], f.shade)
    if f.necktie:
        body.polygon([(-0.15, 1.5), (0.15, 1.5), (0.09, 1.74), (-0.09, 1.74)], mix(f.necktie_colour, BLACK, 0.25))
        body.polygon([(-0.09, 1.74), (0.09, 1.74), (0.28, 4), (-0.28, 4)], f.necktie_colour)
    if f.collar == "folded":
        for side in (-1, 1):
            flap = [(neck * 1.2, chin - 0.16), (neck * 1.45, chin + 0.1), (0.3, chin + 0.5), (0.02, chin + 0.26)]
            body.polygon(np.array(flap) * (side, 1), mix(f.shirt, WHITE, 0.55))


def draw_head_and_beard(f: SimpleNamespace, head: Pen) -> None:
    contour = arc(0, 1, 45) * (f.width, 1)
    contour[:, 0] *= 1 - f.jaw * np.clip(contour[:, 1], 0, 1) ** 1.5
    head.ellipses(f.width * 0.99, 0.02, 0.1, 0.2, f.shade)  # the ears
    head.polygon(contour, f.skin)
    if f.rosy:
        head.ellipses(f.width * 0.6, 0.3, 0.18, 0.13, mix(f.skin, (232, 84, 92), 0.45))
    stubble = mix(f.hair, f.skin, 0.12)
    if f.beard:
        jaw = contour[contour[:, 1] > 0.12] * (1, 1.06)  # from the right ear round the chin to the left ear
        head.polygon(np.concatenate([jaw, arch(-0.8 * f.width, 0.8 * f.width, 0.12, -0.3, 11)]), stubble)
    if f.goatee:
        head.ellipse(0, 0.86, 0.22, 0.2, stubble)
    if f.mustache:
        x, y = f.mouth_width + 0.05, f.mouth_y
        half = np.array([(0.05, y - 0.17), (0.6 * x, y - 0.13), (x, y + 0.06), (0.6 * x, y - 0.02), (0, y - 0.04)])
        head.polygon(np.concatenate([half, half[::-1] * (-1, 1)]), mix(stubble, BLACK, 0.12))


def draw_nose_and_mouth(f: SimpleNamespace, head: Pen) -> None:
    y, width = f.eye_y + f.nose_length, f.nose_width
    head.polygon([(-0.02, f.eye_y + 0.05), (0.05, f.eye_y + 0.05), (width, y), (-0.2 * width, y)], f.shade)
    head.ellipse(0, y, width, 0.055, f.shade)
    head.ellipses(width * 0.5, y + 0.02, 0.035, 0.025, f.deep_shade)
    colour = (196, 22, 58) if f.lipstick else mix(f.skin, (170, 50, 56), 0.5)
    upper = arch(-f.mouth_width, f.mouth_width, f.mouth_y - f.smile, -f.smile, 11)
    bulge = 1 - np.linspace(-1, 1, 11) ** 2
    if not f.mouth_open:
        head.stroke(upper, f.lips * (1.5 + 0.9 * bulge), colour)
        head.stroke(upper, 0.022, mix(colour, BLACK, 0.55))
        return
    drop = np.stack([np.zeros(11), f.opening * bulge], axis=1)
    head.stroke(upper + drop, f.lips * 1.3, colour)
    head.polygon(np.concatenate([upper, (upper + drop)[::-1]]), (70, 16, 22))
    head.polygon(np.concatenate([upper, (upper + 0.45 * drop)[::-1]]), (244, 242, 236))  # the teeth
    head.stroke(upper, f.lips, colour)


def draw_eyes(f: SimpleNamespace, head: Pen) -> None:
    height = f.eye_width * f.eye_open
    radius = min(0.084, height * 1.05)
    for side in (-1, 1):
        x = side * f.eye_x
        head.ellipse(x, f.eye_y, f.eye_width * 1.1, height * 1.15 + 0.02, f.shade)
        head.ellipse(x, f.eye_y, f.eye_width, height, (246, 246, 244))
        iris_x, iris_y = x + f.gaze_x * (f.eye_width - 0.9 * radius), f.eye_y + f.gaze_y * 0.35 * height
        head.ellipse(iris_x, iris_y, radius, radius, IRIS[f.iris])
        head.ellipse(iris_x, iris_y, 0.5 * radius, 0.5 * radius, BLACK)
        head.stroke(arch(x - f.eye_width, x + f.eye_width, f.eye_y, height, 7), 0.032, (38, 24, 22))
        reach = 1.2 * f.eye_width
        brow = arch(x - reach, x + reach, f.eye_y - height - f.brow_gap, f.brow_rise, 7)
        brow[:, 1] += side * f.brow_slant * np.linspace(-1, 1, 7)
        head.stroke(brow, f.brow_thickness, mix(f.hair, (40, 26, 20), 0.45))


def draw_hair(f: SimpleNamespace, head: Pen) -> None:
    if f.bald:
        return
    outside = arc(0.485, 1.015, 20) * (f.width + 0.8 * f.volume, 1 + f.volume)
    if f.bangs:
        inside = arch(-0.98 * f.width, 0.98 * f.width, -0.12, 0.26, 11)[::-1]
        inside[:, 1] += np.resize((0.05, -0.05), 11)  # strands
        head.polygon(np.concatenate([outside, inside]), f.hair)
    else:
        part = f.parting * f.width * 0.5
        temple = np.array([(f.width, -0.05), (0.93 * f.width, -0.32), (0.66 * f.width, 0.06 - f.hairline)])
        inside = np.concatenate([temple, [(part, -f.hairline - 0.16)], (temple * (-1, 1))[::-1]])
        head.polygon(np.concatenate([outside, inside]), f.hair)
        crest, top = -f.hairline - 0.14, -0.98 - 0.7 * f.volume
        head.polygon([(part - 0.03, crest), (part + 0.03, crest), (1.1 * part, top)], f.dark_hair)
    if f.long_hair:
        near, far, end = f.width, f.width + f.volume, f.hair_end
        lock = [(0.9 * near, -0.3), (far, -0.2), (far + 0.1, end), (0.82 * near, end), (0.93 * near, 0.1)]
        for side in (-1, 1):
            head.polygon(np.array(lock) * (side, 1), f.hair)


def draw_earrings_and_hat(f: SimpleNamespace, head: Pen) -> None:
    if f.earrings:
        head.ellipses(f.width + 0.02, 0.32, 0.08, 0.09, f.earring_colour)
    if not f.hat:
        return
    reach, dome = f.width + 0.8 * f.volume + 0.05, arc(0.5, 1, 18)
    if f.hat_shape == "beanie":
        crown, band = dome * (reach, 0.86) + (0, -0.5), [(-reach, -0.7), (reach, -0.7), (reach, -0.44), (-reach, -0.44)]
    elif f.hat_shape == "cap":
        peak = [(-0.3, -0.56), (reach + 0.5, -0.46), (reach + 0.44, -0.36), (-0.4, -0.42)]
        crown, band = dome * (reach, 0.78) + (0, -0.48), np.array(peak) * (f.cap_side, 1)
    else:
        crown = np.array([(0.84, -0.5), (0.74, -1.36), (-0.74, -1.36), (-0.84, -0.5)]) * (reach, 1)
        band = np.array([(0.85, -0.56), (0.82, -0.74), (-0.82, -0.74), (-0.85, -0.56)]) * (reach, 1)
    head.polygon(crown, f.hat_colour)
    head.polygon(band, f.band_colour)
    if f.hat_shape == "brimmed":
        head.ellipse(0, -0.5, reach + 0.42, 0.12, mix(f.hat_colour, BLACK, 0.14))


LENSES = {
    "round": arc(0, 1, 25) * (1, 1.1),
    "square": np.array([(-1, -0.9), (1, -0.9), (1, 0.9), (-1, 0.9), (-1, -0.9)]),
    "aviator": np.array([(-1, -0.9), (1, -0.9), (0.85, 0.4), (0.3, 1.2), (-0.3, 1.2), (-0.85, 0.4), (-1, -0.9)]),
}


def draw_glasses(f: SimpleNamespace, head: Pen) -> None:
    if not f.glasses:
        return
    rim, width, height = 0.045, 0.72 * f.eye_x, 0.19
    for side in (-1, 1):
        x = side * f.eye_x
        lens = LENSES[f.glasses_shape] * (width, height)
        around = LENSES[f.glasses_shape] * (width + rim, height + rim)
        if f.shades:
            head.polygon(lens + (x, f.eye_y), (26, 26, 32))
        head.polygon(np.concatenate([lens, around[::-1]]) + (x, f.eye_y), f.frame)
        ends = sorted((x + side * width, side * max(f.width, f.eye_x + width)))
        head.stroke(np.array([(ends[0], f.eye_y), (ends[1], f.eye_y)]), rim, f.frame)
    head.stroke(np.array([(width - f.eye_x, f.eye_y - 0.03), (f.eye_x - width, f.eye_y - 0.03)]), rim, f.frame)


def light_from_a_side(f: SimpleNamespace, image: np.ndarray) -> np.ndarray:
    """Brighten one side of the picture and darken the other, by up to ±`light` at the edges of the head."""
    pixels = (np.arange(len(image), dtype=np.float32) + 0.5) / len(image)
    across = (pixels - f.x) * (math.cos(f.light_angle) / f.half_height)
    down = (pixels - f.y) * (math.sin(f.light_angle) / f.half_height)
    brightness = 1 + f.light * np.clip(across[None, :] + down[:, None], -1, 1)
    return np.minimum(image * brightness[:, :, None].astype(np.float32) + 0.5, 255).astype(np.uint8)


def render_face(seed: int, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A face of the set that `seed` makes: uint8 [size, size, 3], and its attributes, bool [29] as in ATTRIBUTES.

    Seed and index are at least 0. The same arguments give the same face, whatever else is rendered.
    """
    f = choose_face(np.random.default_rng((seed, index)))
    scale = max(2, -(-192 // size))  # canvas pixels per image pixel along one side: 3 at 64, 2 from 96 on
    side = size * scale
    picture = draw_background(f, size).resize((side, side), Image.Resampling.NEAREST)
    canvas, centre = ImageDraw.Draw(picture), (f.x * side, f.y * side)
    head, body = Pen(canvas, centre, f.half_height * side, f.tilt), Pen(canvas, centre, f.half_height * side)
    draw_back_hair_and_body(f, head, body)
    for draw in (draw_head_and_beard, draw_nose_and_mouth, draw_eyes, draw_hair, draw_earrings_and_hat, draw_glasses):
        draw(f, head)
    return light_from_a_side(f, np.asarray(picture.reduce(scale))), np.array(list(attributes_of(f).values()))
