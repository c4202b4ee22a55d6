"""Padding of every shape and value, banners, empty resin and hot pixels: found, and filled with mirrored tissue."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from mitoda.data.filled import FilledVolume, TissueMap, mirror
from mitoda.data.painted import open_painted
from mitoda.data.tissue import find_empty, find_hot_pixels, find_padding
from mitoda.volumes import ArrayVolume

SIDE = 192
PIXEL = (5.0, 5.0)
VOXEL = (5.0, *PIXEL)


def draw_tissue(seed=0, shape=(SIDE, SIDE)):
    """Grey values with membranes and the noise of a detector, uint8."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 6)
    membranes = np.abs(smooth) < 0.25 * smooth.std()
    grey = 140 + 15 * smooth / smooth.std() - 70 * ndimage.gaussian_filter(membranes.astype(float), 1)
    return (grey + rng.normal(0, 8, shape)).clip(1, 254).astype(np.uint8)


TISSUE = draw_tissue()
ROW, COLUMN = np.mgrid[:SIDE, :SIDE]
SHAPES = {
    "frame": (np.minimum(np.minimum(ROW, COLUMN), np.minimum(SIDE - 1 - ROW, SIDE - 1 - COLUMN)) < 14),
    "one side": COLUMN < 30,
    "wedge": COLUMN < 0.4 * ROW,
    "rotation": abs(ROW - 96) + abs(COLUMN - 96) > 130,
    "staggered": (COLUMN < 10 + 9 * (ROW // 24)),
}


def banner(ink, ground):
    """A strip under the image with text and a scale bar."""
    image = Image.new("L", (SIDE, 40), ground)
    draw = ImageDraw.Draw(image)
    draw.text((6, 6), "HV 5.00 kV  WD 4.1 mm", fill=ink)
    draw.rectangle((120, 28, 180, 33), fill=ink)
    return np.asarray(image)


@pytest.mark.parametrize("value", [0, 255, 90, int(TISSUE.mean())], ids=["0", "255", "grey", "mean"])
@pytest.mark.parametrize("shape", SHAPES)
def test_padding_of_every_shape_and_value_is_found(shape, value):
    """Hardly a pixel of padding is missed, and hardly one of tissue taken for it."""
    padding = SHAPES[shape]
    found = find_padding(np.where(padding, np.uint8(value), TISSUE), PIXEL)
    assert (padding & ~found).sum() <= 0.002 * padding.sum()
    assert (found & ~padding).sum() <= 0.01 * (~padding).sum()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("value", [0, 65535])
def test_padding_far_from_the_grey_values_is_found(dtype, value):
    """The range of the tissue decides what is flat, not the distance of the padding from it."""
    padding = SHAPES["frame"]
    section = np.where(padding, value, 2000 + 4 * TISSUE.astype(np.uint16)).astype(dtype)
    assert np.array_equal(find_padding(section, PIXEL), padding)


@pytest.mark.parametrize(("ink", "ground"), [(255, 0), (0, 255), (0, 128)])
def test_a_banner_is_found_with_its_text(ink, ground):
    """Letters and scale bars on a banner are no tissue."""
    found = find_padding(np.vstack([TISSUE, banner(ink, ground)]), PIXEL)
    assert found[SIDE:].all()
    assert (
        found[: SIDE - 8].sum() == 0
    )  # of the banner's own grey value, up to 8 rows may be taken for ringing


def test_padding_with_noise_is_found():
    """A frame whose grey values vary by one, as after lossy compression."""
    noise = np.random.default_rng(1).integers(99, 102, TISSUE.shape).astype(np.uint8)
    found = find_padding(np.where(SHAPES["frame"], noise, TISSUE), PIXEL)
    assert found[SHAPES["frame"]].mean() > 0.99


@pytest.mark.parametrize("section", [TISSUE, np.zeros((50, 50), np.uint8), TISSUE[:2, :2]])
def test_nothing_is_found_in_tissue_alone_or_without_tissue(section):
    """Tissue, a constant section, and one too small to have neighbourhoods."""
    assert find_padding(section, PIXEL) is None


def test_a_black_mitochondrion_is_tissue():
    """A saturated disc inside the section, and one cut by its border, are smaller than padding is."""
    section = TISSUE.copy()
    for centre in ((90, 90), (90, 0)):
        section[(ROW - centre[0]) ** 2 + (COLUMN - centre[1]) ** 2 < 12**2] = 0
    assert find_padding(section, PIXEL) is None


def test_a_mirrored_border_is_exact():
    """Behind a straight border the section continues as its mirror image, also further than the tissue is wide."""
    section = np.arange(12.0)[None].repeat(3, 0)
    filled = mirror(np.arange(12)[None].repeat(3, 0) >= 8).apply(section)
    assert filled[1, 5:].tolist() == [11, 10, 9, 8, 9, 10, 11]
    assert set(filled.ravel()) == {8, 9, 10, 11}


def test_large_sections_are_mirrored_on_cells_alike(monkeypatch):
    """Searching the nearest tissue on coarse cells changes nothing at straight borders."""
    known = COLUMN < 120
    exact = mirror(known).apply(TISSUE)
    monkeypatch.setattr("mitoda.data.filled.CELLS", SIDE * SIDE // 16)
    monkeypatch.setattr("mitoda.data.filled.AT_ONCE", 1000)
    assert np.array_equal(mirror(known).apply(TISSUE), exact)


def test_empty_resin_is_found_and_tissue_is_not():
    """Half a section of noise without structure, at the detector's noise."""
    tissue = draw_tissue(2, (500, 500))
    resin = np.arange(500)[None].repeat(500, 0) > 250
    noise = np.random.default_rng(3).normal(190, 8, tissue.shape).astype(np.uint8)
    found = find_empty(np.where(resin, noise, tissue), PIXEL)
    assert found[:, 290:].all()
    assert not found[:, :240].any()
    assert find_empty(tissue, PIXEL) is None


def test_hot_pixels_are_replaced_by_tissue_and_are_not_outside():
    """One pixel in a thousand at the type's maximum."""
    section = 2000 + 16 * TISSUE.astype(np.uint16)
    hot = np.random.default_rng(0).random(section.shape) < 1e-3
    spoilt = np.where(hot, np.uint16(65535), section)
    assert np.array_equal(find_hot_pixels(spoilt), hot)
    filled = FilledVolume(ArrayVolume(spoilt, VOXEL))
    assert filled.read(0).max() <= section.max()
    assert np.array_equal(filled.read(0)[~hot], section[~hot])
    assert filled.tissue.outside(0) is None
    assert filled.tissue.findings(0).hot == pytest.approx(hot.mean())


def test_labels_are_filled_as_their_images_are():
    """A label that copies the images still copies them after filling; windows are parts of the whole section."""
    padded = np.where(SHAPES["frame"], np.uint8(0), TISSUE)
    images = FilledVolume(ArrayVolume(padded, VOXEL))
    labels = FilledVolume(ArrayVolume(padded), images.tissue)
    whole = images.read(0)
    assert whole.min() > 0
    assert np.array_equal(labels.read(0), whole)
    window = (slice(5, 40), slice(150, 192))
    assert np.array_equal(images.read(0, *window), whole[window])
    assert np.array_equal(images.tissue.clear(0, np.ones_like(whole)) == 0, SHAPES["frame"])


def test_sections_of_tissue_are_read_as_they_are():
    """Nothing is copied or read twice where nothing is to be filled, and windows are read as windows."""
    volume = ArrayVolume(np.stack([TISSUE, TISSUE]), VOXEL)
    asked = []
    read = volume.read
    volume.read = lambda *place: asked.append(place) or read(*place)
    filled = FilledVolume(volume)
    window = (slice(3, 9), slice(0, 7))
    for _ in range(2):
        assert np.array_equal(filled.read(1, *window), TISSUE[window])
    assert asked == [(1,), (1, *window)]


def test_a_dropped_filling_is_found_again(monkeypatch):
    """With no memory for more than one filling, sections read in turn stay the same."""
    monkeypatch.setattr("mitoda.data.filled.KEPT_BYTES", 0)
    padded = np.where(SHAPES["frame"], np.uint8(0), np.stack([TISSUE, TISSUE[::-1]]))
    filled = FilledVolume(ArrayVolume(padded, VOXEL))
    first = [filled.read(k) for k in (0, 1)]
    assert all(np.array_equal(filled.read(k), one) for k, one in enumerate(first))


def test_constant_sections_are_reported():
    """A lost section is named by its value."""
    tissue = TissueMap(ArrayVolume(np.stack([TISSUE, np.full_like(TISSUE, 7)]), VOXEL))
    assert [tissue.findings(k).constant for k in (0, 1)] == [None, 7.0]
    assert tissue.filling(1) is None


def test_paint_on_padding_is_not_read():
    """Images have mirrored tissue in padding, so a label there would be wrong."""
    padded = FilledVolume(ArrayVolume(np.where(SHAPES["frame"], np.uint8(0), TISSUE), VOXEL))
    paint = np.ones((1, SIDE, SIDE), np.uint8)
    paint[0, 60:90, 60:90] = 2
    classes = open_painted(paint, padded).read(0)
    assert np.array_equal(classes == 0, SHAPES["frame"])


@pytest.mark.slow
def test_a_black_frame_costs_two_percent_of_lucchi_at_most(real_data):
    """F1 of the bundled weights inside a black frame over 17 % of 12 sections, against that without a frame."""
    import tifffile

    from mitoda.inference.segment import predict_masks
    from mitoda.models.model import load_model

    place = np.s_[:, 100:500, 300:700]
    images, labels = (
        tifffile.imread(real_data / "lucchi" / name, key=range(40, 52))[place]
        for name in ("training.tif", "training_groundtruth.tif")
    )
    model = load_model("general", "cpu")
    padded = np.pad(images, ((0, 0), (20, 20), (20, 20)))

    def f1(stack):
        masks = np.stack(list(predict_masks(ArrayVolume(stack, VOXEL), model)))
        margin = (stack.shape[1] - 400) // 2
        found, truth = masks[:, margin : margin + 400, margin : margin + 400], labels > 0
        assert found.sum() == masks.sum()
        return 2 * (found & truth).sum() / (found.sum() + truth.sum())

    assert f1(padded) >= f1(images) - 0.02


def test_a_lost_section_shows_the_nearest_one():
    """The network sees the nearest section with an image, if one is near; beyond the last one is no tissue."""
    lost = np.full_like(TISSUE, 7)
    stack = ArrayVolume(np.stack([TISSUE, lost, lost, TISSUE[::-1], lost]), (50.0, *VOXEL[1:]))
    filled = FilledVolume(stack)
    assert [filled.tissue.substitute(k) for k in range(5)] == [0, 0, 3, 3, 3]
    assert np.array_equal(filled.read(1), TISSUE)
    assert np.array_equal(filled.read(4, slice(3, 9), slice(0, 5)), TISSUE[::-1][3:9, :5])
    assert [filled.tissue.is_lost(k) for k in range(5)] == [False, True, True, False, False]
    assert filled.tissue.outside(2) is None
    assert filled.tissue.outside(4).all()
    labels = FilledVolume(
        ArrayVolume(np.arange(5)[:, None, None] + np.zeros(TISSUE.shape, int)), filled.tissue
    )
    assert [labels.read(k)[0, 0] for k in range(5)] == [0, 0, 3, 3, 3]
    thick = FilledVolume(ArrayVolume(np.stack([TISSUE, lost, lost]), (60.0, *VOXEL[1:])))
    assert np.array_equal(thick.read(2), lost)
