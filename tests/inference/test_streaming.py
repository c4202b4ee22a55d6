"""Streaming prediction: equal to a plain computation, in bounded memory, whatever is cut, kept or resumed."""

import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mitoda.errors import InputError
from mitoda.inference import streaming as inference
from mitoda.inference.grey_values import normalise_section
from mitoda.inference.predictor import SectionPredictor
from mitoda.inference.settings import PredictionSettings
from mitoda.inference.streaming import delayed, predict, read_ahead
from mitoda.inference.tiling import plan_pairs
from mitoda.models.backbones import BACKBONES, build_network
from mitoda.models.model import Model, load_model
from mitoda.volumes import ArrayVolume, open_volume
from tests.fakes import BrokenVolume, CountingVolume, LocalNetwork, model_of, recipe, tiny_network

CPU = torch.device("cpu")
PLAIN = PredictionSettings()
SIZE = (10.0, 5.0, 5.0)


def random_volume(sections: int = 7, rows: int = 48, columns: int = 64, size=SIZE) -> ArrayVolume:
    """Noise, no two sections alike."""
    array = np.random.default_rng(sections * rows + columns).integers(
        0, 256, (sections, rows, columns), dtype=np.uint8
    )
    return ArrayVolume(array, size, "noise")


def model_for(network, stride: int, backbone=None, pixel: float = 5.0) -> Model:
    """A model for pairs of 10 nm sections `stride` apart."""
    return model_of(network, (pixel, pixel), 10.0 * stride, backbone or recipe(network.grid))


def predict_all(network, volume, stride, settings=PLAIN, backbone=None, start=0, pixel=5.0):
    """All sections as one array."""
    model = model_for(network, stride, backbone, pixel)
    return np.stack(list(predict(volume, model, settings, start)))


def plainly(network, volume, stride, kind="standard"):
    """What the documentation says, without streaming, tiles or kept features: all pairs, then averages."""
    sections, rows, columns = volume.shape
    below, right = -rows % network.multiple, -columns % network.multiple
    images = [
        torch.from_numpy(
            np.pad(normalise_section(volume.read(k), kind), ((0, below), (0, right)), mode="reflect")
        )
        for k in range(sections)
    ]
    gathered = [[] for _ in range(sections)]
    with torch.inference_mode():
        for first, second in plan_pairs(sections, min(stride, sections - 1)):
            output = network(torch.stack([images[first], images[second]])[None], residual=False)
            gathered[first].append(output.first.softmax(1)[0, 1])
            gathered[second].append(output.second.softmax(1)[0, 1])
        means = torch.stack([torch.stack(maps).mean(0) for maps in gathered])[:, None]
        full = (
            F.interpolate(means, (rows + below, columns + right), mode="bilinear")
            if network.grid > 1
            else means
        )
    return full[:, 0, :rows, :columns].numpy()


@pytest.mark.parametrize("grid", [1, 2])
@pytest.mark.parametrize("kind", ["standard", "minmax"])
@pytest.mark.parametrize(("sections", "stride"), [(7, 2), (5, 4), (5, 3), (3, 10), (2, 1), (1, 1)])
def test_streaming_equals_the_plain_computation(grid, kind, sections, stride):
    """Every pair and both visits, one section to short stacks and deep ones, odd shapes: ≤ 1e-5 on average."""
    network = tiny_network(grid)
    volume = random_volume(sections, 37, 50)
    streamed = predict_all(network, volume, stride, backbone=recipe(grid, kind))
    assert streamed.shape == volume.shape
    assert streamed.dtype == np.float32
    difference = np.abs(streamed - plainly(network, volume, stride, kind))
    assert difference.mean() < 1e-5
    assert difference.max() < 1e-4
    assert streamed.std() > 1e-4


@pytest.mark.parametrize("tile", [(16, 16), (32, 48), (20, 500), None])
@pytest.mark.parametrize("overlap", [0, 5, 16, 1000])
def test_tiles_and_blending_equal_the_whole_section_for_a_local_network(tile, overlap):
    """Where a pixel decides alone, cutting and blending change nothing."""
    volume = random_volume(4, 75, 61)
    settings = PredictionSettings(tile, overlap)
    whole = predict_all(LocalNetwork(), volume, 1)
    assert np.allclose(predict_all(LocalNetwork(), volume, 1, settings), whole, atol=1e-5)


@pytest.mark.parametrize("side", [1, 5, 64])
def test_a_section_smaller_than_the_network_is_mirrored_and_works(side):
    """One pixel, five, or just what the network's poolings leave a single pixel of: a probability comes out."""
    torch.manual_seed(0)
    result = predict_all(
        build_network("compact"), random_volume(2, side, side), 1, backbone=BACKBONES["compact"]
    )
    assert result.shape == (2, side, side)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("batch", [2, 3, 50])
