"""Scores that the paper reports, in per cent: average precision, F1, MCC and IoU; None where a cell is empty.

Source: the comparison table and the ablation of Huang W. et al., Domain Adaptive Mitochondria Segmentation via
Enforcing Inter-Section Consistency (DA-ISC), MICCAI 2022, doi:10.1007/978-3-031-16440-8_9, as shown on the
authors' slides. What may be compared depends on where the rows come from:

* The rows of Oracle, NoAdapt and UALR on MitoEM are, to the third digit, those of UALR's own repository: another
  network (0.567 M parameters) and one figure over all pixels of the volume. DA-ISC's rows are means over sections.
* The Lucchi rows with F1 and IoU alone are quoted from the DAMT-Net paper: a 2-D U-Net with test-time augmentation
  and morphology. The paper's own network without adaptation, ablation (i), has 68.0 F1 on Subset1 where the NoAdapt
  row says 57.3.
* DA-ISC's published checkpoints were chosen by hand after a validation on the labelled test half every 500
  iterations; the last one of the logs is about 4 points lower on Subset1 (Dice 0.773).
"""

Cell = tuple[float | None, float | None, float | None, float | None]
"""Average precision, F1, MCC, IoU in per cent."""

PAPER_ORDER = (
    "oracle", "source-only", "y-net", "dann", "adaptsegnet", "ualr", "damt-net", "da-vsn", "isc",
)  # fmt: skip
"""The methods in the paper's table, in its order, by the names of `--methods`."""

PUBLISHED: dict[str, dict[str, Cell]] = {
    "vnc3-lucchi-s1": {
        "oracle": (None, 92.7, None, 86.5),
        "source-only": (None, 57.3, None, 40.3),
        "y-net": (None, 68.2, None, 52.1),
        "dann": (None, 68.2, None, 51.9),
        "adaptsegnet": (None, 69.9, None, 54.0),
        "ualr": (80.2, 72.5, 71.2, 57.0),
        "damt-net": (None, 74.7, None, 60.0),
        "da-vsn": (82.8, 75.2, 73.9, 60.3),
        "isc": (89.5, 81.3, 80.5, 68.7),
        "isc-i": (76.0, 68.0, 66.7, 51.9),
        "isc-ii": (80.9, 72.5, 71.2, 57.1),
        "isc-iii": (81.1, 73.6, 72.4, 58.8),
        "isc-iv": (84.4, 74.5, 73.3, 59.6),
        "isc-v": (89.5, 81.3, 80.5, 68.7),
    },
    "vnc3-lucchi-s2": {
        "oracle": (None, 93.9, None, 88.6),
        "source-only": (None, 61.3, None, 44.3),
        "y-net": (None, 71.8, None, 56.4),
        "dann": (None, 74.9, None, 60.1),
        "adaptsegnet": (None, 79.0, None, 65.5),
        "ualr": (87.2, 78.8, 77.7, 65.2),
        "damt-net": (None, 81.3, None, 68.7),
        "da-vsn": (91.3, 83.1, 82.2, 71.1),
        "isc": (92.4, 85.2, 84.5, 74.3),
    },
    "mitoem-r-h": {
        "oracle": (97.0, 91.6, 91.2, 84.5),
        "source-only": (74.6, 56.8, 59.2, 39.6),
        "ualr": (90.7, 83.8, 83.2, 72.2),
        "damt-net": (92.1, 84.4, 83.7, 73.0),
        "da-vsn": (91.6, 83.3, 82.6, 71.4),
        "isc": (92.6, 85.6, 84.9, 74.8),
    },
    "mitoem-h-r": {
        "oracle": (98.2, 93.2, 92.9, 87.3),
        "source-only": (88.5, 76.5, 76.8, 61.9),
        "ualr": (92.6, 86.3, 85.5, 75.9),
        "damt-net": (94.8, 86.0, 85.7, 75.4),
        "da-vsn": (94.5, 86.7, 86.3, 76.5),
        "isc": (96.8, 88.5, 88.3, 79.4),
    },
}
"""By task, then by method. `isc-i` to `isc-v` are the ablation, which the paper gives for Subset1 only."""
