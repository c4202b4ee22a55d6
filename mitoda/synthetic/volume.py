"""A phantom as a volume: planes through a world, seen through a microscope."""

import numpy as np

from mitoda.errors import InputError
from mitoda.synthetic.frame import Frame
from mitoda.synthetic.microscope import Microscope
from mitoda.synthetic.mitochondria import place_mitochondria
from mitoda.synthetic.neurites import lay_out_world
from mitoda.synthetic.plane import Plane
from mitoda.synthetic.preset import PhantomDomain


def draw_phantom(
    domain: PhantomDomain, shape: tuple[int, int, int], seed: int, mitochondria: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a volume and its exact label.

    Parameters
    ----------
    domain : PhantomDomain
        `SOURCE`, `TARGET`, or one of your own.
    shape : (int, int, int)
        Sections, rows, columns. Below half a micrometre (100 pixels) hardly one mitochondrion fits in.
    seed : int
        The same seed draws the same volume.
    mitochondria : bool
        False draws the same world, and the same noise, without any.

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
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(
            f"the shape of a phantom is {shape}; expected (sections, rows, columns), each 1 or more"
        )
    world_seed, mitochondria_seed, microscope_seed = np.random.SeedSequence(seed).spawn(3)
    frame = Frame(shape, domain.voxel_size)
    world = lay_out_world(domain, frame, np.random.default_rng(world_seed))
    if mitochondria:
        world.bodies += place_mitochondria(world, domain, np.random.default_rng(mitochondria_seed))
    microscope = Microscope(domain, frame, np.random.default_rng(microscope_seed))
    image, label = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    offsets = (np.arange(domain.planes) - (domain.planes - 1) / 2) / domain.planes * domain.voxel_size[0]
    for section in range(shape[0]):
        depth = section * domain.voxel_size[0]
        drawn = [Plane(world, domain, depth + offset).draw() for offset in offsets]
        inside = drawn[domain.planes // 2][1] if domain.planes % 2 else Plane(world, domain, depth).draw()[1]
        image[section] = microscope.show(np.mean([grey for grey, _ in drawn], axis=0))
        label[section] = np.where(inside, np.uint8(255), np.uint8(0))
    return image, label
