"""Python's pika against whatever listens on AMQP_PORT. See ../README.md."""

import os
import sqlite3
import ssl
import sys
import tempfile
import threading
import time
import traceback

import pika
from pika.exceptions import (
    AuthenticationError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    NackError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    UnroutableError,
)

VHOST = os.environ["AMQP_VHOST"]
PATIENCE = 20


def encrypted():
    """TLS, if AMQP_CA names the authority to trust."""
    if ca := os.environ.get("AMQP_CA"):
        return pika.SSLOptions(ssl.create_default_context(cafile=ca), os.environ["AMQP_HOST"])
    return None


def parameters(user="guest", password="guest", vhost=VHOST, **more):
    return pika.ConnectionParameters(
        host=os.environ["AMQP_HOST"],
        port=int(os.environ["AMQP_PORT"]),
        virtual_host=vhost,
        credentials=pika.PlainCredentials(user, password),
        blocked_connection_timeout=PATIENCE,
        socket_timeout=PATIENCE,
        ssl_options=encrypted(),
        **more,
    )


def connect(**more):
    return pika.BlockingConnection(parameters(**more))


def with_id(message_id, **more):
    return pika.BasicProperties(message_id=message_id, **more)


def expect(got, wanted):
    assert got == wanted, f"expected {wanted!r}, got {got!r}"


def refused(kind, code, act):
    try:
        act()
    except kind as closed:
        expect(closed.reply_code, code)
        return closed.reply_text
    raise AssertionError(f"{code} expected, nothing happened")


def drain(channel, queue):
    bodies = []
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return bodies
        bodies.append(body)


class Scene:
    """A connection, a confirming channel and an empty queue named after the scenario."""

    def __init__(self, name, confirm=True, **more):
        self.connection = connect(**more)
        self.channel = self.connection.channel()
        if confirm:
            self.channel.confirm_delivery()
        self.queue = "pika-" + name
        self.channel.queue_declare(self.queue, durable=True)

    def publish(self, body, message_id=None, mandatory=False, key=None, exchange="", **more):
        self.channel.basic_publish(
            exchange, self.queue if key is None else key, body, with_id(message_id, **more), mandatory
        )

    def drain(self):
        return drain(self.channel, self.queue)


# --- base


def server_properties():
    connection = connect()
    properties = connection._impl.server_properties
    expect(properties["product"], "RabbitMQ")
    for capability in ["publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked"]:
        expect(properties["capabilities"][capability], True)
    expect(connection.publisher_confirms_supported, True)
    connection.close()


def publish_without_confirms():
    scene = Scene("plain", confirm=False)
    for number in range(100):
        scene.publish(b"%d" % number, "plain-%d" % number)
    expect(scene.drain(), [b"%d" % number for number in range(100)])
    scene.connection.close()


def publish_with_confirms():
    scene = Scene("confirms")
    for number in range(100):
        scene.publish(b"%d" % number, "confirms-%d" % number)
    expect(scene.drain(), [b"%d" % number for number in range(100)])
    scene.connection.close()


def mandatory_is_returned_then_acked():
    scene = Scene("mandatory")
    try:
        scene.publish(b"lost", "mandatory-1", mandatory=True, key="no-such-queue")
        raise AssertionError("not returned")
    except UnroutableError as unroutable:
        expect(unroutable.messages[0].method.reply_code, 312)
        expect(unroutable.messages[0].body, b"lost")
    scene.publish(b"found", "mandatory-2", mandatory=True)
    expect(scene.drain(), [b"found"])
    scene.connection.close()


def nack_when_the_queue_is_full():
    scene = Scene("full")
    scene.channel.queue_declare(
        "pika-full-1", durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    scene.publish(b"1", "full-1", key="pika-full-1")
    try:
        scene.publish(b"2", "full-2", key="pika-full-1")
        raise AssertionError("not nacked")
    except NackError:
        pass
    scene.connection.close()


def tx_commit_and_rollback():
    scene = Scene("tx", confirm=False)
    scene.channel.tx_select()
    scene.publish(b"committed", "tx-1")
    scene.channel.tx_commit()
    scene.publish(b"rolled back", "tx-2")
    scene.channel.tx_rollback()
    expect(drain(scene.connection.channel(), scene.queue), [b"committed"])
    scene.connection.close()


def large_body():
    scene = Scene("large")
    body = os.urandom(1 << 20) * 16
    scene.publish(body, "large-1")
    assert scene.drain() == [body], "16 MB came back changed"
    scene.connection.close()


def empty_body():
    scene = Scene("empty")
    scene.publish(b"", "empty-1")
    scene.publish(b"", "empty-2")
    expect(scene.drain(), [b"", b""])
    scene.connection.close()


def all_properties_survive():
    scene = Scene("properties")
    sent = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={"text": "ä", "n": 7, "list": [1, "two", {"three": None}], "t": True, "big": 1 << 40},
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="properties-1",
        timestamp=1234567890,
        type="ty",
        user_id="guest",
        app_id="a",
        cluster_id="cl",
    )
    scene.channel.basic_publish("", scene.queue, b"x", sent)
    _, got, _ = scene.channel.basic_get(scene.queue, auto_ack=True)
    expect(vars(got), vars(sent))
    scene.connection.close()