@pytest.mark.parametrize(("sections", "stride"), [(7, 2), (5, 4), (1, 1)])
def test_batches_of_any_size_change_nothing(batch, sections, stride):
    """Sections, tiles and views go through the network together and come out as they do one by one."""
    network, volume = tiny_network(2), random_volume(sections, 75, 61)
    settings = PredictionSettings(tile=(64, 64), overlap=16, flips=True, batch_size=1)
    alone = predict_all(network, volume, stride, settings)
    together = predict_all(network, volume, stride, replace(settings, batch_size=batch))
    assert np.allclose(together, alone, atol=1e-5)


def test_compiling_that_fails_is_announced_and_changes_nothing(monkeypatch):
    """One sentence with the compiler's reason; the sections are those of the plain network."""

    def refuse(function, **options):
        raise RuntimeError("no working compiler\nand many more lines")

    monkeypatch.setattr(torch, "compile", refuse)
    volume, said = random_volume(4, 32, 32), []
    settings = PredictionSettings(compiled=True)
    found = list(predict(volume, model_for(LocalNetwork(), 1), settings, 0, said.append))
    assert np.array_equal(np.stack(found), predict_all(LocalNetwork(), volume, 1))
    assert said == [
        "torch.compile failed; the run continues uncompiled, which is slower (no working compiler)"
    ]


def test_compiling_goes_through_the_compiled_network(monkeypatch):
    """Encoder and decoder are compiled once each, for fixed shapes, and every section goes through them."""
    compiled = []

    def stand_in(function, **options):
        assert options == {"dynamic": False}

        def run(*arguments, **more):
            compiled.append(function.__name__)
            return function(*arguments, **more)

        return run

    monkeypatch.setattr(torch, "compile", stand_in)
    volume = random_volume(4, 32, 32)
    found = predict_all(LocalNetwork(), volume, 1, PredictionSettings(compiled=True))
    assert np.array_equal(found, predict_all(LocalNetwork(), volume, 1))
    assert compiled.count("encode") == 1 + 4  # and once to try it out
    assert compiled.count("decode") == 1 + 3


