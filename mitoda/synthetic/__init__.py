"""Drawn volumes that look like electron microscopy, with exact labels: for the demo, and for tests.

A world of neurites, mitochondria, vesicles, synapses and dark bodies is laid out in nanometres and then cut
at the spacing of the sections, so that neighbouring sections show the same objects, as in a real stack. All
coordinates are (section, row, column) nanometres from the centre of the first voxel.

    neurites     random curves that keep their distance; a cell is what lies nearest to its curve (a weighted
                 Voronoi diagram), its membrane where the two nearest curves are equally far
    mitochondria capsules along the curves: two membranes, matrix, cristae; kept clear of the cell membrane
    distractors  vesicle clusters with a post-synaptic density, dark bodies without cristae, reticulum
"""

from mitoda.synthetic.preset import SOURCE, TARGET, PhantomDomain
from mitoda.synthetic.volume import draw_phantom

__all__ = ["SOURCE", "TARGET", "PhantomDomain", "draw_phantom"]
