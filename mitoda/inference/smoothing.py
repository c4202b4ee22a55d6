"""Smoothing of a stream of sections along the stack: what holds in a section holds in its neighbours."""

import math
from collections import deque
from collections.abc import Iterable, Iterator

from torch import Tensor


def smoothing_reach(sigma: float) -> int:
    """Sections on either side that a Gaussian of `sigma` sections looks at; 0 where it would change next to nothing.

    Three standard deviations. Below σ = 0.2 the next section would count for less than 4e-6.
    """
    return math.ceil(3 * sigma) if sigma >= 0.2 else 0


def smooth_along_sections(maps: Iterable[Tensor], sigma: float, first: int, start: int) -> Iterator[Tensor]:
    """Smooth maps along the section axis by a Gaussian, as they come.

    At the ends of the stack the weights of the sections that are there are scaled to a sum of 1.

    Parameters
    ----------
    maps : iterable of Tensor
        Of sections `first`, `first` + 1, … to the last.
    sigma : float
        Standard deviation in sections.
    first : int
        Number of the first map: 0, or at most `start` less `smoothing_reach(sigma)`.
    start : int
        First section wanted.

    Yields
    ------
    Tensor
        Of sections `start`, `start` + 1, … to the last.
    """
    reach = smoothing_reach(sigma)
    if reach == 0:
        yield from (smoothed for number, smoothed in enumerate(maps, first) if number >= start)
        return
    weights = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(reach + 1)]
    window: deque[tuple[int, Tensor]] = deque(maxlen=2 * reach + 1)
    centre = start

    def smoothed_at(centre: int) -> Tensor:
        near = [
            (weights[abs(number - centre)], one) for number, one in window if abs(number - centre) <= reach
        ]
        total = sum(weight for weight, _ in near)
        result = near[0][1] * (near[0][0] / total)
        for weight, one in near[1:]:
            result = result.add(one, alpha=weight / total)
        return result

    number = first - 1
    for number, one in enumerate(maps, first):
        window.append((number, one))
        if number - reach >= start:
            yield smoothed_at(centre)
            centre += 1
    while centre <= number:
        yield smoothed_at(centre)
        centre += 1