class Greedy(LocalNetwork):
    """Runs out of memory where more than `most` pixels go through it at once."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error

    def decode(self, first, second, residual=True):
        """As usual, or not at all."""
        if first.fine.numel() > self.most:
            raise self.error
        return super().decode(first, second, residual)


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_is_answered_by_smaller_batches_then_smaller_tiles_and_announced(error):
    """Batches 4, 2, 1, then half a tile and another half; the same sections come out, and each change is announced."""
    volume = random_volume(6, 128, 128)
    said = []
    settings = PredictionSettings(batch_size=4, overlap=16)
    network = Greedy(64 * 64, error)
    sections = predict(volume, model_for(network, 1), settings, 0, said.append)
    assert np.allclose(np.stack(list(sections)), predict_all(LocalNetwork(), volume, 1), atol=1e-5)
    assert len(said) == 4
    assert "out of memory at section 0: continuing there with smaller batches (batch 2)" in said[0]
    assert "tiles of 64×64 pixels (batch 1)" in said[-1]


@pytest.mark.parametrize("error", [*OUT_OF_MEMORY, RuntimeError("something else")])
def test_where_no_smaller_tile_helps_the_error_is_raised(error):
    """Nothing is left to halve, or it was another error: no endless trying."""
    with pytest.raises(RuntimeError) as caught:
        predict_all(Greedy(0, error), random_volume(3, 128, 128), 1)
    assert str(caught.value) == str(error)


def test_bfloat16_and_float32_give_the_masks_of_the_plain_computation(real_data):
    """Bundled weights on real sections: probabilities within 0.003 on average and IoU 0.995; in float32 1e-5."""
    model = load_model(device="cpu", precision="float32")
    stack = open_volume(real_data / "lucchi" / "training.tif", voxel_size=(5, 5, 5))
    crop = np.stack([stack.read(k, slice(100, 484), slice(300, 812)) for k in range(40, 54)])
    volume = ArrayVolume(crop, (5.0, 5.0, 5.0), "lucchi")
    expected = plainly(model.network, volume, 10)

    def found(bfloat16: bool) -> np.ndarray:
        precise = replace(model, bfloat16=bfloat16)
        return np.stack(list(predict(volume, precise, PredictionSettings(smoothing=0.0))))

    assert np.abs(found(False) - expected).mean() < 1e-5
    fast = found(True)
    assert np.abs(fast - expected).mean() < 0.003
    mask, truth = fast >= 0.5, expected >= 0.5
    assert truth.mean() > 0.02
    assert (mask & truth).sum() / (mask | truth).sum() > 0.995


def test_the_local_network_is_computed_by_hand():
    """Section 1 of 3 is second of (0, 1) and first of (1, 2): the mean of σ(2b − a) and σ(2b + c)."""
    volume = random_volume(3, 16, 16)
    a, b, c = (normalise_section(volume.read(k), "standard") for k in range(3))
    expected = (1 / (1 + np.exp(-(2 * b - a))) + 1 / (1 + np.exp(-(2 * b + c)))) / 2
    assert np.allclose(predict_all(LocalNetwork(), volume, 1)[1], expected, atol=1e-5)


def test_mirrored_views_are_mirrored_back():
    """Test-time augmentation changes nothing for a local network, and something for others."""
    volume = random_volume(3, 32, 48)
    flips = PredictionSettings(tile=(32, 32), overlap=8, flips=True)
    assert np.allclose(
        predict_all(LocalNetwork(), volume, 1, flips), predict_all(LocalNetwork(), volume, 1), atol=1e-5
    )
    network = tiny_network()
    assert not np.allclose(predict_all(network, volume, 1, flips), predict_all(network, volume, 1), atol=1e-5)


@pytest.mark.parametrize(("sections", "stride"), [(9, 3), (6, 4)])
def test_starting_later_gives_the_same_sections(sections, stride):
    """For every start, also past the stride and in short stacks; at the end there is nothing."""
    network, volume = tiny_network(), random_volume(sections, 32, 32)
    everything = predict_all(network, volume, stride)
    for start in range(1, sections):
        assert np.array_equal(predict_all(network, volume, stride, start=start), everything[start:])
    assert list(predict(volume, model_for(network, stride), PLAIN, sections)) == []


def test_features_that_do_not_fit_are_computed_again_with_equal_results(monkeypatch):
    """With no room for features the sections are encoded twice; the probabilities are the same."""
    network, volume = tiny_network(2), random_volume(6, 40, 64)
    kept = predict_all(network, volume, 2)
    monkeypatch.setattr(inference, "FEATURES_LIMIT", 0)
    calls = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda section: calls.append(1) or encode(section))
    assert np.array_equal(predict_all(network, volume, 2), kept)
    assert len(calls) == 6 + 4  # each of the four pairs encodes its first section again


def test_features_that_fit_are_computed_once(monkeypatch):
    """One encoding for each section, although each is in two pairs."""
    network, volume = tiny_network(), random_volume(6, 32, 32)
    calls = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda section: calls.append(1) or encode(section))
    predict_all(network, volume, 2)
    assert len(calls) == 6


def test_sections_above_the_backbones_limit_are_tiled():
    """Whole where they fit, else tiles of the limit's size."""
    shapes = []

    class Spy(LocalNetwork):
        def encode(self, section):
            shapes.append(tuple(section.shape[-2:]))
            return super().encode(section)

    volume = random_volume(2, 64, 96)
    predict_all(Spy(), volume, 1, backbone=recipe(whole=64 * 96))
    assert set(shapes) == {(64, 96)}
    shapes.clear()
    predict_all(Spy(), volume, 1, backbone=recipe(whole=32 * 32))
    assert set(shapes) == {(32, 32)}


@pytest.mark.parametrize("pixel", [2.5, 5.05, 8.0])
def test_other_pixel_sizes_are_resampled_there_and_back(pixel):
    """A bright half stays the same half of the section, in the section's own pixels, at any working pixel."""
    array = np.zeros((2, 60, 80), np.uint8)
    array[:, :, 40:] = 255
    result = predict_all(LocalNetwork(), ArrayVolume(array, SIZE), 1, pixel=pixel)
    assert result.shape == array.shape
    assert (result[:, :, :38] < 0.5).all()
    assert (result[:, :, 42:] > 0.5).all()


def test_sections_are_read_once_each_in_order_and_a_resumed_run_reads_no_more_than_it_needs():
    """From the start: 0, 1, 2, …; from section 5 with stride 2: nothing before section 3."""
    volume = CountingVolume(random_volume(8, 16, 16))
    predict_all(LocalNetwork(), volume, 2)
    assert volume.sections == list(range(8))
    volume.sections.clear()
    predict_all(LocalNetwork(), volume, 2, start=5)
    assert volume.sections == [3, 4, 5, 6, 7]


