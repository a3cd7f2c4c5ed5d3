"""One PySyncObj node as a process, for the benchmark.

    python -m denizen.bench.raft_pysyncobj CONTROL-PORT ADDRESS JOURNAL OTHER-ADDRESS…

It answers one-line JSON questions on the control port: does it lead, and drive a load. The load keeps so many `set`
commands in flight in this very process, each issued from the callback of the one before.
"""

import json
import socketserver
import sys
import threading
import time
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated

VALUE = "v" * 64
KEYS = 10_000


class Store(SyncObj):  # type: ignore[misc]
    """A replicated dict."""

    def __init__(self, address: str, others: list[str], journal: str) -> None:
        super().__init__(address, others, SyncObjConf(journalFile=journal, fullDumpFile=f"{journal}.dump"))
        self._data: dict[str, str] = {}

    @replicated  # type: ignore[untyped-decorator]
    def set(self, key: str, value: str) -> int:
        self._data[key] = value
        return len(self._data)


class Load:
    """Keeps `lanes` commands in flight until the time is over."""

    def __init__(self, store: Store, lanes: int, seconds: float) -> None:
        self._store = store
        self._deadline = time.perf_counter() + seconds
        self._left = lanes
        self._finished = threading.Event()
        self.latencies: list[float] = []
        self.failed = 0
        self._number = 0
        for _ in range(lanes):
            self._issue()

    def wait(self, seconds: float) -> None:
        self._finished.wait(seconds)

    def _issue(self) -> None:
        started = time.perf_counter()
        if started >= self._deadline:
            self._left -= 1
            if self._left == 0:
                self._finished.set()
            return
        self._number += 1

        def done(_result: Any, error: int) -> None:
            if error:
                self.failed += 1
            else:
                self.latencies.append((time.perf_counter() - started) * 1e3)
            self._issue()

        self._store.set(f"bench/{self._number * 7919 % KEYS}", VALUE, callback=done)


def main() -> None:
    control, address, journal, *others = sys.argv[1:]
    store = Store(address, others, journal)

    class Control(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            question = json.loads(self.rfile.readline())
            self.wfile.write(json.dumps(answer(store, address, question)).encode() + b"\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", int(control)), Control) as server:
        server.serve_forever()


def answer(store: Store, address: str, question: dict[str, Any]) -> dict[str, Any]:
    if question["do"] == "leads":
        leader = store._getLeader()  # there is no public way
        return {"leads": store.isReady() and leader is not None and str(leader) == address}
    started = time.perf_counter()
    load = Load(store, question["lanes"], question["seconds"])
    load.wait(question["seconds"] + 20)
    seconds = time.perf_counter() - started
    return {
        "succeeded": len(load.latencies),
        "failed": load.failed,
        "seconds": seconds,
        "latencies_ms": sorted(load.latencies),
    }


if __name__ == "__main__":
    main()
