"""A scene cut into sections and shown as a microscope would show it."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mitoda.errors import InputError
from mitoda.synthetic.lattice import LATTICE, Frame, SmoothNoise
from mitoda.synthetic.preset import PhantomDomain
from mitoda.synthetic.scene import (
    Body,
    World,
    distance_to,
    draw_cells,
    lay_out_world,
    place_mitochondria,
    within,
)


def draw_phantom(
    domain: PhantomDomain, shape: tuple[int, int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a volume and its exact mitochondria labels.

    Parameters
    ----------
    domain : PhantomDomain
        `SOURCE`, `TARGET`, or one of your own.
    shape : (int, int, int)
        Sections, rows, columns. Below 100 pixels (half a micrometre) hardly one mitochondrion fits.
    seed : int
        The same seed draws the same volume.

    Returns
    -------
    image : ndarray of uint8, shape (sections, rows, columns)
    label : ndarray of uint8, shape (sections, rows, columns)
        255 inside the outer membrane of a mitochondrion, 0 elsewhere.

    Examples
    --------
    >>> from mitoda.synthetic import SOURCE
    >>> image, label = draw_phantom(SOURCE, (3, 64, 96), seed=1)
    >>> image.shape, image.dtype, sorted(set(label.flat) | {0, 255})
    ((3, 64, 96), dtype('uint8'), [np.uint8(0), np.uint8(255)])
    """
    image, numbers = draw_instances(domain, shape, seed)
    return image, np.where(numbers > 0, np.uint8(255), np.uint8(0))


