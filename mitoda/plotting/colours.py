"""The colours of all pictures."""

Colour = tuple[int, int, int]

PREDICTED: Colour = (255, 176, 0)
"""Contours of a prediction without a label."""
FOUND: Colour = (60, 200, 90)
"""Predicted and labelled."""
FALSE_ALARM: Colour = (255, 60, 60)
"""Predicted, not labelled."""
MISSED: Colour = (60, 150, 255)
"""Labelled, not predicted."""
LINES: tuple[Colour, ...] = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (100, 100,
    100), (0, 0, 0), (150, 100, 50),
)  # fmt: skip
"""Colours of curves: Okabe and Ito's, which the colour-blind tell apart (jfly.uni-koeln.de/color), and a brown."""
INK: Colour = (40, 40, 40)
FAINT: Colour = (110, 110, 110)
GRID: Colour = (225, 225, 225)