def two_hundred_channels():
    scene = Scene("channels")
    channels = [scene.connection.channel() for _ in range(200)]
    for number, channel in enumerate(channels):
        channel.confirm_delivery()
        channel.basic_publish("", scene.queue, b"%d" % number, with_id("channels-%d" % number))
    expect(sorted(scene.drain()), sorted(b"%d" % number for number in range(200)))
    for channel in channels:
        channel.close()
    scene.connection.close()


def consume_ack_nack_reject():
    scene = Scene("consume")
    for body in [b"ack", b"nack", b"reject"]:
        scene.publish(body, "consume-" + body.decode())
    answered = []
    for method, _, body in scene.channel.consume(scene.queue, inactivity_timeout=PATIENCE):
        assert method is not None, f"nothing delivered after {answered}"
        if body == b"ack" or method.redelivered:
            scene.channel.basic_ack(method.delivery_tag)
        elif body == b"nack":
            scene.channel.basic_nack(method.delivery_tag, requeue=True)
        else:
            scene.channel.basic_reject(method.delivery_tag, requeue=False)
        answered.append((body, method.redelivered))
        if len(answered) == 4:
            break
    scene.channel.cancel()
    expect(sorted(answered), [(b"ack", False), (b"nack", False), (b"nack", True), (b"reject", False)])
    expect(scene.drain(), [])
    scene.connection.close()


def get_and_recover():
    scene = Scene("get")
    expect(scene.channel.basic_get(scene.queue), (None, None, None))
    scene.publish(b"got", "get-1")
    method, _, body = scene.channel.basic_get(scene.queue)
    expect((body, method.redelivered), (b"got", False))
    scene.channel.basic_recover(requeue=True)
    method, _, body = scene.channel.basic_get(scene.queue)
    expect((body, method.redelivered), (b"got", True))
    scene.channel.basic_ack(method.delivery_tag)
    scene.connection.close()


def qos_and_cancel():
    scene = Scene("qos")
    for number in range(5):
        scene.publish(b"%d" % number, "qos-%d" % number)
    channel = scene.connection.channel()
    channel.basic_qos(prefetch_count=2)
    seen = []
    tag = channel.basic_consume(scene.queue, lambda _, method, __, body: seen.append(method.delivery_tag))
    while len(seen) < 2:
        scene.connection.process_data_events(time_limit=PATIENCE)
    # The count of what is ready says that the other three stayed where they were.
    expect(scene.channel.queue_declare(scene.queue, passive=True).method.message_count, 3)
    channel.basic_ack(seen[-1], multiple=True)
    while len(seen) < 4:
        scene.connection.process_data_events(time_limit=PATIENCE)
    channel.basic_cancel(tag)
    channel.close()
    expect(len(scene.drain()), 3)
    scene.connection.close()


def broker_cancels_a_consumer():
    scene = Scene("cancelled")
    cancelled = []
    scene.channel.add_on_cancel_callback(cancelled.append)
    scene.channel.basic_consume(scene.queue, lambda *_: None)
    connect_and_delete = connect()
    connect_and_delete.channel().queue_delete(scene.queue)
    connect_and_delete.close()
    while not cancelled:
        scene.connection.process_data_events(time_limit=PATIENCE)
    scene.connection.close()


def direct_reply_to():
    scene = Scene("rpc")
    replies = []
    scene.channel.basic_consume(
        "amq.rabbitmq.reply-to", lambda _, __, ___, body: replies.append(body), auto_ack=True
    )
    scene.publish(b"question", "rpc-1", reply_to="amq.rabbitmq.reply-to")
    server = connect()
    channel = server.channel()
    _, properties, body = channel.basic_get(scene.queue, auto_ack=True)
    channel.basic_publish("", properties.reply_to, body + b" answered", with_id("rpc-2"))
    server.close()
    while not replies:
        scene.connection.process_data_events(time_limit=PATIENCE)
    expect(replies, [b"question answered"])
    scene.connection.close()


