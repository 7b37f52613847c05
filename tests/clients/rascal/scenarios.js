// Node's Rascal against whatever listens on AMQP_PORT: what its recovery strategies publish again. See ../README.md.
'use strict';

const { BrokerAsPromised, withDefaultConfig } = require('rascal');
const amqp = require('amqplib');
const assert = require('node:assert/strict');

const env = process.env;
const vhost = env.AMQP_VHOST;
const PATIENCE = 20_000;

const within = (what, promise) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${PATIENCE} ms: ${what()}`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const ids = (count) => Array.from({ length: count }, (_, number) => `id-${number}`);

const fail = () => {
  throw new Error('not yet');
};

// Rascal with a topic exchange `in`, the queue `work`, the queue `later` that gives its messages back to `work` after 20 ms, and the queue
// `dead` for what is given up. All names begin with the scenario's.
class Scene {
  constructor(name) {
    this.of = (what) => `rascal-${name.slice(0, 40)}-${what}`;
  }

  async open() {
    const { of } = this;
    const to = (key) => ({ 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': key });
    const arguments_ = (table) => ({ options: { arguments: table } });
    const at = { hostname: env.AMQP_HOST, port: Number(env.AMQP_PORT), user: 'guest', password: 'guest', vhost };
    this.broker = await BrokerAsPromised.create(
      withDefaultConfig({
        vhosts: {
          [vhost]: {
            connection: { ...at, options: { heartbeat: 0 }, retry: false },
            exchanges: [of('in'), of('again')],
            queues: {
              [of('work')]: arguments_(to(of('dead'))),
              [of('later')]: arguments_({ ...to(of('work')), 'x-message-ttl': 20 }),
              [of('dead')]: arguments_({}),
            },
            bindings: [`${of('in')}[a.#] -> ${of('work')}`, `${of('again')}[#] -> ${of('later')}`],
          },
        },
        publications: {
          exchange: { vhost, exchange: of('in'), routingKey: 'a.b' },
          queue: { vhost, queue: of('work') },
          again: { vhost, exchange: of('again') },
        },
        subscriptions: { work: { vhost, queue: of('work') }, dead: { vhost, queue: of('dead') } },
      }),
    );
    this.broker.on('error', (error) => console.error(error));
  }

  // Publishes some ids, each `times` times, as a publisher that tries again after its ack. Each try is acked.
  async publish(publication, count, times = 1) {
    for (const id of ids(count)) {
      for (let time = 0; time < times; time++) {
        const sent = await this.broker.publish(publication, `body of ${id}`, { options: { messageId: id } });
        const acked = new Promise((resolve, reject) => {
          sent.on('success', resolve).on('error', reject).on('return', () => reject(new Error(`${id} was returned`)));
        });
        await within(() => `the ack of ${id}`, acked);
      }
    }
  }

  // Consumes until each of `count` ids is done: taken by `handle(attempt)`, which is called for each delivery, or given up and found in
  // `dead`. What `handle` throws goes to the recovery strategies. Then all queues are empty.
  async consume(count, recovery, handle) {
    const [attempts, done] = [{}, []];
    let finished;
    const all = new Promise((resolve) => (finished = resolve));
    const finish = (end) => done.push(end) >= count && finished();
    const subscribe = async (name, each) => {
      const subscription = await this.broker.subscribe(name);
      return subscription.on('message', each).on('error', (error) => console.error(error));
    };
    const work = await subscribe('work', (message, content, ackOrNack) => {
      const id = message.properties.messageId;
      attempts[id] = (attempts[id] ?? 0) + 1;
      try {
        assert.equal(String(content), `body of ${id}`);
        handle(attempts[id]);
        ackOrNack();
        finish(`${id} done`);
      } catch (error) {
        ackOrNack(error, recovery);
      }
    });
    const dead = await subscribe('dead', (message, content, ackOrNack) => {
      ackOrNack();
      finish(`${message.properties.messageId} dead`);
    });
    await within(() => `${count} ids; done: ${done.join(', ')}; attempts: ${JSON.stringify(attempts)}`, all);
    await work.cancel();
    await dead.cancel();
    await this.broker.shutdown();
    await this.isEmpty();
    return { attempts, done: done.sort() };
  }

  async isEmpty() {
    const url = `amqp://guest:guest@${env.AMQP_HOST}:${env.AMQP_PORT}/${vhost}?heartbeat=0`;
    const connection = await amqp.connect(url);
    const channel = await connection.createChannel();
    for (const queue of ['work', 'later', 'dead'])
      assert.equal((await channel.checkQueue(this.of(queue))).messageCount, 0, `messages are left in ${queue}`);
    await connection.close();
  }
}

// Each id is taken, or given up, after this many attempts.
const ended = (count, end, attempts) => ({
  attempts: Object.fromEntries(ids(count).map((id) => [id, attempts])),
  done: ids(count).map((id) => `${id} ${end}`),
});

const republish = (attempts) => [{ strategy: 'republish', attempts }];

// `republish` publishes to the default exchange with the queue's name as routing key, and acks the first message when the copy is acked.
const base = {
  async republished_and_done_at_the_last_attempt(at) {
    await at.publish('queue', 10);
    const seen = await at.consume(10, republish(5), (attempt) => attempt < 6 && fail());
    assert.deepEqual(seen, ended(10, 'done', 6));
  },

  async published_to_an_exchange_and_republished_to_the_queue(at) {
    await at.publish('exchange', 10);
    const seen = await at.consume(10, republish(5), (attempt) => attempt < 6 && fail());
    assert.deepEqual(seen, ended(10, 'done', 6));
  },

  async given_up_after_its_attempts_and_dead_lettered_once(at) {
    await at.publish('exchange', 5);
    assert.deepEqual(await at.consume(5, republish(3), fail), ended(5, 'dead', 4));
  },

  async forwarded_to_a_queue_that_gives_it_back_later(at) {
    await at.publish('exchange', 5);
    const recovery = [{ strategy: 'forward', publication: 'again', attempts: 4 }];
    const seen = await at.consume(5, recovery, (attempt) => attempt < 5 && fail());
    assert.deepEqual(seen, ended(5, 'done', 5));
  },

  // `xDeathFix` takes the header x-death away, so nothing but Rascal's own headers tells the attempts apart.
  async forwarded_later_without_its_deaths(at) {
    await at.publish('exchange', 5);
    const recovery = [{ strategy: 'forward', publication: 'again', attempts: 4, xDeathFix: true }];
    const seen = await at.consume(5, recovery, (attempt) => attempt < 5 && fail());
    assert.deepEqual(seen, ended(5, 'done', 5));
  },
};

// The publisher tries three times. One message is stored, and that one survives all its attempts.
const retried = (publication) => async (at) => {
  await at.publish(publication, 10, 3);
  const seen = await at.consume(10, republish(3), (attempt) => attempt < 4 && fail());
  assert.deepEqual(seen, ended(10, 'done', 4));
};

const dedup = {
  retries_to_the_queue_are_gone_and_republished_messages_are_not: retried('queue'),
  retries_to_the_exchange_are_gone_and_republished_messages_are_not: retried('exchange'),
};

const main = async () => {
  const [group, only] = process.argv.slice(2);
  for (const [name, scenario] of Object.entries({ base, dedup }[group])) {
    if (only && only !== name) continue;
    try {
      const at = new Scene(name);
      await at.open();
      await scenario(at);
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
