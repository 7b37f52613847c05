// Node's amqplib against whatever listens on AMQP_PORT. See ../README.md.
'use strict';

const amqp = require('amqplib');
const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const { once } = require('node:events');
const readline = require('node:readline');

const env = process.env;
const PATIENCE = 20_000;

const connect = ({ user = 'guest', password = 'guest', vhost = env.AMQP_VHOST, heartbeat = 0 } = {}) =>
  amqp.connect(
    {
      protocol: env.AMQP_CA ? 'amqps' : 'amqp',
      hostname: env.AMQP_HOST,
      port: Number(env.AMQP_PORT),
      username: user,
      password,
      vhost,
      heartbeat,
    },
    // TLS, if AMQP_CA names the authority to trust.
    env.AMQP_CA ? { ca: [fs.readFileSync(env.AMQP_CA)], servername: env.AMQP_HOST } : {},
  );

// An event, or a failure that says which one did not come.
const event = async (emitter, name) => {
  try {
    return (await once(emitter, name, { signal: AbortSignal.timeout(PATIENCE) }))[0];
  } catch (error) {
    if (error.name === 'AbortError') throw new Error(`no '${name}' within ${PATIENCE} ms`);
    throw error;
  }
};

// A channel's close by the broker: its 'error', with the code.
const closedWith = async (code, channel, act) => {
  const error = once(channel, 'error', { signal: AbortSignal.timeout(PATIENCE) });
  Promise.resolve(act()).catch(() => {}); // whatever waits for an answer is told so too
  const [closed] = await error;
  assert.equal(closed.code, code, closed.message);
  return closed.message;
};

const drain = async (channel, queue) => {
  const bodies = [];
  for (;;) {
    const message = await channel.get(queue, { noAck: true });
    if (!message) return bodies;
    bodies.push(message.content.toString());
  }
};

// A connection, a confirming channel and an empty queue named after the scenario.
const scene = async (name, { confirm = true, ...more } = {}) => {
  const connection = await connect(more);
  const channel = await (confirm ? connection.createConfirmChannel() : connection.createChannel());
  const queue = `amqplib-${name}`;
  await channel.assertQueue(queue, { durable: true });
  const send = (body, messageId, { key = queue, exchange = '', ...options } = {}) =>
    new Promise((resolve, reject) => {
      const settled = confirm ? [(error) => (error ? reject(error) : resolve())] : [];
      channel.publish(exchange, key, Buffer.from(body), { messageId, ...options }, ...settled);
      if (!confirm) resolve();
    });
  return { connection, channel, queue, send, drain: () => drain(channel, queue), close: () => connection.close() };
};

const numbers = (count) => Array.from({ length: count }, (_, number) => String(number));