def draw_instances(
    domain: PhantomDomain, shape: tuple[int, int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a volume as `draw_phantom`, and number its mitochondria.

    Returns
    -------
    image : ndarray of uint8, shape (sections, rows, columns)
    numbers : ndarray of uint16, shape (sections, rows, columns)
        From 1 inside the outer membrane of a mitochondrion, 0 elsewhere. Some numbers are missing where a mitochondrion
        lies outside of what is drawn.

    Examples
    --------
    >>> from mitoda.synthetic import SOURCE
    >>> image, numbers = draw_instances(SOURCE, (3, 64, 96), seed=1)
    >>> numbers.shape, numbers.dtype
    ((3, 64, 96), dtype('uint16'))
    """
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape is {shape}; expected (sections, rows, columns), each 1 or more")
    world_seed, mitochondria_seed, microscope_seed = np.random.SeedSequence(seed).spawn(3)
    frame = Frame(shape, domain.voxel_size)
    world = lay_out_world(domain, frame, np.random.default_rng(world_seed))
    world.bodies += place_mitochondria(world, domain, np.random.default_rng(mitochondria_seed))
    microscope = Microscope(domain, frame, np.random.default_rng(microscope_seed))
    image, numbers = np.empty(shape, np.uint8), np.empty(shape, np.uint16)
    offsets = (np.arange(domain.planes) - (domain.planes - 1) / 2) / domain.planes * domain.voxel_size[0]
    for section in range(shape[0]):
        depth = section * domain.voxel_size[0]
        drawn = [Plane(world, domain, depth + offset).draw() for offset in offsets]
        inside = drawn[domain.planes // 2][1] if domain.planes % 2 else Plane(world, domain, depth).draw()[1]
        image[section] = microscope.show(np.mean([grey for grey, _ in drawn], axis=0))
        numbers[section] = inside
    return image, numbers


@dataclass
class Plane:
    """One plane through the world, drawn step by step. Arrays are at pixels, except `points` (lattice)."""

    world: World
    domain: PhantomDomain
    depth: float
    """Nanometres."""

    def __post_init__(self) -> None:
        world = self.world
        self.points = world.points(self.depth)
        self.ruffle, self.folds, self.patches = (
            noise.at(self.depth) for noise in (world.ruffle, world.folds, world.patches)
        )
        self.cell, border = draw_cells(world, self.points)
        self.border = border + 2.5 * self.ruffle
        deviation = world.greys[self.cell].astype(np.float32)
        self.grey = self.domain.cytoplasm + self.domain.cytoplasm_spread * deviation
        self.inside = np.zeros(self.grey.shape, np.uint16)
        """Number of the mitochondrion at each pixel."""

    def darken(self, darkness: np.ndarray, part: tuple[slice, slice] = (slice(None), slice(None))) -> None:
        """Move grey values towards that of membranes; 0 leaves them, 1 replaces them."""
        self.grey[part] += darkness * (self.domain.membrane - self.grey[part])

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Grey values before the microscope, and the numbers of the mitochondria."""
        self.darken(0.7 * np.exp(-((self.folds / 0.055) ** 2)) * (self.patches > 0.45) * (self.border > 20))
        self.draw_vesicles()
        for number, body in enumerate(self.world.bodies, 1):
            self.draw_body(body, number)
        self.draw_densities()
        self.darken(np.exp(-((self.border / self.domain.membrane_width) ** 2)))
        return self.grey, self.inside

    def box(self, centre: np.ndarray, reach: float) -> tuple[tuple[slice, slice], np.ndarray]:
        """Pixels around a centre, and their distance to it in nanometres."""
        frame = self.world.frame
        first = np.ceil((centre[1:3] - reach) / frame.pixel).astype(int).clip(0)
        last = np.floor((centre[1:3] + reach) / frame.pixel).astype(int).clip(-1)
        part = (slice(first[0], last[0] + 1), slice(first[1], last[1] + 1))
        rows, columns = frame.rows[part[0], None] - centre[1], frame.columns[None, part[1]] - centre[2]
        return part, np.sqrt(rows**2 + columns**2 + (self.depth - centre[0]) ** 2).astype(np.float32)

    def draw_vesicles(self) -> None:
        """Rings 40 nm wide, bright inside."""
        for vesicle in self.world.vesicles[abs(self.world.vesicles[:, 0] - self.depth) < 24]:
            part, distance = self.box(vesicle, 32)
            own = (self.cell[part] == vesicle[3]) & (self.border[part] > 12)
            self.grey[part] += own * (distance < 17) * 0.3 * (1 - self.grey[part])
            self.darken(0.85 * own * np.exp(-(((distance - 19) / 5) ** 2)), part)

    def draw_densities(self) -> None:
        """Dark bands along the border beside vesicles: thin on their side, thick on the other."""
        for density in self.world.densities[abs(self.world.densities[:, 0] - self.depth) < 130]:
            part, distance = self.box(density, 130)
            width = np.where(self.cell[part] == density[3], 10, 24)
            self.darken(0.9 * np.exp(-((self.border[part] / width) ** 2)) * (distance < 130), part)

    def draw_body(self, body: Body, number: int) -> None:
        """Draw a mitochondrion or a dark body, clear of the cell's membrane."""
        frame, reach = self.world.frame, body.radius + LATTICE
        low, high = body.curve.min(0) - reach, body.curve.max(0) + reach
        if not low[0] - 150 < self.depth < high[0] + 150:
            return
        window = frame.window(within(self.points, low, high))
        if window is None:
            return
        distance, nearest = distance_to(body.curve, self.points[window])
        if distance.min() > reach:
            return
        part = frame.pixels(window)
        depth_in = body.radius - frame.interpolate(distance, window) - 7 * self.ruffle[part]
        depth_in = np.where(self.cell[part] == body.cell, np.minimum(depth_in, self.border[part] - 16), -1)
        if body.is_mitochondrion:
            offset = self.points[window] - body.curve[nearest]
            phase = frame.interpolate(body.stripes(offset, nearest), window)
            look = self.mitochondrion_look(part, depth_in, phase)
            self.inside[part][depth_in > 0] = number
        else:
            look = self.domain.membrane + 0.12 + 0.04 * self.ruffle[part]
        self.grey[part] = np.where(depth_in > 0, look, self.grey[part])

    def mitochondrion_look(
        self, part: tuple[slice, slice], depth_in: np.ndarray, phase: np.ndarray
    ) -> np.ndarray:
        """Grey values by the depth below the surface and the place along the cristae, both in nanometres.

        surface | outer membrane | gap | inner membrane | matrix, crossed by cristae
              0          5          13         21         from 22
        """
        domain = self.domain
        phase = phase + 7 * self.ruffle[part] + 16 * self.patches[part]
        crista = np.clip(2.2 * np.cos(2 * np.pi * phase / domain.crista_spacing) - 0.6, 0, 1)
        crista *= np.clip((depth_in - 22) / 8, 0, 1) * np.clip(1.2 + self.folds[part], 0, 1)
        look = domain.matrix + crista * (domain.crista - domain.matrix)
        look += 0.5 * np.exp(-(((depth_in - 13) / 4) ** 2)) * (domain.cytoplasm - look)
        shells = np.exp(-(((depth_in - 5) / 6) ** 2)) + 0.75 * np.exp(-(((depth_in - 21) / 6) ** 2))
        return look + shells.clip(0, 1) * (domain.membrane - look)


class Microscope:
    """Adds texture, blur, uneven light, noise and contrast, section by section."""

    def __init__(self, domain: PhantomDomain, frame: Frame, rng: np.random.Generator) -> None:
        self.domain, self.frame, self.rng = domain, frame, rng
        self.light = SmoothNoise(rng, frame, 1500.0, at_pixels=True)
        self.texture = self.grain(domain.texture_size)
        self.depth = 0.0

    def grain(self, size: float) -> np.ndarray:
        """White noise blurred by `size` nanometres (a standard deviation), scaled to standard deviation 1."""
        white = self.rng.standard_normal(self.frame.shape[1:], dtype=np.float32)
        sigma = size / self.frame.pixel
        blurred: np.ndarray = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=3)
        # A NumPy float, so that the grain is float64 unless it is as fine as a pixel.
        grain: np.ndarray = blurred * max(1.0, 2 * np.sqrt(np.pi) * sigma)
        return grain

    def show(self, grey: np.ndarray) -> np.ndarray:
        """Return the next section as the microscope shows it, uint8."""
        domain = self.domain
        kept = np.exp(-domain.voxel_size[0] / (2 * domain.texture_size))
        grey = grey + domain.texture * grey * self.texture
        self.texture = kept * self.texture + np.sqrt(1 - kept**2) * self.grain(domain.texture_size)
        grey = ndimage.gaussian_filter(grey.astype(np.float32), domain.blur / self.frame.pixel, truncate=3)
        grey += domain.noise * np.sqrt(grey.clip(0.05)) * self.grain(0.45 * self.frame.pixel)
        grey += domain.illumination * self.light.at(self.depth) + domain.flicker * self.rng.standard_normal()
        if domain.curtains:
            streaks = self.rng.standard_normal(grey.shape[1], dtype=np.float32)
            grey += domain.curtains * ndimage.gaussian_filter1d(streaks, 1.0, mode="wrap") * 1.9
        self.depth += domain.voxel_size[0]
        shown = 0.5 + domain.contrast * (grey - 0.5) + domain.brightness
        return np.round(255 * shown.clip(0, 1)).astype(np.uint8)
