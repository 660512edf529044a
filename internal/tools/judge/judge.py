"""Compares messages and results that Lovage wrote again with the originals.

Python is the judge: both texts go through kombu's and Celery's own loaders, and
what comes out is compared field by field, types included. Each line read is
{"file", "kind", "original", "ours"}; kind is "message", "result", "envelope" or
"executed"; a message is {"headers", "body" (base64), "content_type",
"content_encoding", "compression"}; an envelope is what lies in a Redis list;
executed is an envelope and the result that a Go worker stored, which ran it as a
task that returns its arguments.
One line is written per case: {"file", "compared", "differences"}.
"""
import base64
import json
import sys
from datetime import datetime, timezone

from celery import Celery
from celery.app.task import Context
from celery.utils.time import maybe_iso8601, maybe_make_aware
from celery.worker.request import Request
from kombu import Connection
from kombu.compression import decompress
from kombu.message import Message
from kombu.serialization import loads

#: What may differ in an envelope, and why.
ALLOWED = {
    "properties.delivery_tag": "new for each sending",
    "properties.replaced_task_nesting": "5.2 writes this header among the properties, by mistake",
}

#: What may differ in a value that went through a Go task: a tagged datetime
#: without a zone comes back with +00:00, since Go's times have one and what has
#: none is read as UTC.
def same_time(a, b):
    return isinstance(a, str) and b == a + "+00:00"


#: Headers that Celery before 5.6 does not send, and what their absence means.
NEW = {"replaced_task_nesting": 0, "stamped_headers": None, "stamps": {}}

FIELDS = ("id", "name", "task_name", "root_id", "parent_id", "argsrepr", "kwargsrepr", "eta", "expires",
          "time_limits", "correlation_id", "reply_to", "content_type", "content_encoding",
          "task_id", "group_index", "request_dict", "store_errors", "on_ack", "utc", "hostname")

app = Celery("judge", broker="memory://", set_as_current=False)
app.conf.result_backend = None


def body_of_task(*args, **kwargs):
    """Stands for every task; it is never run."""


class Comparison:
    def __init__(self):
        self.compared, self.differences = 0, []

    def same(self, path, a, b):
        """Counts every leaf and notes each that differs in type or value."""
        if type(a) is not type(b):
            self.differences.append(f"{path}: {type(a).__name__} {a!r} became {type(b).__name__} {b!r}"[:300])
        elif isinstance(a, dict):
            if a.keys() != b.keys():
                self.differences.append(f"{path}: keys {sorted(a)} became {sorted(b)}")
            for k in a.keys() & b.keys():
                self.same(f"{path}.{k}", a[k], b[k])
        elif isinstance(a, (list, tuple)):
            if len(a) != len(b):
                self.differences.append(f"{path}: {len(a)} elements became {len(b)}")
            for i, (x, y) in enumerate(zip(a, b)):
                self.same(f"{path}[{i}]", x, y)
        else:
            self.compared += 1
            if repr(a) != repr(b) and not (path.endswith(".__value__") and same_time(a, b)):
                self.differences.append(f"{path}: {a!r} became {b!r}"[:300])


def load(m):
    """Decodes a message as a worker does."""
    body = base64.b64decode(m["body"])
    if m["compression"]:
        body = decompress(body, m["compression"])
    return loads(body, m["content_type"], m["content_encoding"], accept={"application/json"})


def request(m, payload):
    """Builds the worker's request, where the message is version 2."""
    headers = m["headers"]
    if "task" not in headers:
        return None
    task = app.task(name=headers["task"])(body_of_task)
    message = Message(body=payload, content_type=m["content_type"], content_encoding=m["content_encoding"],
                      headers=headers, properties={"correlation_id": headers["id"], "reply_to": ""},
                      delivery_info={})
    return Request(message, app=app, task=task, decoded=True, body=payload, headers=dict(headers),
                   hostname="judge")