def exclusive_queue():
    owner = connect()
    name = owner.channel().queue_declare("", exclusive=True).method.queue
    other = connect()
    text = refused(ChannelClosedByBroker, 405, lambda: other.channel().queue_declare(name, passive=True))
    assert text.startswith("RESOURCE_LOCKED"), text
    owner.close()
    # Gone with its owner, at once.
    refused(ChannelClosedByBroker, 404, lambda: other.channel().queue_declare(name, passive=True))
    other.close()


def channel_closed_403_access_refused():
    Scene("rights").connection.close()
    reader = connect(user="reader", password="reader")
    channel = reader.channel()
    channel.confirm_delivery()
    text = refused(
        ChannelClosedByBroker, 403, lambda: channel.basic_publish("", "pika-rights", b"x", with_id("rights-1"))
    )
    assert text.startswith("ACCESS_REFUSED"), text
    # The connection lives on.
    reader.channel().close()
    reader.close()


def channel_closed_404_no_exchange():
    scene = Scene("no-exchange")
    text = refused(
        ChannelClosedByBroker, 404, lambda: scene.publish(b"x", "404-1", exchange="no-such-exchange")
    )
    assert text.startswith("NOT_FOUND - no exchange 'no-such-exchange'"), text
    expect(scene.channel.is_closed, True)
    scene.channel = scene.connection.channel()
    scene.channel.confirm_delivery()
    scene.publish(b"y", "404-2")
    expect(scene.drain(), [b"y"])
    scene.connection.close()


def channel_closed_406_inequivalent_argument():
    scene = Scene("inequivalent")
    text = refused(
        ChannelClosedByBroker, 406, lambda: scene.channel.queue_declare(scene.queue, durable=False)
    )
    assert text.startswith("PRECONDITION_FAILED - inequivalent arg 'durable'"), text
    scene.connection.close()


def connection_closed_530_vhost_not_allowed():
    try:
        connect(vhost=os.environ["AMQP_CLOSED_VHOST"])
    except ConnectionClosedByBroker as closed:
        expect(closed.reply_code, 530)
    except ProbableAccessDeniedError as denied:
        assert "530" in str(denied), denied
    else:
        raise AssertionError("let in")


def wrong_password():
    try:
        connect(password="wrong")
    except (ConnectionClosedByBroker, ProbableAuthenticationError, AuthenticationError) as refusal:
        assert "403" in str(refusal) and "ACCESS_REFUSED" in str(refusal), refusal
    else:
        raise AssertionError("let in")


def update_secret():
    connection = connect()
    done = threading.Event()
    connection._impl.update_secret("guest", "renewed", callback=lambda _: done.set())
    while not done.is_set():
        connection.process_data_events(time_limit=PATIENCE)
    connection.channel().close()
    connection.close()


def heartbeat_while_only_one_id_flows():
    scene = Scene("heartbeat", heartbeat=2)
    end = time.monotonic() + 7
    while time.monotonic() < end:
        scene.publish(b"again", "heartbeat-1")
        scene.connection.process_data_events(time_limit=0.1)
    scene.publish(b"last", "heartbeat-2")
    bodies = scene.drain()
    expect((bodies[0], bodies[-1]), (b"again", b"last"))
    scene.connection.close()


def heartbeat_while_nothing_flows():
    connection = connect(heartbeat=2)
    end = time.monotonic() + 7
    while time.monotonic() < end:
        connection.process_data_events(time_limit=end - time.monotonic())
    connection.channel().close()
    connection.close()


# --- dedup


def told_scene(name):
    """With an exchange whose duplicates the publisher is told of, as its name says."""
    scene = Scene(name)
    exchange = "pika-" + name
    scene.channel.exchange_declare(exchange, "fanout")
    scene.channel.queue_bind(scene.queue, exchange)
    return scene, exchange


def duplicate_raises_a_nack_error():
    scene, exchange = told_scene("nacks")
    scene.publish(b"x", "told", exchange=exchange)
    try:
        scene.publish(b"x", "told", exchange=exchange)
        raise AssertionError("not nacked")
    except NackError:
        pass
    expect(scene.drain(), [b"x"])
    scene.connection.close()


