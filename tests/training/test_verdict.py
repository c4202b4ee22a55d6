"""What is said of a result without labels."""

import numpy as np
import pytest
import torch

from mitoda.data.geometry import Geometry
from mitoda.data.pairs import LabelledPairs, UnlabelledPairs
from mitoda.models.weights import load_weights, save_weights
from mitoda.training.domains import Prepared
from mitoda.training.verdict import Look, Verdict, judge
from tests.fakes import compact_weights


def test_a_sentence_has_what_was_found_and_what_was_before():
    """From scratch there is no before; an agreement that does not exist is a dash."""
    now, before = Look(0.0631, 0.9234), Look(0.051, None)
    assert Verdict(now, None, 0.06).sentence == (
        "at 12 places of the target, without labels: foreground 6.31%; a section's two visits agree (Dice) 0.923"
    )
    assert "6.31%, 5.10% before; a section's two visits agree (Dice) 0.923, – before" in (
        Verdict(now, before, 0.06).sentence
    )
    assert list(Verdict(now, before, 0.06).table()) == ["now", "before"]


@pytest.mark.parametrize(
    ("share", "warning"),
    [
        (0.0, "the result is all but empty: 0.00% of 12 places"),
        (0.6, "60.00% of 12 places of the target is taken for mitochondrion, more than any tissue has"),
        (0.01, "1.00% of 12 places of the target is taken for mitochondrion, and 6.00% of the source"),
        (0.3, "30.00% of 12 places of the target is taken for mitochondrion, and 6.00% of the source"),
    ],
)
def test_empty_flooded_and_implausible_results_are_warned_of(share, warning):
    """One warning with the numbers and what to check."""
    (found,) = Verdict(Look(share, 0.9), None, 0.06).warnings
    assert found.startswith(warning)
    assert "check --voxel-size and --invert" in found


def test_a_plausible_result_has_no_warning():
    """Between a third and three times the source's share."""
    assert Verdict(Look(0.05, 0.9), None, 0.06).warnings == []


@pytest.mark.parametrize(("bias", "share"), [(-50.0, 0.0), (50.0, 1.0)])
def test_a_collapsed_network_is_told_by_looking_at_the_target(
    bias, share, source_phantom, target_phantom, tmp_path
):
    """Weights that find nothing, or everything: the share is that, and so is what they began from."""
    path = tmp_path / "collapsed.safetensors"
    info = compact_weights(path, pixel=(5.0, 5.0), spacing=50.0)
    network, _ = load_weights(path)
    with torch.no_grad():
        for head in network.heads:
            head[-1].bias += torch.tensor([0.0, bias])
    save_weights(path, network, info)
    (image, label), (target, _) = source_phantom, target_phantom
    prepared = Prepared(
        LabelledPairs(image, 1, labels=label),
        UnlabelledPairs(target, 3),
        Geometry((5.0, 5.0), 50.0),
        info,
        start=path,
    )
    verdict = judge(prepared, path, torch.device("cpu"))
    assert verdict.now.foreground == share
    assert verdict.before == verdict.now
    assert verdict.source_foreground == pytest.approx(np.mean(label.array != 0))
    assert len(verdict.warnings) == 1
