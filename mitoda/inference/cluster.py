"""Compute blocks on a Dask cluster: a local one, or any that has a scheduler.

Every worker gets the work (weights, settings, where the stack is) once, as a plugin, also those that join later. A
block that a dying worker takes with it is computed again; of a million blocks only `FUTURES` are futures at a time.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from mitoda.errors import InputError
from mitoda.inference.blocks import BlockWork, Outcome

if TYPE_CHECKING:
    from distributed import Client, Worker

Runner = Callable[[str, Iterable[int]], Iterator[Outcome]]
"""Takes a step, "predict" or "finish", and the numbers of blocks; yields what came of each, in any order."""

FUTURES = 2000
"""Blocks that the scheduler knows at a time: many more than a large cluster has workers."""
RETRIES = 5
"""Times that a block is computed again after an error or the death of its worker; a defect would fail as often."""


def run_here(work: BlockWork) -> Runner:
    """Compute blocks one after another in this process."""
    return lambda step, indices: map(getattr(work, step), indices)


@contextmanager
def cluster_runner(work: BlockWork, workers: int | None, scheduler: str | None) -> Iterator[Runner]:
    """Compute blocks on `workers` processes of this machine, or on the cluster of a scheduler.

    Raises
    ------
    InputError
        If dask.distributed is not installed, or the scheduler does not answer.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise InputError(
            "--workers and --scheduler need dask.distributed: pip install 'mitoda[cluster]'"
        ) from None
    with ExitStack() as stack:
        if scheduler is None:
            # Without a limit of memory: a worker that came near it would be paused, then killed. Dask's warnings, of
            # workers that are started again or end slowly, need no action.
            local = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address=None,
                silence_logs=logging.ERROR,
            )
            scheduler = stack.enter_context(local).scheduler_address
        try:
            client = stack.enter_context(Client(scheduler))
        except (OSError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {scheduler} ({error}); give its address, tcp://HOST:PORT"
            ) from error
        yield partial(run_on, client, send(client, work))


def send(client: "Client", work: BlockWork) -> str:
    """Give the work to every worker, also to those that join later; return its name."""
    name = f"mitoda-{work.record.identity}"
    client.register_plugin(_holder(work), name=name)
    return name


def run_on(
    client: "Client", name: str, step: str, indices: Iterable[int], limit: int = FUTURES
) -> Iterator[Outcome]:
    """Compute blocks on a cluster that was sent the work of this name, at most `limit` futures at a time.

    Raises
    ------
    InputError
        If a block's worker died `RETRIES` times. An error in a block is raised once it was tried as often.
    """
    from distributed import KilledWorker, as_completed

    waiting, deaths = iter(indices), Counter[int]()
    running, index_of = as_completed(), dict[Any, int]()

    def submit(index: int) -> None:
        future = client.submit(_compute, name, step, index, pure=False, retries=RETRIES)
        index_of[future] = index
        running.add(future)

    for index in islice(waiting, limit):
        submit(index)
    for future in running:
        index = index_of.pop(future)
        try:
            yield future.result()
        except KilledWorker as error:
            deaths[index] += 1
            if deaths[index] == RETRIES:
                raise InputError(
                    f"block {index} failed {RETRIES} times because its worker died, most often for want of memory; "
                    "give the workers more, or make the blocks smaller with --block, and continue with --resume"
                ) from error
            submit(index)
        else:
            for following in islice(waiting, 1):
                submit(following)


def _holder(work: BlockWork) -> Any:
    """A plugin that keeps the work on a worker; a function, because its class needs dask."""
    from distributed import WorkerPlugin

    class Holder(WorkerPlugin):
        """Keeps the work; a worker with several threads computes one block at a time, with all of them."""

        def __init__(self) -> None:
            self.work = work

        def setup(self, worker: "Worker") -> None:
            self.lock, self.threads = threading.Lock(), worker.state.nthreads
            devices = torch.cuda.device_count()
            if self.work.device in ("auto", "cuda") and devices > 1 and isinstance(worker.name, int):
                self.work.device = f"cuda:{worker.name % devices}"

    return Holder()


def _compute(name: str, step: str, index: int) -> Outcome:
    """Compute a block on a worker."""
    from distributed import Reschedule, get_worker

    holder: Any = get_worker().plugins.get(name)
    if holder is None:  # a worker that has just joined
        raise Reschedule
    with holder.lock:
        torch.set_num_threads(holder.threads)
        outcome: Outcome = getattr(holder.work, step)(index)
    return outcome
