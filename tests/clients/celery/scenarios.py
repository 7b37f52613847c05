"""Python's Celery against whatever listens on AMQP_PORT: tasks that retry themselves, and tasks that are sent twice. See ../README.md."""

import os
import sys
import threading
import traceback
from collections import Counter
from contextlib import contextmanager

from celery import Celery
from celery.contrib.testing.worker import start_worker
from kombu import Connection

URL = "amqp://guest:guest@{AMQP_HOST}:{AMQP_PORT}/{AMQP_VHOST}".format(**os.environ)
PATIENCE = 20
QUEUE = "celery-tasks"

app = Celery("hapax", broker=URL)
app.conf.update(
    broker_connection_retry_on_startup=False,
    broker_heartbeat=0,
    broker_transport_options={"confirm_publish": True},
    result_backend=None,
    task_ignore_result=True,
    task_acks_late=True,
    task_default_queue=QUEUE,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
)


def expect(got, wanted):
    assert got == wanted, f"expected {wanted!r}, got {got!r}"


class Seen:
    """What ran: a line for each attempt of a task."""

    def __init__(self):
        self.lines = []
        self.changed = threading.Condition()

    def note(self, *line):
        with self.changed:
            self.lines.append(line)
            self.changed.notify_all()

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.lines) >= count, PATIENCE), f"only {self.lines}"
            return Counter(self.lines)


seen = Seen()


@app.task(bind=True, name="take", max_retries=10)
def take(self, fails=0):
    """Fails so many times and then does it. Celery publishes the task again for each retry and acks the message that it had."""
    seen.note(self.request.id, self.request.retries)
    if self.request.retries < fails:
        raise self.retry(countdown=0)


@app.task(bind=True, name="replaced")
def replaced(self):
    seen.note(self.request.id, "replaced")
    raise self.replace(take.si())


@app.task(name="end")
def end():
    seen.note("end")


@app.task(name="job")
def job(number):
    EFFECTS.work(job.request.id)


def count(queue):
    with Connection(URL) as connection:
        return connection.default_channel.queue_declare(queue, passive=True).message_count


@contextmanager
def worker():
    """A worker in this process. It takes one task after the other, in the queue's order."""
    with start_worker(app, pool="solo", concurrency=1, perform_ping_check=False, without_heartbeat=True,
                      shutdown_timeout=PATIENCE):
        yield


def attempts(task_id, last):
    return {(task_id, retries): 1 for retries in range(last + 1)}


def each_retry_runs():
    for number in range(5):
        take.apply_async(kwargs={"fails": 4}, task_id=f"retries-{number}")
    expect(count(QUEUE), 5)
    with worker():
        got = seen.wait_for(25)
    wanted = {}
    for number in range(5):
        wanted |= attempts(f"retries-{number}", 4)
    expect(dict(got), wanted)


def replaced_task_runs():
    replaced.apply_async(task_id="replaced-1")
    with worker():
        got = seen.wait_for(2)
    expect(dict(got), {("replaced-1", "replaced"): 1, ("replaced-1", 0): 1})


def sent_twice_runs_once():
    for _ in range(3):
        for number in range(5):
            take.apply_async(kwargs={"fails": 2}, task_id=f"twice-{number}")
    expect(count(QUEUE), 5)
    with worker():
        seen.wait_for(15)
        # Once more, with ids and retries that have run. The task at the end runs after all that got through.
        for number in range(5):
            for retries in range(3):
                take.apply_async(kwargs={"fails": 2}, task_id=f"twice-{number}", retries=retries)
        end.apply_async(task_id="end")
        got = seen.wait_for(16)
    wanted = {("end",): 1}
    for number in range(5):
        wanted |= attempts(f"twice-{number}", 2)
    expect(dict(got), wanted)


EFFECTS = None


def publish_jobs():
    """Two copies of each task."""
    for number in 2 * list(range(int(os.environ["JOBS_FATE"]))):
        job.apply_async(args=[number], task_id=f"job-{number}", queue=os.environ["JOBS_QUEUE"])


def work_until_killed():
    global EFFECTS
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
    from effects import Effects

    # It acks a task at some time after it has run.
    EFFECTS = Effects(late_acks=True)
    app.conf.worker_prefetch_multiplier = 1
    app.worker_main(["worker", "--pool=solo", "--without-heartbeat", "--without-gossip", "--without-mingle",
                     "--loglevel=ERROR", "-Q", os.environ["JOBS_QUEUE"], "-n", f"w{os.getpid()}@%h"])


# What only a guard does, for `tests/relay/guard`: each runs alone.
JOBS = {"publish": publish_jobs, "worker": work_until_killed}

GROUPS = {"base": [each_retry_runs, replaced_task_runs], "dedup": [sent_twice_runs_once]}


def main():
    group, only = (sys.argv[1:] + [None])[:2]
    if group in JOBS:
        return JOBS[group]()
    good = True
    for scenario in GROUPS[group]:
        if only not in (None, scenario.__name__):
            continue
        try:
            with Connection(URL) as connection:
                connection.SimpleQueue(QUEUE).close()
            expect(count(QUEUE), 0)
            seen.lines.clear()
            scenario()
            expect(count(QUEUE), 0)
            print("ok", scenario.__name__, flush=True)
        except BaseException as error:
            good = False
            traceback.print_exc()
            print("not ok", scenario.__name__, repr(error).replace("\n", " "), flush=True)
    # A worker of a failed scenario holds nobody up.
    os._exit(0 if good else 1)


main()