def test_memory_does_not_grow_with_the_depth_of_the_stack():
    """Of 60 sections no more are alive than the stride, those read ahead, and the ones in hand."""
    alive: list[weakref.ref] = []
    most = 0

    class Watched(CountingVolume):
        def read(self, section, rows=slice(None), columns=slice(None)):
            nonlocal most
            values = super().read(section, rows, columns).astype(np.float32)
            alive.append(weakref.ref(values))
            most = max(most, sum(ref() is not None for ref in alive))
            return values

    class Remembering(LocalNetwork):
        """Its features are the section's own memory."""

        features: list[weakref.ref] = []  # noqa: RUF012
        most = 0

        def encode(self, section):
            features = super().encode(section.clone())
            self.features.append(weakref.ref(features.fine))
            type(self).most = max(self.most, sum(ref() is not None for ref in self.features))
            return features

    volume = Watched(random_volume(60, 16, 16))
    for _ in predict(volume, model_for(Remembering(), 4), PLAIN):
        pass
    assert most <= 4
    assert Remembering.most <= 4 + 2


def test_the_first_section_comes_before_the_last_is_read():
    """It streams: section 0 is out when the stride is read, and a few ahead."""
    volume = CountingVolume(random_volume(40, 16, 16))
    sections = predict(volume, model_for(LocalNetwork(), 3), PLAIN)
    next(sections)
    assert max(volume.sections) <= 3 + 4
    sections.close()


def reading_threads() -> list[threading.Thread]:
    """Those that read ahead and live."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("mitoda-read-ahead")]


def test_an_error_of_the_volume_is_raised_here_and_closes_the_thread():
    """Sections before it come out; the thread is gone although the error is kept."""
    volume = BrokenVolume(random_volume(9, 16, 16), broken=6)
    done = []
    sections = predict(volume, model_for(LocalNetwork(), 2), PLAIN)
    with pytest.raises(OSError, match="section 6 cannot be read"):
        done.extend(sections)
    assert len(done) == 4
    assert not reading_threads()


def test_an_error_of_the_network_closes_the_thread():
    """Even while the error, and with it every frame, is kept."""

    class Failing(LocalNetwork):
        def decode(self, first, second, residual=True):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no") as kept:
        list(predict(random_volume(9, 16, 16), model_for(Failing(), 1), PLAIN))
    assert kept.value is not None
    assert not reading_threads()


def test_closing_early_closes_the_thread():
    """Ctrl-C leaves nothing that reads on."""
    sections = predict(random_volume(30, 16, 16), model_for(LocalNetwork(), 1), PLAIN)
    next(sections)
    assert reading_threads()
    sections.close()
    assert not reading_threads()


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_items_come_behind_by_a_count_and_all_of_them(count):
    """Item k comes when k + count has been taken; the rest at the end, in order."""
    taken = []

    def items():
        for n in range(10):
            taken.append(n)
            yield n

    found = [(item, len(taken)) for item in delayed(items(), count)]
    assert found == [(n, min(n + count + 1, 10)) for n in range(10)]


def test_reading_ahead_keeps_order_and_stays_a_few_ahead():
    """All items in order; never more than the depth, one in hand and one on its way."""
    made = []

    def items():
        for n in range(50):
            made.append(n)
            yield n

    taken = []
    for item in read_ahead(items(), depth=2):
        taken.append(item)
        time.sleep(0.001)
        assert len(made) <= len(taken) + 4
    assert taken == list(range(50))


def test_reading_ahead_passes_the_error_on_after_what_came_before():
    """And the same object, with its traceback."""
    error = ValueError("broken")

    def items():
        yield 1
        raise error

    taken = []
    with pytest.raises(ValueError, match="broken") as caught:
        taken.extend(read_ahead(items()))
    assert taken == [1]
    assert str(caught.value) == str(error)


def test_a_constant_section_is_finite():
    """Zeros go in, a probability comes out."""
    volume = ArrayVolume(np.full((3, 20, 20), 77, np.uint8), SIZE)
    for kind in ("standard", "minmax"):
        assert np.isfinite(predict_all(tiny_network(), volume, 1, backbone=recipe(1, kind))).all()
        assert (normalise_section(volume.read(0), kind) == 0).all()


def test_an_unknown_voxel_size_says_what_to_give():
    """No guess: the message has the option and an example."""
    with pytest.raises(
        InputError, match=r"voxel size of noise is not in its metadata; give --voxel-size Z Y X"
    ):
        predict_all(LocalNetwork(), random_volume(size=None), 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile": (0, 64)}, "tile is rows and columns"),
        ({"overlap": -1}, "overlap must be from 0 to 1,000,000"),
    ],
)
def test_tiles_that_cannot_be_are_refused(values, message):
    """A tile of nothing, or an overlap below nothing, would leave gaps."""
    with pytest.raises(InputError, match=message):
        PredictionSettings(**values)


def test_rounding_makes_no_probability_above_one():
    """Smoothing and interpolation add up weights whose sum is 1 but for rounding; what comes out can be scored."""
    predictor = SectionPredictor(model_for(LocalNetwork(), 1), (48, 64), (1.0, 1.0))
    above = torch.full(predictor.tiling.padded, 1 + 3e-7)
    assert predictor.finish(above)().max() == 1.0