def compare_message(c, original, ours):
    original["headers"] = ({**original["headers"], **{k: v for k, v in NEW.items() if k not in original["headers"]}}
                           if "task" in original["headers"] else original["headers"])
    c.same("headers", original["headers"], ours["headers"])
    a, b = load(original), load(ours)
    c.same("body", a, b)
    ra, rb = request(original, a), request(ours, b)
    for field in FIELDS if ra is not None else ():
        c.same("request." + field, getattr(ra, field, None), getattr(rb, field, None))


def compare_result(c, original, ours):
    a = loads(original, "application/json", "utf-8", accept={"application/json"})
    b = loads(ours, "application/json", "utf-8", accept={"application/json"})
    c.same("meta", a, b)
    if a["status"] in ("FAILURE", "RETRY", "REVOKED"):
        ea, eb = (app.backend.exception_to_python(x["result"]) for x in (a, b))
        c.same("exception.type", type(ea).__name__, type(eb).__name__)
        c.same("exception.args", getattr(ea, "args", None) and [repr(x) for x in ea.args],
               getattr(eb, "args", None) and [repr(x) for x in eb.args])


def without_allowed(e):
    for path in ALLOWED:
        part, key = path.split(".")
        e.get(part, {}).pop(key, None)
    if "task" in e["headers"]:
        e["headers"] = {**{k: v for k, v in NEW.items()}, **e["headers"]}
    return e


channel = Connection("memory://").channel()


def compare_envelope(c, original, ours):
    """Compares two items of a Redis list, and what kombu and Celery make of them."""
    a, b = without_allowed(json.loads(original)), without_allowed(json.loads(ours))
    tag = {"delivery_tag": "tag"}  # kombu wants one
    a["properties"].update(tag), b["properties"].update(tag)
    c.same("envelope", {k: v for k, v in a.items() if k != "body"}, {k: v for k, v in b.items() if k != "body"})
    ma, mb = channel.Message(a, channel=channel), channel.Message(b, channel=channel)
    for field in ("delivery_info", "properties", "headers", "content_type", "content_encoding"):
        c.same("message." + field, getattr(ma, field), getattr(mb, field))
    if a["content-type"] != "application/json" or a["headers"].get("compression") == "application/zstd":
        c.same("body", ma.body, mb.body)  # not for this Python to decode
        return
    ma.accept = mb.accept = {"application/json"}
    c.same("payload", ma.decode(), mb.decode())
    if "task" not in a["headers"]:
        return
    task = app.task(name=a["headers"]["task"])(body_of_task)
    ra, rb = (Request(m, app=app, task=task, decoded=True, body=m.payload, headers=dict(m.headers), hostname="judge")
              for m in (ma, mb))
    for field in FIELDS + ("delivery_info", "tzlocal"):
        c.same("request." + field, getattr(ra, field, None), getattr(rb, field, None))
    xa, xb = (vars(Context({**r.request_dict, **m.headers, "delivery_info": r.delivery_info})) for r, m in ((ra, ma), (rb, mb)))
    c.same("context", xa, xb)


def compare_executed(c, original, ours):
    """Holds a stored result against the arguments that Python reads."""
    m = channel.Message(json.loads(original), channel=channel)
    m.accept = {"application/json"}
    args, kwargs, _ = m.decode()
    meta = loads(ours, "application/json", "utf-8", accept={"application/json"})
    expires = m.headers.get("expires")
    if expires and maybe_make_aware(maybe_iso8601(expires)) < datetime.now(timezone.utc):
        c.same("status", "REVOKED", meta["status"])
        return
    c.same("status", "SUCCESS", meta["status"])
    c.same("result", [args, kwargs], meta["result"])


def main():
    for line in sys.stdin:
        case = json.loads(line)
        c = Comparison()
        try:
            compare = {"message": compare_message, "result": compare_result,
                       "envelope": compare_envelope, "executed": compare_executed}[case["kind"]]
            compare(c, case["original"], case["ours"])
        except Exception as exc:  # the verdict on this case, the others go on
            c.differences.append(f"{type(exc).__name__}: {exc}"[:300])
        print(json.dumps({"file": case["file"], "compared": c.compared, "differences": c.differences}))


main()