def duplicate_raises_an_unroutable_error_with_319():
    scene, exchange = told_scene("returns")
    scene.publish(b"x", "told", exchange=exchange)
    try:
        scene.publish(b"x", "told", exchange=exchange, type="again")
        raise AssertionError("not returned")
    except UnroutableError as told:
        (message,) = told.messages
        expect((message.method.reply_code, message.method.reply_text), (319, "DUPLICATE"))
        expect((message.method.exchange, message.body), (exchange, b"x"))
        expect((message.properties.message_id, message.properties.type), ("told", "again"))
    scene.publish(b"y", "another", exchange=exchange)
    expect(scene.drain(), [b"x", b"y"])
    scene.connection.close()


def duplicate_is_acked_and_not_stored():
    scene = Scene("duplicate")
    for _ in range(3):
        scene.publish(b"once", "duplicate-1")
    other = Scene("duplicate")
    other.publish(b"once", "duplicate-1")
    other.connection.close()
    expect(scene.drain(), [b"once"])
    scene.connection.close()


def duplicate_without_confirms_is_not_stored():
    scene = Scene("shadow", confirm=False)
    for number in range(50):
        scene.publish(b"%d" % number, "shadow-%d" % number)
        scene.publish(b"%d" % number, "shadow-%d" % number)
    expect(scene.drain(), [b"%d" % number for number in range(50)])
    scene.connection.close()


def same_id_to_two_queues_is_two_messages():
    first, second = Scene("two-1"), Scene("two-2")
    for scene in first, second, first, second:
        scene.publish(b"x", "two")
    expect((first.drain(), second.drain()), ([b"x"], [b"x"]))
    first.connection.close()
    second.connection.close()


def without_an_id_nothing_is_taken_out():
    scene = Scene("no-id")
    for message_id in [None, None, "", ""]:
        scene.publish(b"x", message_id)
    expect(scene.drain(), [b"x"] * 4)
    scene.connection.close()


def duplicate_with_mandatory_is_a_plain_ack():
    scene = Scene("mandatory-again")
    scene.publish(b"x", "mandatory-again", mandatory=True)
    scene.channel.queue_delete(scene.queue)
    # Raises UnroutableError if it is returned.
    scene.publish(b"x", "mandatory-again", mandatory=True)
    scene.connection.close()


def returned_then_bound_then_retry_is_delivered():
    scene = Scene("returned")
    try:
        scene.publish(b"x", "returned-1", mandatory=True, key="pika-returned-later")
        raise AssertionError("not returned")
    except UnroutableError:
        pass
    scene.channel.queue_declare("pika-returned-later", durable=True)
    scene.publish(b"x", "returned-1", mandatory=True, key="pika-returned-later")
    expect(drain(scene.channel, "pika-returned-later"), [b"x"])
    scene.connection.close()


def rollback_then_retry_is_delivered():
    scene = Scene("rollback", confirm=False)
    scene.channel.tx_select()
    scene.publish(b"x", "rollback-1")
    scene.channel.tx_rollback()
    scene.publish(b"x", "rollback-1")
    scene.channel.tx_commit()
    scene.publish(b"x", "rollback-1")
    scene.publish(b"y", "rollback-2")
    scene.channel.tx_commit()
    expect(drain(scene.connection.channel(), scene.queue), [b"x", b"y"])
    scene.connection.close()


# --- blocked


def blocked_and_unblocked():
    scene = Scene("blocked")
    heard = []
    scene.connection.add_on_connection_blocked_callback(lambda *_: heard.append("blocked"))
    scene.connection.add_on_connection_unblocked_callback(lambda *_: heard.append("unblocked"))
    scene.publish(b"before", "blocked-1")
    ask("alarm on")
    publisher = connect()
    publisher_channel = publisher.channel()
    # The broker says "blocked" to whoever publishes; without confirms this returns at once.
    publisher_channel.basic_publish("", scene.queue, b"during", with_id("blocked-2"))
    publisher.add_on_connection_blocked_callback(lambda *_: heard.append("blocked"))
    publisher.add_on_connection_unblocked_callback(lambda *_: heard.append("unblocked"))
    while heard.count("blocked") < 1:
        publisher.process_data_events(time_limit=PATIENCE)
    ask("alarm off")
    while heard.count("unblocked") < 1:
        publisher.process_data_events(time_limit=PATIENCE)
    publisher.close()
    expect(scene.drain(), [b"before", b"during"])
    scene.connection.close()


