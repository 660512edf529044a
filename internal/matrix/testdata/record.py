"""What Celery does in each cell of the matrix, as JSON on standard output.

    python3 record.py redis://host:port/db

The database is emptied. It is also the ledger: a list of steps for each task.
"""
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import redis
from celery import Celery, signals
from celery.exceptions import Ignore, Reject

URL = os.environ.get('MATRIX_URL') or sys.argv[1]
NAMES = ('acks_late', 'acks_on_failure_or_timeout', 'reject_on_worker_lost', 'store_errors_even_if_ignored', 'ignore_result')
SETTINGS = [''.join(bits) for bits in itertools.product('01', repeat=len(NAMES))]
PLAIN = ('success', 'failure', 'retry', 'ignore', 'reject', 'reject with requeue', 'soft time limit', 'hard time limit',
         'terminated', 'worker lost: its child dies')
STOPS = {'warm shutdown': signal.SIGTERM, 'cold shutdown': signal.SIGQUIT, 'worker lost: all of it is killed': signal.SIGKILL}

app = Celery('matrix', broker=URL, backend=URL)
app.conf.update(worker_prefetch_multiplier=1, worker_send_task_events=True)
db = redis.Redis.from_url(URL)
later = {}  # by task id: whether this process has a later run of it


def tell(task_id, step):
    if step in ('task_received', 'task_prerun'):
        later[task_id] = db.exists('runs:' + task_id)
    if not later.get(task_id):
        db.rpush('steps:' + task_id, step)
    elif not db.exists('state:' + task_id):
        db.set('state:' + task_id, state(task_id))


def state(task_id):
    meta = db.get('celery-task-meta-' + task_id)
    return json.loads(meta)['status'] if meta else ''


def connect(name):
    def receive(sender=None, request=None, task_id=None, **kwargs):
        request = request or getattr(sender, 'request', None)
        tell(task_id or request.id, name)
    getattr(signals, name).connect(receive, weak=False)


for name in ('task_received', 'task_prerun', 'task_postrun', 'task_success', 'task_failure', 'task_retry', 'task_revoked'):
    connect(name)


class Obedient(app.Task):
    def before_start(self, task_id, args, kwargs):
        tell(task_id, 'BeforeStart')

    def on_success(self, retval, task_id, args, kwargs):
        tell(task_id, 'OnSuccess')

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        tell(task_id, 'OnFailure')

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        tell(task_id, 'OnRetry')

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        tell(task_id, 'AfterReturn')


def run(self, end):
    task_id = self.request.id
    tell(task_id, 'Run')
    if db.incr('runs:' + task_id) > 1:
        db.hset('back:' + task_id, mapping={'retries': self.request.retries})
        return 'again'
    if end == 'failure':
        raise ValueError('boom')
    if end == 'retry':
        raise self.retry(countdown=0, exc=ValueError('boom'))
    if end == 'ignore':
        raise Ignore()
    if end.startswith('reject'):
        raise Reject('boom', requeue=end.endswith('requeue'))
    if end == 'worker lost: its child dies':
        time.sleep(1)  # the parent shall have heard that it began
        os.kill(os.getpid(), signal.SIGKILL)
    while end != 'success' and not db.exists('gate'):
        time.sleep(0.02)
    return 'done'


for bits in SETTINGS:
    app.task(run, base=Obedient, bind=True, name='matrix.' + bits, **{n: b == '1' for n, b in zip(NAMES, bits)})


class Events(threading.Thread):
    """Keeps the events of tasks."""

    def __init__(self):
        super().__init__(daemon=True)
        self.of, self.ready = {}, threading.Event()
        self.conn = app.connection()
        self.receiver = app.events.Receiver(self.conn, handlers={'*': self.take})

    def take(self, event):
        if event['type'].startswith('task-'):
            self.of.setdefault(event['uuid'], []).append(event['type'])

    def run(self):
        for _ in self.receiver.itercapture(limit=None, timeout=None, wakeup=False):
            pass


