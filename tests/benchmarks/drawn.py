"""How well do weights find mitochondria in drawn tissue? F1 by kind of tissue, on pieces that nothing was trained on.

python -m tests.benchmarks.drawn --first 1000 --count 40 general other.safetensors

All pixels of a kind together, at a probability of 0.4. A source `drawn:900` has the pieces 0 to 899. A piece that does
not exist is drawn, in a second or two, and kept in the cache.
"""

from collections import Counter

import numpy as np

from mitoda.inference.streaming import predict
from mitoda.models.model import load_model
from mitoda.synthetic.drawn import DRAWN, VOXEL_SIZE, open_drawn
from mitoda.synthetic.tissue import KINDS
from mitoda.volumes import ArrayVolume
from tests.benchmarks.measuring import describe_machine, parser

LEVEL = 0.4
SPACING = 45.0
"""Nanometres from one section of a piece to the other: the middle of what is drawn."""


def kind_of(piece: int) -> str:
    """Kind of a piece, the first thing that is drawn of it."""
    shares = [kind.share for kind in KINDS.values()]
    return str(np.random.default_rng(piece).choice(list(KINDS), p=shares))


def main() -> None:
    """Print the table."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("weights", nargs="+", help="names or files")
    options.add_argument("--first", type=int, default=1000, help="number of the first piece")
    options.add_argument("--count", type=int, default=40, help="number of pieces")
    given = options.parse_args()
    pieces = range(given.first, given.first + given.count)
    images, labels = open_drawn(f"{DRAWN}:{pieces.stop}")
    print(describe_machine(given.device))
    for weights in given.weights:
        model = load_model(weights, given.device)
        common: Counter[str] = Counter()
        both: Counter[str] = Counter()
        for piece in pieces:
            stack, label = (
                np.stack([one.read(2 * piece), one.read(2 * piece + 1)]) for one in (images, labels)
            )
            found = np.stack(list(predict(ArrayVolume(stack, (SPACING, *VOXEL_SIZE[1:])), model))) >= LEVEL
            kind = kind_of(piece)
            common[kind] += 2 * int(np.count_nonzero(found & (label > 0)))
            both[kind] += int(np.count_nonzero(found)) + int(np.count_nonzero(label))
        scores = {kind: common[kind] / both[kind] for kind in sorted(both)}
        print(f"{weights}: mean {np.mean(list(scores.values())):.3f}", flush=True)
        for kind, score in scores.items():
            print(f"  {kind:10} {score:.3f}")


if __name__ == "__main__":
    main()
