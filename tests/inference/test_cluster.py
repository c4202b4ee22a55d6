"""Blocks on a Dask cluster: equal bytes although workers die, few futures at a time, little overhead."""

import os
import signal
import time
from functools import partial

import dask
import distributed
import numpy as np
import pytest

from mitoda.errors import InputError
from mitoda.inference import cluster
from mitoda.inference.block_run import segment_blocks
from mitoda.inference.blocks import BlockWork, Outcome
from mitoda.inference.events import BlockDone, Segmented
from mitoda.inference.settings import BlockSettings, SegmentSettings
from mitoda.volumes import ArrayVolume
from tests.inference.test_blocks import SMALL, files_of, network, run
from tests.inference.test_blocks import small_shards as small_shards
from tests.inference.test_segment import volume_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
"""Starting processes takes some seconds each; what dask warns of is not ours."""


class DeadlyVolume(ArrayVolume):
    """Ends the first process that reads one of its sections, but for the one that made it, as a lack of memory does."""

    def __init__(self, volume: ArrayVolume, section: int, note) -> None:
        super().__init__(volume.array, volume.voxel_size, volume.name)
        self.section, self.note, self.maker = section, note, os.getpid()

    def read(self, section, rows=slice(None), columns=slice(None)) -> np.ndarray:
        """See `Volume.read`."""
        if section == self.section and os.getpid() != self.maker and not self.note.exists():
            self.note.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(section, rows, columns)


def itself(volume):
    """What opens a volume that is there; a function that can be pickled."""
    return volume


def test_a_local_cluster_whose_worker_is_killed_gives_the_same_bytes(tmp_path):
    """One of two workers ends by SIGKILL in the middle of a block; its blocks are computed again."""
    volume = volume_of(19)
    run(volume, tmp_path)
    expected = files_of(tmp_path / "mask.zarr")
    (tmp_path / "cluster").mkdir()
    deadly = DeadlyVolume(volume, 10, tmp_path / "killed")
    settings = SegmentSettings(output=tmp_path / "cluster" / "mask.zarr", **SMALL)
    events = list(
        segment_blocks(
            partial(itself, deadly), network(), settings, BlockSettings(block=(4, 32, 32), workers=2), "cpu"
        )
    )
    assert int((tmp_path / "killed").read_text()) != os.getpid()
    assert isinstance(events[-1], Segmented)
    assert files_of(settings.output) == expected
    done = [event.done for event in events if isinstance(event, BlockDone) and event.step == "predict"]
    assert done == [1, 2, 3, 4, 5]


@pytest.fixture
def client():
    """A cluster in this process, with two threads."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


def work_of(tmp_path, record, step) -> BlockWork:
    """Work of which one step is replaced."""
    work = BlockWork(None, None, "cpu", None, record, tmp_path)
    work.predict = step
    return work


class Record:
    """Stands for a record."""

    identity = "test"


def test_a_million_blocks_are_never_a_million_futures(tmp_path, client):
    """The scheduler holds at most the limit, whatever comes."""
    held = []

    def step(index: int) -> Outcome:
        return Outcome(index, 0, 0.0)

    name = cluster.send(client, work_of(tmp_path, Record, step))
    asked = []
    indices = (asked.append(index) or index for index in range(10**6))
    outcomes = cluster.run_on(client, name, "predict", indices, limit=20)
    for _ in range(100):
        next(outcomes)
        held.append(len(client.cluster.scheduler.tasks))
    assert max(held) <= 21
    assert len(asked) <= 121
    outcomes.close()


def test_the_overhead_of_scheduling_is_measured(tmp_path, client):
    """Empty blocks; a block computes for ten seconds or more, of which 5 % are half a second."""

    def step(index: int) -> Outcome:
        return Outcome(index, 0, 0.0)

    name = cluster.send(client, work_of(tmp_path, Record, step))
    began = time.monotonic()
    assert sorted(one.index for one in cluster.run_on(client, name, "predict", range(100))) == list(
        range(100)
    )
    each = (time.monotonic() - began) / 100
    print(f"{each * 1000:.1f} ms a block")
    assert each < 0.5


def test_an_error_in_a_block_is_raised_after_its_retries(tmp_path, client):
    """With what the block said."""
    tried = tmp_path / "tried"  # a file, because the step is a copy on the worker

    def step(index: int) -> Outcome:
        with tried.open("a") as file:
            file.write("x")
        raise InputError(f"block {index} is wrong")

    name = cluster.send(client, work_of(tmp_path, Record, step))
    with pytest.raises(InputError, match="block 3 is wrong"):
        list(cluster.run_on(client, name, "predict", [3]))
    assert tried.read_text() == "x" * (cluster.RETRIES + 1)


def test_a_scheduler_that_does_not_answer_is_refused(tmp_path):
    """With its address."""
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        cluster.cluster_runner(work_of(tmp_path, Record, None), None, "tcp://127.0.0.1:9"),
    ):
        pass
