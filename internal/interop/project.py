"""A Celery project as a user has it. The lines before this one set BROKER, RESULTS and GATE."""
import json
import os
import sys
import time
import traceback
from datetime import datetime, timedelta, timezone

from celery import Celery
from kombu import Exchange, Queue

app = Celery('project', broker=BROKER, backend=RESULTS)  # noqa: F821
# A queue without a routing key gets Celery's default one, in both languages; a
# call that names an exchange and no key goes to the default queue in Celery.
exchanges = {e.name: e for e in (
    Exchange('parcels', 'direct'), Exchange('news', 'topic'), Exchange('alarm.py', 'fanout'), Exchange('alarm.go', 'fanout'))}
parcels, news = exchanges['parcels'], exchanges['news']
app.conf.update(
    task_default_queue='both', broker_connection_retry_on_startup=True,
    task_queues=[Queue('both'), Queue('py.only'), Queue('go.only'),
                 Queue('py.direct', parcels, 'py'), Queue('go.direct', parcels, 'go'),
                 Queue('py.topic', news, 'py.#'), Queue('go.topic', news, 'go.#'),
                 Queue('py.fanout', exchanges['alarm.py']), Queue('go.fanout', exchanges['alarm.go'])])


@app.task(name='t.add')
def add(x, y=0):
    return x + y


@app.task(name='t.echo', typing=False)
def echo(*args, **kwargs):
    return [list(args), kwargs]


@app.task(name='t.fail')
def fail(text):
    raise ValueError(text, 17)


# Celery sends a retry before it stores RETRY. One that ends elsewhere in between
# stays in RETRY for good, and who waits for it waits for ever; so both take their time.
@app.task(name='t.again', bind=True, max_retries=3)
def again(self, until):
    if self.request.retries < until:
        raise self.retry(countdown=1)
    return until


@app.task(name='t.never', bind=True, max_retries=2)
def never(self, text):
    raise self.retry(exc=KeyError(text), countdown=1)


@app.task(name='t.progress', bind=True)
def progress(self, n):
    self.update_state(state='PROGRESS', meta={'done': n})
    while not os.path.exists(os.path.join(GATE, self.request.id)):  # noqa: F821
        time.sleep(0.02)
    return 'ready'


@app.task(name='t.late')
def late(eta):
    return time.time() >= eta


@app.task(name='t.nap')
def nap(seconds):
    time.sleep(seconds)
    return 'slept'


@app.task(name='t.hold')
def hold(dir, name):
    open(os.path.join(dir, name), 'w').close()
    while not os.path.exists(os.path.join(dir, 'end')):
        time.sleep(0.01)
    return 'held'


@app.task(name='t.failed')
def failed(uuid):
    return 'told of ' + uuid


def send(call):
    """Sends a row of the table."""
    o = dict(call['options'])
    if 'eta' in o:
        zone = timezone(timedelta(minutes=o.pop('zone', 0)))
        o['eta'] = datetime.fromtimestamp(o['eta'], tz=zone)
    if 'exchange' in o:  # kombu takes one that it has not declared for a direct one
        o['declare'] = [exchanges[o['exchange']]]
    for key in ('link', 'link_error'):
        if key in o:
            s = o[key]
            o[key] = app.signature(s['task'], task_id=s['id'], queue=s['queue'])
            if rpc:  # the callback's result goes to the worker that sends it, unless it carries whose it is
                o[key].freeze()
    calls[o['task_id']] = app.tasks[call['task']].apply_async(tuple(call['args'] or ()), call['kwargs'] or {}, **o)


rpc = RESULTS.startswith('rpc:')  # noqa: F821
calls = {}


def result(q):
    """The one of the call: over rpc a state reaches a single AsyncResult, once."""
    return calls.get(q['id'], app.AsyncResult(q['id'])) if rpc else app.AsyncResult(q['id'])


def outcome(q):
    r = result(q)
    if rpc:  # as get does; but get waits a second for more even if the result is there
        app.backend.add_pending_result(r)
    try:
        return {'result': r.get(timeout=60), 'state': r.state}
    except Exception as e:
        return {'state': r.state, 'type': type(e).__name__, 'module': type(e).__module__, 'args': list(e.args),
                'traced': bool(r.traceback)}


def progressed(q):
    """Waits for the state PROGRESS and tells its information."""
    r = result(q)
    if rpc:  # who has waited once sees no states by polling, but is told of each while it waits
        states = []
        r.get(timeout=60, on_message=states.append)
        return [m['result'] for m in states if m['status'] == 'PROGRESS'][0]
    end = time.time() + 60
    while time.time() < end:
        if r.state == 'PROGRESS':
            return r.info
        time.sleep(0.02)
    raise RuntimeError('the state is %s' % r.state)


def peek(q):
    return app.AsyncResult(q['id']).state


def inspect(q):
    return getattr(app.control.inspect(q['to'], timeout=20, limit=len(q['to'])), q['method'])()


def control(q):
    return getattr(app.control, q['method'])(*q['args'], **q['kwargs'])


def serve():
    """Does what each line of the input asks for."""
    for line in sys.stdin:
        q = json.loads(line)
        try:
            answer = {'ok': globals()[q['do']](q['with'])}
        except Exception as e:
            answer = {'error': ''.join(traceback.format_exception_only(type(e), e))}
        print(json.dumps(answer), flush=True)