# --- guard


class Worker:
    """Writes each job to a database, and acks it."""

    def __init__(self, queue, database, dies_at=None):
        self.database, self.dies_at, self.count = database, dies_at, 0
        self.connection = connect()
        self.channel = self.connection.channel()
        self.channel.basic_qos(prefetch_count=3)
        self.channel.basic_consume(queue, self.work)

    def work(self, channel, method, properties, body):
        self.count += 1
        if self.count == self.dies_at:
            # Killed before its work: it says nothing more.
            raise ConnectionResetError
        with sqlite3.connect(self.database) as database:
            database.execute("INSERT INTO jobs VALUES (?)", (properties.message_id,))
        channel.basic_ack(method.delivery_tag)

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.connection.process_data_events(time_limit=0.1)


def work_until_killed():
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
    from effects import Effects

    effects = Effects()

    def work(channel, method, properties, _):
        effects.work(properties.message_id)
        channel.basic_ack(method.delivery_tag)

    channel = connect().channel()
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(os.environ["JOBS_QUEUE"], work)
    channel.start_consuming()


def jobs_are_written_once():
    scene = Scene("jobs")
    queue = "jobs-pika"
    scene.channel.queue_declare(queue, durable=True)
    ids = [f"job-{n}" for n in range(40)]
    for message_id in ids + ids:
        # There is no window, so both copies are stored.
        scene.channel.basic_publish("", queue, b"work", with_id(message_id))
    with tempfile.TemporaryDirectory() as folder:
        database = os.path.join(folder, "jobs.db")
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE jobs (id TEXT)")
        worker = Worker(queue, database, dies_at=11)
        try:
            worker.run(PATIENCE)
            raise AssertionError("the first worker did not die")
        except (ConnectionResetError, pika.exceptions.AMQPError):
            pass
        others = [Worker(queue, database), Worker(queue, database)]
        end = time.monotonic() + PATIENCE
        worker.connection.close()
        while time.monotonic() < end and scene.channel.queue_declare(queue, passive=True).method.message_count:
            for other in others:
                other.run(0.1)
        for other in others:
            other.run(0.2)
        with sqlite3.connect(database) as connection:
            rows = [row[0] for row in connection.execute("SELECT id FROM jobs ORDER BY rowid")]
        expect(sorted(rows), sorted(ids))
        expect(scene.channel.queue_declare(queue, passive=True).method.message_count, 0)
        for other in others:
            other.connection.close()
    scene.connection.close()


def ask(what):
    print("?", what, flush=True)
    assert sys.stdin.readline(), "nobody answers"


GROUPS = {
    "base": [
        server_properties,
        publish_without_confirms,
        publish_with_confirms,
        mandatory_is_returned_then_acked,
        nack_when_the_queue_is_full,
        tx_commit_and_rollback,
        large_body,
        empty_body,
        all_properties_survive,
        two_hundred_channels,
        consume_ack_nack_reject,
        get_and_recover,
        qos_and_cancel,
        broker_cancels_a_consumer,
        direct_reply_to,
        exclusive_queue,
        channel_closed_403_access_refused,
        channel_closed_404_no_exchange,
        channel_closed_406_inequivalent_argument,
        connection_closed_530_vhost_not_allowed,
        wrong_password,
        update_secret,
        heartbeat_while_only_one_id_flows,
        heartbeat_while_nothing_flows,
    ],
    "dedup": [
        duplicate_is_acked_and_not_stored,
        duplicate_without_confirms_is_not_stored,
        same_id_to_two_queues_is_two_messages,
        without_an_id_nothing_is_taken_out,
        duplicate_with_mandatory_is_a_plain_ack,
        returned_then_bound_then_retry_is_delivered,
        rollback_then_retry_is_delivered,
        duplicate_raises_a_nack_error,
        duplicate_raises_an_unroutable_error_with_319,
    ],
    "guard": [jobs_are_written_once],
    "worker": [work_until_killed],
    "blocked": [blocked_and_unblocked],
}


def main():
    group, only = sys.argv[1], sys.argv[2:]
    good = True
    for scenario in GROUPS[group]:
        if only and scenario.__name__ not in only:
            continue
        try:
            scenario()
            print("ok", scenario.__name__, flush=True)
        except Exception as error:
            good = False
            traceback.print_exc()
            print("not ok", scenario.__name__, repr(error).replace("\n", " "), flush=True)
    sys.exit(not good)


main()