const base = {
  async server_properties() {
    const connection = await connect();
    const properties = connection.connection.serverProperties;
    assert.equal(properties.product, 'RabbitMQ');
    for (const name of ['publisher_confirms', 'basic.nack', 'consumer_cancel_notify', 'connection.blocked'])
      assert.equal(properties.capabilities[name], true, name);
    await connection.close();
  },

  async publish_without_confirms() {
    const at = await scene('plain', { confirm: false });
    for (const number of numbers(100)) at.send(number, `plain-${number}`);
    assert.deepEqual(await at.drain(), numbers(100));
    await at.close();
  },

  async publish_with_confirms() {
    const at = await scene('confirms');
    await Promise.all(numbers(100).map((number) => at.send(number, `confirms-${number}`)));
    assert.deepEqual(await at.drain(), numbers(100));
    await at.close();
  },

  async wait_for_confirms() {
    const at = await scene('wait');
    for (const number of numbers(100)) at.channel.sendToQueue(at.queue, Buffer.from(number), { messageId: `w${number}` });
    await at.channel.waitForConfirms();
    assert.equal((await at.channel.checkQueue(at.queue)).messageCount, 100);
    await at.channel.purgeQueue(at.queue);
    await at.close();
  },

  async mandatory_is_returned_then_acked() {
    const at = await scene('mandatory');
    const order = [];
    at.channel.on('return', (message) => order.push(message));
    await at.send('lost', 'mandatory-1', { mandatory: true, key: 'no-such-queue' });
    assert.equal(order.length, 1, 'returned before it was acked');
    assert.equal(order[0].fields.replyCode, 312);
    assert.equal(order[0].content.toString(), 'lost');
    await at.close();
  },

  async nack_when_the_queue_is_full() {
    const at = await scene('full');
    const key = 'amqplib-full-1';
    await at.channel.assertQueue(key, { arguments: { 'x-max-length': 1, 'x-overflow': 'reject-publish' } });
    await at.send('1', 'full-1', { key });
    await assert.rejects(at.send('2', 'full-2', { key }));
    await at.close();
  },

  async large_body() {
    const at = await scene('large');
    const body = crypto.randomBytes(16 << 20);
    await at.send(body, 'large-1');
    const message = await at.channel.get(at.queue, { noAck: true });
    assert.ok(message.content.equals(body), '16 MB came back changed');
    await at.close();
  },

  async empty_body() {
    const at = await scene('empty');
    await at.send('', 'empty-1');
    await at.send('', 'empty-2');
    assert.deepEqual(await at.drain(), ['', '']);
    await at.close();
  },

  async all_properties_survive() {
    const at = await scene('properties');
    const sent = {
      contentType: 'text/plain',
      contentEncoding: 'utf-8',
      headers: { text: 'ä', n: 7, list: [1, 'two', { three: null }], t: true, f: 1.5 },
      deliveryMode: 2,
      priority: 3,
      correlationId: 'c',
      replyTo: 'r',
      expiration: '60000',
      messageId: 'properties-1',
      timestamp: 1234567890,
      type: 'ty',
      userId: 'guest',
      appId: 'a',
    };
    await at.send('x', 'properties-1', sent);
    const { properties } = await at.channel.get(at.queue, { noAck: true });
    for (const [name, value] of Object.entries(sent)) assert.deepEqual(properties[name], value, name);
    await at.close();
  },

  async two_hundred_channels() {
    const at = await scene('channels');
    const channels = await Promise.all(numbers(200).map(() => at.connection.createConfirmChannel()));
    await Promise.all(
      channels.map(async (channel, number) => {
        channel.sendToQueue(at.queue, Buffer.from(String(number)), { messageId: `channels-${number}` });
        await channel.waitForConfirms();
      }),
    );
    assert.deepEqual((await at.drain()).sort(), numbers(200).sort());
    await Promise.all(channels.map((channel) => channel.close()));
    await at.close();
  },

  async consume_ack_nack_reject() {
    const at = await scene('consume');
    for (const body of ['ack', 'nack', 'reject']) await at.send(body, `consume-${body}`);
    const answered = [];
    let done;
    const all = new Promise((resolve) => (done = resolve));
    const { consumerTag } = await at.channel.consume(at.queue, (message) => {
      const body = message.content.toString();
      answered.push(`${body} ${message.fields.redelivered}`);
      if (body === 'ack' || message.fields.redelivered) at.channel.ack(message);
      else if (body === 'nack') at.channel.nack(message);
      else at.channel.reject(message, false);
      if (answered.length === 4) done();
    });
    await all;
    await at.channel.cancel(consumerTag);
    assert.deepEqual(answered.sort(), ['ack false', 'nack false', 'nack true', 'reject false']);
    assert.deepEqual(await at.drain(), []);
    await at.close();
  },

  async get_and_recover() {
    const at = await scene('get');
    assert.equal(await at.channel.get(at.queue), false);
    await at.send('got', 'get-1');
    assert.equal((await at.channel.get(at.queue)).fields.redelivered, false);
    await at.channel.recover();
    const again = await at.channel.get(at.queue);
    assert.equal(again.fields.redelivered, true);
    at.channel.ack(again);
    await at.close();
  },

  async qos_and_cancel() {
    const at = await scene('qos');
    await Promise.all(numbers(5).map((number) => at.send(number, `qos-${number}`)));
    const channel = await at.connection.createChannel();
    await channel.prefetch(2);
    let arrived;
    const messages = [];
    const some = (count) => new Promise((resolve) => (arrived = () => messages.length >= count && resolve())).then();
    let wait = some(2);
    const { consumerTag } = await channel.consume(at.queue, (message) => {
      messages.push(message);
      arrived();
    });
    await wait;
    assert.equal((await at.channel.checkQueue(at.queue)).messageCount, 3);
    wait = some(4);
    channel.ack(messages[1], true);
    await wait;
    await channel.cancel(consumerTag);
    await channel.close();
    assert.equal((await at.drain()).length, 3);
    await at.close();
  },

  async broker_cancels_a_consumer() {
    const at = await scene('cancelled');
    let cancelled;
    const told = new Promise((resolve) => (cancelled = resolve));
    await at.channel.consume(at.queue, (message) => message === null && cancelled());
    const other = await connect();
    await (await other.createChannel()).deleteQueue(at.queue);
    await told;
    await other.close();
    await at.close();
  },

  async direct_reply_to() {
    const at = await scene('rpc');
    let replied;
    const reply = new Promise((resolve) => (replied = resolve));
    await at.channel.consume('amq.rabbitmq.reply-to', (message) => replied(message.content.toString()), { noAck: true });
    await at.send('question', 'rpc-1', { replyTo: 'amq.rabbitmq.reply-to' });
    const server = await connect();
    const channel = await server.createChannel();
    const question = await channel.get(at.queue, { noAck: true });
    channel.sendToQueue(question.properties.replyTo, Buffer.from(`${question.content} answered`), { messageId: 'rpc-2' });
    assert.equal(await reply, 'question answered');
    await server.close();
    await at.close();
  },

  async exclusive_queue() {
    const owner = await connect();
    const { queue } = await (await owner.createChannel()).assertQueue('', { exclusive: true });
    const other = await connect();
    const locked = await other.createChannel();
    assert.match(await closedWith(405, locked, () => locked.checkQueue(queue)), /RESOURCE_LOCKED/);
    await owner.close();
    const gone = await other.createChannel();
    assert.match(await closedWith(404, gone, () => gone.checkQueue(queue)), /NOT_FOUND/);
    await other.close();
  },

  async channel_closed_403_access_refused() {
    const at = await scene('rights');
    const reader = await connect({ user: 'reader', password: 'reader' });
    const channel = await reader.createConfirmChannel();
    const act = () => channel.publish('', at.queue, Buffer.from('x'), { messageId: 'rights-1' }, () => {});
    assert.match(await closedWith(403, channel, act), /ACCESS_REFUSED/);
    await (await reader.createChannel()).close(); // the connection lives on
    await reader.close();
    await at.close();
  },

  async channel_closed_404_no_exchange() {
    const at = await scene('no-exchange');
    const act = () => at.send('x', '404-1', { exchange: 'no-such-exchange' });
    assert.match(await closedWith(404, at.channel, act), /no exchange 'no-such-exchange'/);
    await at.close();
  },

  async channel_closed_406_inequivalent_argument() {
    const at = await scene('inequivalent');
    const act = () => at.channel.assertQueue(at.queue, { durable: false });
    assert.match(await closedWith(406, at.channel, act), /inequivalent arg 'durable'/);
    await at.close();
  },

  async connection_closed_530_vhost_not_allowed() {
    await assert.rejects(connect({ vhost: env.AMQP_CLOSED_VHOST }), /got <ConnectionClose channel:0>/); // it shows no code
  },

  async wrong_password() {
    await assert.rejects(connect({ password: 'wrong' }), /403.*ACCESS_REFUSED/);
  },

  async update_secret() {
    const connection = await connect();
    const updated = event(connection, 'update-secret-ok');
    await connection.updateSecret(Buffer.from('guest'), 'renewed');
    await updated;
    await connection.close();
  },

  async heartbeat_while_only_one_id_flows() {
    const at = await scene('heartbeat', { heartbeat: 2 });
    // The confirms pace it; the deadline is what is tested.
    for (const end = performance.now() + 7_000; performance.now() < end; ) await at.send('again', 'heartbeat-1');
    await at.send('last', 'heartbeat-2');
    await at.channel.purgeQueue(at.queue);
    await at.close();
  },
};

