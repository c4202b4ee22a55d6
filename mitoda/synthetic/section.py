"""One section of a piece of tissue: what lies at each pixel, and its grey value."""

import numpy as np
from scipy import ndimage

from mitoda.synthetic.curves import Nearest
from mitoda.synthetic.lattice import Frame
from mitoda.synthetic.look import Look
from mitoda.synthetic.preset import PhantomDomain
from mitoda.synthetic.render import Microscope
from mitoda.synthetic.tissue import Piece, lay_out_piece

FAR = np.float32(-1e4)
"""Depth where no structure is near, in nanometres."""
ROUNDING = 12.0
"""Standard deviation, in nanometres, of the blur that rounds the corners of mitochondria."""


def draw_piece(
    seed: int, side: int, sections: int, voxel_size: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a piece of tissue and its exact mitochondria labels.

    Parameters
    ----------
    seed : int
        The same seed draws the same piece.
    side : int
        Rows and columns.
    sections : int
    voxel_size : (float, float, float)
        Nanometres: (section, row, column); pixels are square. A coarser microscope is drawn with more blur.

    Returns
    -------
    image : ndarray of uint8, shape (sections, side, side)
    label : ndarray of uint8, shape (sections, side, side)
        1 inside the outer membrane of a mitochondrion, 0 elsewhere.

    Examples
    --------
    >>> image, label = draw_piece(3, side=96, sections=2, voxel_size=(50.0, 5.0, 5.0))
    >>> image.shape, label.dtype, set(label.flat) <= {0, 1}
    ((2, 96, 96), dtype('uint8'), True)
    """
    rng = np.random.default_rng(seed)
    frame = Frame((sections, side, side), voxel_size)
    piece = lay_out_piece(rng, frame)
    drawn = [Section(piece, number * voxel_size[0], rng) for number in range(sections)]
    _drop_slivers(piece, drawn)
    microscope = Microscope(_draw_microscope(rng, voxel_size), frame, rng)
    image = np.stack([microscope.show(section.draw()) for section in drawn])
    return image, np.stack([section.depth_in > 0 for section in drawn]).astype(np.uint8)


def _draw_microscope(rng: np.random.Generator, voxel_size: tuple[float, float, float]) -> PhantomDomain:
    """How images are taken: blur of 1.5 to 11 nm, noise, contrast, uneven light."""
    u = rng.uniform
    return PhantomDomain(
        voxel_size,
        texture=u(0, 0.08) if rng.random() < 0.5 else 0.0,
        texture_size=u(3, 15),
        blur=float(np.exp(u(np.log(1.5), np.log(11)))),
        noise=float(np.exp(u(np.log(0.01), np.log(0.13)))),
        contrast=u(0.4, 1.1),
        illumination=u(0, 0.1),
        flicker=u(0, 0.05),
        curtains=u(0, 0.05) if rng.random() < 0.3 else 0.0,
    )


def _drop_slivers(piece: Piece, sections: list["Section"]) -> None:
    """Remove mitochondria that have no room: no cut through them is a third of their radius deep."""
    radii = piece.mitochondria.radii
    if piece.mitochondria.curves is None:
        return
    deepest = np.zeros(len(radii))
    for section in sections:
        inside = section.depth_in > 0
        np.maximum.at(deepest, section.mitochondrion[inside], section.depth_in[inside])
    keep = deepest > 0.33 * radii
    for section in sections:
        section.depth_in = np.where(keep[section.mitochondrion], section.depth_in, FAR)


class Section:
    """A plane through a piece of tissue. Arrays are (rows, columns), lengths nanometres.

    Parameters
    ----------
    piece : Piece
    depth : float
    rng : Generator
        Of textures as fine as a pixel, which differ from section to section.
    """

    def __init__(self, piece: Piece, depth: float, rng: np.random.Generator) -> None:
        self.piece, self.look, self.depth, self.rng = piece, piece.look, depth, rng
        frame = piece.frame
        self.noise = {name: one.at(depth) for name, one in piece.noise.items()}
        rows, columns = np.meshgrid(frame.rows, frame.columns, indexing="ij")
        places = np.stack([np.full_like(rows, depth), rows, columns], axis=-1)
        warp = np.stack([self.noise[f"warp{axis}"] for axis in range(3)], axis=-1)
        self.places = (places + self.look.warp * warp).astype(np.float32)
        self.shape = self.places.shape[:2]
        self.cell = piece.cells.nearest(self.places)
        self.border = self.cell.border + 2.5 * self.noise["ruffle"]
        self.fibre, self.fibre_depth = self._find_fibres()
        self.soma, self.nuclear = self._find_nucleus()
        self.in_soma = self.soma > 0
        self.mitochondrion, self.depth_in, self.along, self.across = self._find_mitochondria()
        self.grey = np.zeros(self.shape, np.float32)

    def _find_fibres(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of the fibre at each pixel, −1 for none, and depth below its surface."""
        number, depth = np.full(self.shape, -1), np.full(self.shape, FAR)
        for index, fibre in enumerate(self.piece.fibres):
            radius = fibre.radius * (1 + 0.15 * self.noise["patch"])
            own = radius - fibre.curve.nearest(self.places).distance
            number = np.where(own > np.maximum(depth, 0), index, number)
            depth = np.maximum(depth, own)
        return number, depth

    def _find_nucleus(self) -> tuple[np.ndarray, np.ndarray]:
        """Depth below the surface of the cell body, and of the nucleus."""
        nucleus = self.piece.nucleus
        if nucleus is None:
            return np.full(self.shape, FAR), np.full(self.shape, FAR)
        distance = np.linalg.norm((self.places - nucleus.centre) / nucleus.radii, axis=-1)
        depth = (1 - distance) * nucleus.radii.min() + 90 * self.noise["patch"]
        return depth + nucleus.shell + 150 * self.noise["patch2"], depth

    def _find_mitochondria(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Number of the nearest mitochondrion, depth below its surface, place along it and across it."""
        piece, every = self.piece, self.piece.mitochondria
        if every.curves is None:
            return (
                np.zeros(self.shape, int),
                np.full(self.shape, FAR),
                np.zeros(self.shape),
                np.zeros(self.shape),
            )
        near: Nearest = every.curves.nearest(self.places)
        depth = every.radii[near.owner] * (1 + 0.12 * self.noise["bend"]) - near.distance
        depth = np.minimum(depth, near.border - every.gap / 2)
        host, in_fibre = every.hosts[near.owner], self.fibre >= 0
        myelin = np.array([fibre.myelin for fibre in piece.fibres] + [0.0])[self.fibre]
        room = np.where(self.in_soma, np.minimum(self.soma, -self.nuclear - 40), self.border)
        room = np.where(in_fibre, self.fibre_depth - myelin, room)
        fits = np.where(host < 0, self.fibre == -1 - host, ~in_fibre)
        fits &= (host < 0) | self.in_soma | (self.cell.owner == host)
        if self.look.resin_outside:
            fits &= self.in_soma
        depth = np.where(fits, np.minimum(depth, room - 14), FAR).clip(-60).astype(np.float32)
        rounded = ndimage.gaussian_filter(depth, ROUNDING / piece.frame.pixel, truncate=3)
        return near.owner, rounded, near.along, near.across

    def draw(self) -> np.ndarray:
        """Return grey values before the microscope, float32."""
        greys = np.where(self.in_soma | (self.fibre >= 0), 0.0, self.piece.greys[self.cell.owner])
        self.grey = (self.look.cytoplasm + self.look.cytoplasm_spread * greys).astype(np.float32)
        self._draw_granules()
        if self.look.filaments:
            self._draw_filaments()
        self._draw_reticulum()
        self._draw_vesicles()
        self._draw_blobs()
        self._draw_membranes()
        self._draw_fibres()
        if self.piece.nucleus is not None:
            self._draw_nucleus()
            self._draw_resin()
        self._draw_mitochondria()
        return self.grey

    def blend(self, share: np.ndarray, grey: float | np.ndarray) -> None:
        """Move grey values towards others; a share of 0 leaves them, 1 replaces them."""
        self.grey += (share * (grey - self.grey)).astype(np.float32)

    def grain(self, sigma: float, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """White noise blurred by σ pixels, standard deviation 1."""
        white = self.rng.standard_normal(shape or self.shape, dtype=np.float32)
        blurred = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=3)
        return np.asarray(blurred * np.float32(max(1.0, 2 * np.sqrt(np.pi) * sigma)))

    def _draw_granules(self) -> None:
        texture = self.grain(self.look.granule_size / self.piece.frame.pixel)
        self.grey += self.look.granule * (0.42 + 0.28 * np.tanh(self.noise["patch"])) * texture
        spots = self.grain(11 / self.piece.frame.pixel)
        self.blend(0.8 * (spots > 1.1) * (self.noise["patch2"] > self.look.glycogen_from), self.look.membrane)

    def _draw_filaments(self) -> None:
        """Sarcomeres: a band every 1.9 µm along the filaments, and filaments every 40 nm across."""
        axis = self.piece.direction
        side = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [0.0, 1.0, 0.0])
        side /= np.linalg.norm(side)
        along, first, second = (self.places @ one for one in (axis, side, np.cross(axis, side)))
        along = along + 40 * self.noise["patch"]
        self.grey += 0.1 * self.look.filaments * np.tanh(4 * np.cos(2 * np.pi * along / 1900))
        to_line = np.mod(along + 950, 1900) - 950
        self.blend(0.7 * np.exp(-((to_line / 45) ** 2)), self.look.membrane)
        lattice = np.cos(2 * np.pi * first / 38) * np.cos(2 * np.pi * second / 41)
        self.grey += 0.13 * self.look.filaments * (lattice + 0.6 * np.cos(2 * np.pi * first / 33))

    def _draw_reticulum(self) -> None:
        """Sheets of reticulum, two membranes around a lumen, and stacks of parallel membranes."""
        look, inside = self.look, (self.border > 25) | self.in_soma
        sheets = (self.noise["patch"] > look.reticulum_from) & inside
        distance = 70 * abs(self.noise["fold"])
        self.blend(0.8 * sheets * np.exp(-(((distance - 11) / 6) ** 2)), look.membrane)
        self.blend(0.8 * sheets * (distance < 8), look.lumen)
        stacks = (self.noise["patch2"] > look.stacks_from) & inside
        phase = 0.8 * self.places[..., 1] + 0.6 * self.places[..., 2] + 160 * self.noise["patch"]
        wave = np.cos(2 * np.pi * phase / look.stack_period)
        broken = np.clip(0.7 + self.noise["fold"], 0, 1)
        self.blend(0.75 * stacks * broken * np.clip(2.5 * wave - 1.2, 0, 1), look.membrane)

    def _box(self, centre: np.ndarray, reach: float) -> tuple[slice, slice]:
        """Pixels around a centre."""
        frame: Frame = self.piece.frame
        first = np.ceil((centre[1:] - reach) / frame.pixel).astype(int).clip(0)
        last = np.floor((centre[1:] + reach) / frame.pixel).astype(int).clip(-1)
        return slice(first[0], last[0] + 1), slice(first[1], last[1] + 1)

    def _draw_vesicles(self) -> None:
        """Rings 40 nm wide, pale inside."""
        frame = self.piece.frame
        for vesicle in self.piece.vesicles[abs(self.piece.vesicles[:, 0] - self.depth) < 20]:
            part = self._box(vesicle, 34)
            rows, columns = frame.rows[part[0], None] - vesicle[1], frame.columns[None, part[1]] - vesicle[2]
            distance = np.sqrt(rows**2 + columns**2)
            own = (self.border[part] > 12) | self.in_soma[part]
            grey = self.grey[part]
            grey += own * (distance < 17) * 0.5 * (self.look.lumen - grey)
            grey += 0.8 * own * np.exp(-(((distance - 19) / 5) ** 2)) * (self.look.membrane - grey)

    def _draw_blobs(self) -> None:
        for blob in self.piece.blobs:
            part = self._box(blob.centre, float(blob.radii.max() * 1.4))
            distance = np.linalg.norm((self.places[part] - blob.centre) / blob.radii, axis=-1)
            if distance.size == 0:
                continue
            depth = (1 - distance) * blob.radii.min() + 12 * self.noise["bend"][part]
            inside = (depth > 0) & ((self.border[part] > 10) | self.in_soma[part])
            mottled = 0.6 * self.noise["ruffle"][part] + 0.8 * self.grain(3, depth.shape)
            grey = self.grey[part]
            grey += np.clip(depth / 8, 0, 1) * inside * (blob.grey + blob.mottled * mottled - grey)
            rim = blob.rim * np.exp(-((depth / 8) ** 2)) * (self.border[part] > 4)
            grey += rim * (self.look.membrane - grey)

    def _draw_membranes(self) -> None:
        look = self.look
        outside = ~self.in_soma & (self.fibre < 0)
        edge = np.exp(-((self.border / look.membrane_width) ** 2)) * outside
        edge = np.maximum(edge, np.exp(-((self.soma / look.membrane_width) ** 2)))
        self.blend(look.membrane_visibility * edge, look.membrane)

    def _draw_fibres(self) -> None:
        """Axoplasm, and around it myelin, here and there split."""
        look, depth = self.look, self.fibre_depth + 5 * self.noise["ruffle"]
        for index, fibre in enumerate(self.piece.fibres):
            own = self.fibre == index
            self.blend(0.5 * own * (depth > fibre.myelin), min(1.0, look.cytoplasm + 0.08))
            sheath = own & (depth < fibre.myelin)
            lamellae = 0.5 + 0.5 * np.cos(2 * np.pi * depth / 16)
            self.blend(sheath * (0.8 + 0.2 * lamellae), look.myelin)
            self.blend(0.7 * lamellae * (sheath & (self.noise["fold"] > 1.6)), look.lumen)
            self.blend(0.8 * own * np.exp(-(((depth - fibre.myelin - 12) / 7) ** 2)), look.membrane)

    def _draw_nucleus(self) -> None:
        """Two membranes, and inside of them chromatin, dense along the envelope and in patches."""
        look, depth = self.look, self.nuclear
        inside = depth > 0
        self.grey = np.where(inside, np.float32(look.nucleus), self.grey)
        dense = self.noise["chromatin"] + 0.5 * self.grain(5.0) + 1.2 * np.exp(-depth.clip(0) / 120)
        self.blend(0.85 * inside * (dense > 1.1 + look.chromatin_from), look.chromatin)
        self.grey += inside * 0.06 * self.grain(2.0)
        for surface in (0.0, -34.0):
            self.blend(0.9 * np.exp(-(((depth - surface) / 7) ** 2)), look.membrane)
        self.blend(0.7 * np.exp(-(((depth + 17) / 8) ** 2)), look.lumen)

    def _draw_resin(self) -> None:
        """Resin around a cell, with processes of other cells in it."""
        if not self.look.resin_outside:
            return
        empty = ~self.in_soma & ~(self.piece.shown[self.cell.owner] & (self.cell.distance < 160))
        self.blend(empty * np.clip(-self.soma / 12, 0, 1), self.look.resin)

    def _draw_mitochondria(self) -> None:
        """Two membranes, matrix and cristae.

        surface | outer membrane | gap | inner membrane | matrix, crossed by cristae
              0          5          13         21         from 22
        """
        look, depth = self.look, self.depth_in
        deviation = np.random.default_rng(7).standard_normal(max(1, len(self.piece.mitochondria.radii)))
        matrix = look.matrix + 0.025 * deviation[self.mitochondrion]
        share = np.clip(
            3 * (self.noise["fold"] + 0.4 * self.noise["bend"] + 2.4 * (look.crista_share - 0.5)), 0, 1
        )
        crista = np.clip(2.2 * self._crista_wave(look) - 0.7, 0, 1) * np.clip((depth - 20) / 8, 0, 1) * share
        grey = matrix + crista * (look.crista - matrix) + 0.025 * self.grain(1.6)
        grey += look.envelope * 0.5 * np.exp(-(((depth - 13) / 4) ** 2)) * (look.lumen - grey)
        shells = np.exp(-(((depth - 5) / 6) ** 2)) + 0.75 * np.exp(-(((depth - 21) / 6) ** 2))
        grey += look.envelope * shells.clip(0, 1) * (look.membrane - grey)
        self.blend((depth > 0) * np.clip((depth + 2) / 4, 0, 1), grey)

    def _crista_wave(self, look: Look) -> np.ndarray:
        """1 in the middle of a crista, −1 half way between two."""
        wobble = 14 * self.noise["bend"] + 6 * self.noise["ruffle"]
        phase = {
            "across": self.along + wobble,
            "along": self.across + wobble,
            "tilted": 0.7 * self.along + 0.7 * self.across + wobble,
            "tubular": self.along + wobble,
            "bent": self.along + 4 * wobble,
        }[look.crista_kind] + 31 * self.mitochondrion
        wave: np.ndarray = np.cos(2 * np.pi * phase / look.crista_spacing)
        if look.crista_kind == "tubular":
            wave = 0.3 + wave * np.cos(2 * np.pi * (self.across + wobble) / look.crista_spacing)
        return wave
