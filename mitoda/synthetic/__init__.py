"""Drawn volumes that imitate electron microscopy, with exact labels: for the demo, the benchmark and tests.

A scene is laid out in nanometres and cut at the spacing of the sections, so neighbouring sections show the
same objects. Coordinates are (section, row, column) nanometres from the centre of the first voxel.

    neurites     random curves; a cell is what lies nearest to its curve (a weighted Voronoi diagram)
    mitochondria capsules along the curves with two membranes, matrix and cristae, clear of the cell membrane
    distractors  vesicle clusters with a post-synaptic density, dark bodies without cristae, reticulum
"""

from mitoda.synthetic.preset import SOURCE, TARGET, PhantomDomain
from mitoda.synthetic.render import draw_instances, draw_phantom

__all__ = ["SOURCE", "TARGET", "PhantomDomain", "draw_instances", "draw_phantom"]