// A scene with an exchange whose duplicates the publisher is told of, as its name says.
const toldScene = async (name) => {
  const at = await scene(name);
  const exchange = `amqplib-${name}`;
  await at.channel.assertExchange(exchange, 'fanout');
  await at.channel.bindQueue(at.queue, exchange, '');
  return { ...at, tell: (body, id) => at.send(body, id, { exchange, key: 'k' }), exchange };
};

const dedup = {
  async duplicate_rejects_with_a_nack() {
    const at = await toldScene('nacks');
    await at.tell('x', 'told');
    await assert.rejects(at.tell('x', 'told'), /nacked/);
    await at.tell('y', 'another');
    assert.deepEqual(await at.drain(), ['x', 'y']);
    await at.close();
  },

  async duplicate_is_a_return_event_with_319_before_its_ack() {
    const at = await toldScene('returns');
    const returned = [];
    at.channel.on('return', ({ fields, properties, content }) =>
      returned.push([fields.replyCode, fields.replyText, fields.exchange, fields.routingKey, properties.messageId, String(content)]));
    await Promise.all(['x', 'x', 'y'].map((id) => at.tell(id, id)));
    assert.deepEqual(returned, [[319, 'DUPLICATE', at.exchange, 'k', 'x', 'x']]);
    assert.deepEqual(await at.drain(), ['x', 'y']);
    await at.close();
  },

  async duplicate_is_acked_and_not_stored() {
    const at = await scene('duplicate');
    await Promise.all(numbers(10).map(() => at.send('once', 'duplicate-1')));
    const other = await scene('duplicate');
    await other.send('once', 'duplicate-1');
    await other.close();
    assert.deepEqual(await at.drain(), ['once']);
    await at.close();
  },

  async a_thousand_of_which_half_are_repeats() {
    const at = await scene('thousand');
    await Promise.all(numbers(1000).map((number) => at.send('x', `thousand-${number % 500}`)));
    assert.equal((await at.drain()).length, 500);
    await at.close();
  },

  async duplicate_without_confirms_is_not_stored() {
    const at = await scene('shadow', { confirm: false });
    for (const number of numbers(50)) for (const _ of [1, 2]) at.send(number, `shadow-${number}`);
    assert.deepEqual(await at.drain(), numbers(50));
    await at.close();
  },

  async same_id_to_two_queues_is_two_messages() {
    const [first, second] = [await scene('two-1'), await scene('two-2')];
    for (const at of [first, second, first, second]) await at.send('x', 'two');
    assert.deepEqual([await first.drain(), await second.drain()], [['x'], ['x']]);
    await first.close();
    await second.close();
  },

  async duplicate_with_mandatory_is_a_plain_ack() {
    const at = await scene('mandatory-again');
    at.channel.on('return', () => assert.fail('returned'));
    await at.send('x', 'mandatory-again', { mandatory: true });
    await at.channel.deleteQueue(at.queue);
    await at.send('x', 'mandatory-again', { mandatory: true });
    await at.close();
  },

  async returned_then_bound_then_retry_is_delivered() {
    const at = await scene('returned');
    const key = 'amqplib-returned-later';
    const returned = event(at.channel, 'return');
    await at.send('x', 'returned-1', { mandatory: true, key });
    await returned;
    await at.channel.assertQueue(key);
    await at.send('x', 'returned-1', { mandatory: true, key });
    assert.deepEqual(await drain(at.channel, key), ['x']);
    await at.close();
  },
};

