"""Tables of answers to a spot check, made up for tests."""

from dataclasses import replace

from mitoda.evaluation.answers import Answer

OBJECT = Answer("a.tif", "object 1", "small", 40, 20, 0.5, 0.01, 0, 0, 0, 3, 30, 40, "good", "")
BOX = replace(
    OBJECT, number="box 1", size_class="box", total=100, drawn=20, probability=0.2, answer="searched"
)


def make_answers(
    classes: list[tuple[str, int, list[str]]], total_boxes: int, counts: list[int | None]
) -> list[Answer]:
    """A table from each class's name, objects found and answers, and the counts of boxes (None: not searched)."""
    rows = []
    for index, (name, found, given) in enumerate(classes):
        design = {"total": found, "drawn": len(given), "probability": len(given) / found}
        rows += [
            replace(OBJECT, number=f"object {name} {k}", size_class=name, answer=one, volume_um3=index + 1, **design)
            for k, one in enumerate(given)
        ]  # fmt: skip
    design = {"total": total_boxes, "drawn": len(counts), "probability": len(counts) / total_boxes}
    rows += [
        replace(BOX, number=f"box {k}", answer="" if one is None else "searched",
                missed=" ".join(["1:2:3"] * (one or 0)), **design)
        for k, one in enumerate(counts)
    ]  # fmt: skip
    return rows
