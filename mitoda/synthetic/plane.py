"""One plane through a world: grey values before the microscope, and where mitochondria are."""

from dataclasses import dataclass

import numpy as np

from mitoda.synthetic.frame import LATTICE
from mitoda.synthetic.preset import PhantomDomain
from mitoda.synthetic.world import Body, World, distance_to, draw_cells, within


@dataclass
class Plane:
    """One plane through the world, and what is drawn of it so far; all at pixels but `points`."""

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
        self.grey = self.domain.cytoplasm + self.domain.cytoplasm_spread * world.greys[self.cell].astype(
            np.float32
        )
        self.inside = np.zeros(self.grey.shape, bool)

    def darken(self, darkness: np.ndarray, part: tuple[slice, slice] = (slice(None), slice(None))) -> None:
        """Move grey values towards that of membranes; 0 leaves them, 1 replaces them."""
        self.grey[part] += darkness * (self.domain.membrane - self.grey[part])

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Grey values before the microscope, and where mitochondria are."""
        self.darken(0.7 * np.exp(-((self.folds / 0.055) ** 2)) * (self.patches > 0.45) * (self.border > 20))
        self.draw_vesicles()
        for body in self.world.bodies:
            self.draw_body(body)
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
        """Rings 40 nm wide, bright inside, in the cell that they belong to."""
        for vesicle in self.world.vesicles[abs(self.world.vesicles[:, 0] - self.depth) < 24]:
            part, distance = self.box(vesicle, 32)
            own = (self.cell[part] == vesicle[3]) & (self.border[part] > 12)
            self.grey[part] += own * (distance < 17) * 0.3 * (1 - self.grey[part])
            self.darken(0.85 * own * np.exp(-(((distance - 19) / 5) ** 2)), part)

    def draw_densities(self) -> None:
        """Dark fuzz along the border beside a cluster of vesicles: thin on their side, thick on the other."""
        for density in self.world.densities[abs(self.world.densities[:, 0] - self.depth) < 130]:
            part, distance = self.box(density, 130)
            width = np.where(self.cell[part] == density[3], 10, 24)
            self.darken(0.9 * np.exp(-((self.border[part] / width) ** 2)) * (distance < 130), part)

    def draw_body(self, body: Body) -> None:
        """Draw a mitochondrion or a dark body. Its border is ruffled, and keeps clear of the cell's."""
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
            self.inside[part] |= depth_in > 0
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