const blocked = {
  async blocked_and_unblocked() {
    const at = await scene('blocked');
    await at.send('before', 'blocked-1');
    await ask('alarm on');
    const isBlocked = event(at.connection, 'blocked');
    const during = at.send('during', 'blocked-2');
    await isBlocked;
    const isUnblocked = event(at.connection, 'unblocked');
    await ask('alarm off');
    await isUnblocked;
    await during;
    assert.deepEqual(await at.drain(), ['before', 'during']);
    await at.close();
  },
};

// The effects of a worker: lines of a file. JOBS_FATE says at which delivery it is killed, amid its work ("amid:4") or after it ("done:4").
const worker = {
  async work_until_killed() {
    const channel = await (await connect()).createChannel();
    await channel.prefetch(1);
    let count = 0;
    await channel.consume(env.JOBS_QUEUE, (job) => {
      const id = job.properties.messageId;
      count += 1;
      const die = (how) => {
        if (`${how}:${count}` !== env.JOBS_FATE) return;
        fs.appendFileSync(`${env.JOBS_FOLDER}/deaths`, `${how} ${id}\n`);
        process.kill(process.pid, 'SIGKILL');
        for (;;);
      };
      die('amid');
      fs.appendFileSync(`${env.JOBS_FOLDER}/effects`, `${id}\n`);
      die('done');
      channel.ack(job);
    });
    await once(channel, 'close');
  },
};

const ask = async (what) => {
  console.log(`? ${what}`);
  const input = readline.createInterface({ input: process.stdin });
  await event(input, 'line');
  input.close();
};

const main = async () => {
  const [group, only] = process.argv.slice(2);
  for (const [name, scenario] of Object.entries({ base, dedup, worker, blocked }[group])) {
    if (only && only !== name) continue;
    try {
      await scenario();
      console.log(`ok ${name}`);
    } catch (error) {
      process.exitCode = 1;
      console.error(error);
      console.log(`not ok ${name} ${String(error).replaceAll('\n', ' ')}`);
    }
  }
  process.exit(); // an unclosed connection of a failed scenario holds nobody up
};

main();