def worker(name, slots):
    return subprocess.Popen(
        [sys.executable, '-m', 'celery', '-A', 'record', 'worker', '-E', '-c', str(slots), '-n', name + '@here', '-l', 'ERROR',
         '--without-mingle', '--without-gossip'],
        cwd=os.path.dirname(os.path.abspath(__file__)), env=dict(os.environ, MATRIX_URL=URL), stdout=sys.stderr)


def until(what, is_so, limit=180):
    end = time.time() + limit
    while not is_so():
        if time.time() > end:
            raise SystemExit('not so after %d s: %s' % (limit, what))
        time.sleep(0.1)


def send(ends):
    ids = {}
    for end, bits in itertools.product(ends, SETTINGS):
        task_id = '%s.%s' % (end.replace(' ', '_'), bits)
        ids[task_id] = (end, bits)
        options = {'soft time limit': {'soft_time_limit': 2}, 'hard time limit': {'time_limit': 2}}.get(end, {})
        app.tasks['matrix.' + bits].apply_async((end,), task_id=task_id, **options)
    return ids


def ran(ids):
    return all(db.exists('runs:' + i) for i in ids)


def calm(ids, events, seconds):
    """All have run, and nothing has happened for so long."""
    last = [None, 0]

    def is_so():
        now = (db.llen('celery'), sum(db.llen('steps:' + i) for i in ids), sum(len(e) for e in events.of.values()))
        if now != last[0]:
            last[:] = now, time.time()
        return ran(ids) and now[0] == 0 and time.time() - last[1] > seconds
    return is_so


def observed(ids, events):
    unacked = set()
    for raw in db.hvals('unacked'):
        unacked.add(json.loads(raw)[0]['headers']['id'])
    for task_id, (end, bits) in ids.items():
        runs, back = int(db.get('runs:' + task_id)), db.hgetall('back:' + task_id)
        if runs > 2:
            fate = 'ran %d times' % runs
        elif back:
            fate = 'acked, sent again' if int(back[b'retries']) else 'back in its queue'
        else:
            fate = 'unacked for an hour' if task_id in unacked else 'acked'
        before = db.get('state:' + task_id)
        yield {'end': end, 'settings': bits, 'again': runs > 1,
               'state': state(task_id) if before is None else before.decode(), 'fate': fate,
               'steps': [s.decode() for s in db.lrange('steps:' + task_id, 0, -1)], 'events': events.of.get(task_id, [])}


def start(name, slots):
    p = worker(name, slots)
    until(name + ' answers', lambda: app.control.ping(timeout=1, destination=[name + '@here']))
    return p


def clean():
    db.flushdb()
    events = Events()
    events.start()
    time.sleep(1)  # it binds in its own time
    return events


def plain():
    events = clean()
    p = start('plain', 16)
    ids = send(PLAIN)
    revoked = set()

    def done(is_so=calm(ids, events, 20)):
        for task_id in ids:
            if task_id.startswith('terminated') and task_id not in revoked and db.exists('runs:' + task_id):
                revoked.add(task_id)
                app.control.revoke(task_id, terminate=True)
        return is_so()
    until('all is done', done)
    found = list(observed(ids, events))
    p.send_signal(signal.SIGTERM)
    p.wait(60)
    return found


def stop(end, sig):
    events = clean()
    p = start('stopped', len(SETTINGS))
    ids = send([end])
    until('all run', lambda: ran(ids))
    until('all events are there', lambda: sum(len(e) for e in events.of.values()) == 2 * len(ids))
    p.send_signal(sig)
    if sig == signal.SIGTERM:
        time.sleep(1)
        db.set('gate', 1)
    p.wait(60)
    db.set('gate', 1)
    p = start('next', 4)
    until('what came back is done', calm(ids, events, 5))
    found = list(observed(ids, events))
    p.send_signal(signal.SIGTERM)
    p.wait(60)
    return found


if __name__ == '__main__':
    cells = plain()
    for e, s in STOPS.items():
        cells += stop(e, s)
    print('[\n' + ',\n'.join(json.dumps(c) for c in cells) + '\n]')
