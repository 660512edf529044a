"""The measured task for Python's Celery, and its client."""
import json
import os
import sys
import threading
import time

from celery import Celery
from celery.signals import worker_ready

URL = os.environ["BENCH_URL"]
app = Celery("bench", broker=URL, backend=os.environ["BENCH_BACKEND"])
app.conf.update(broker_pool_limit=40, worker_hijack_root_logger=False)


@app.task(name="bench.add", ignore_result=not os.environ.get("BENCH_RESULTS"))
def add(x, y):
    return x + y


@worker_ready.connect
def say(**_):
    os.write(1, b"ready\n")  # stdout is redirected to the log


def enqueue(n, callers):
    add.delay(2, 3)  # connects

    def calls(count):
        for _ in range(count):
            add.delay(2, 3)

    threads = [threading.Thread(target=calls, args=(n // callers,)) for _ in range(callers)]
    start = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return [time.perf_counter() - start]


def roundtrips(n):
    took = []
    for _ in range(n + 20):
        start = time.perf_counter()
        assert add.delay(2, 3).get(timeout=20) == 5
        took.append(time.perf_counter() - start)
    return took[20:]


if __name__ == "__main__":
    print(json.dumps({"enqueue": enqueue, "roundtrips": roundtrips}[sys.argv[1]](*map(int, sys.argv[2:]))))
