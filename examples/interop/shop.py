"""A Celery project, with one task that a Go worker runs."""
import os

from celery import Celery

url = os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0")
app = Celery("shop", broker=url, backend=url)
app.conf.task_default_queue = "shop"

# The Go worker has a queue of its own, so that it gets nothing it does not know.
app.conf.task_routes = {"shop.checksum": {"queue": "shop-go"}}


@app.task(name="shop.price")
def price(pieces, each=100):
    if pieces <= 0:
        raise ValueError("nothing to buy", pieces)
    return pieces * each


@app.task(name="shop.checksum")
def checksum(text, rounds=1):
    """Runs in Go: only the name and the parameters count here."""
    raise NotImplementedError("shop.checksum runs in Go, on the queue shop-go")
