"""Reading ahead: an iterator that runs on another thread."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Run an iterator on another thread, at most `depth` items ahead; its error is raised here."""
    waiting: queue.Queue[tuple[str, object]] = queue.Queue(depth)
    closed = threading.Event()

    def put(kind: str, value: object) -> bool:
        while not closed.is_set():
            try:
                waiting.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # noqa: BLE001 (raised again on the reading side)
            put("error", error)

    thread = threading.Thread(target=work, name="mitoda-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value  # type: ignore[misc]
            yield value  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()
