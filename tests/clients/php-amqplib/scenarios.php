<?php
// PHP's php-amqplib against whatever listens on AMQP_PORT. See ../README.md.
declare(strict_types=1);
error_reporting(E_ALL & ~E_DEPRECATED);
require 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

const PATIENCE = 20;

function expect(mixed $got, mixed $wanted): void
{
    if ($got !== $wanted) {
        throw new RuntimeException('expected ' . json_encode($wanted) . ', got ' . json_encode($got));
    }
}

/** A connection, a channel, and an empty queue named after the scenario. It counts what the broker says. */
final class Scene
{
    public AMQPStreamConnection $connection;
    public AMQPChannel $channel;
    public string $queue;
    /** @var list<string> */
    public array $told = [];

    public function __construct(string $name, public bool $confirm = true)
    {
        $this->connection = new AMQPStreamConnection(
            getenv('AMQP_HOST'), (int) getenv('AMQP_PORT'), 'guest', 'guest', getenv('AMQP_VHOST'),
            read_write_timeout: PATIENCE
        );
        $this->channel = $this->connection->channel();
        $this->queue = "php-amqplib-$name";
        $this->channel->queue_declare($this->queue, false, true, false, false);
        if ($confirm) {
            $this->channel->confirm_select();
            $this->channel->set_ack_handler(fn (AMQPMessage $message) => $this->told[] = 'ack ' . $message->getBody());
            $this->channel->set_nack_handler(fn (AMQPMessage $message) => $this->told[] = 'nack ' . $message->getBody());
            $this->channel->set_return_listener(
                fn ($code, $text, $exchange, $key, AMQPMessage $message) => $this->told[] = "return $code " . $message->getBody()
            );
        }
    }

    public static function message(string $body, string $id, array $properties = []): AMQPMessage
    {
        return new AMQPMessage($body, ['message_id' => $id] + $properties);
    }

    /** Publishes and returns what the broker has said to it. */
    public function publish(string $body, string $id, ?string $key = null, bool $mandatory = false): array
    {
        $this->channel->basic_publish(self::message($body, $id), '', $key ?? $this->queue, $mandatory);
        return $this->settle();
    }

    public function settle(): array
    {
        if ($this->confirm) {
            $this->channel->wait_for_pending_acks_returns(PATIENCE);
        }
        [$told, $this->told] = [$this->told, []];
        return $told;
    }

    /** @return list<string> */
    public function drain(?string $queue = null): array
    {
        $bodies = [];
        while (($message = $this->channel->basic_get($queue ?? $this->queue, true)) !== null) {
            $bodies[] = $message->getBody();
        }
        return $bodies;
    }

    public function close(): void
    {
        $this->channel->close();
        $this->connection->close();
    }
}

function numbers(int $count): array
{
    return array_map('strval', range(0, $count - 1));
}

$base = [
    'publish_with_confirms' => function () {
        $at = new Scene('confirms');
        foreach (numbers(100) as $number) {
            $at->channel->basic_publish(Scene::message($number, "confirms-$number"), '', $at->queue);
        }
        expect(count($at->settle()), 100);
        expect($at->drain(), numbers(100));
        $at->close();
    },

    'publish_batch_without_confirms' => function () {
        $at = new Scene('batch', false);
        foreach (numbers(100) as $number) {
            $at->channel->batch_basic_publish(Scene::message($number, "batch-$number"), '', $at->queue);
        }
        $at->channel->publish_batch();
        expect($at->drain(), numbers(100));
        $at->close();
    },

    'transactions' => function () {
        $at = new Scene('tx', false);
        $at->channel->tx_select();
        $at->publish('rolled back', 'tx-1');
        $at->channel->tx_rollback();
        $at->publish('committed', 'tx-1');
        $at->channel->tx_commit();
        expect($at->drain(), ['committed']);
        $at->channel->tx_commit();
        $at->close();
    },

    'mandatory_is_returned_then_acked' => function () {
        $at = new Scene('mandatory');
        expect($at->publish('lost', 'mandatory-1', 'no-such-queue', true), ['return 312 lost', 'ack lost']);
        $at->close();
    },

    'nacked_when_the_queue_is_full_and_stored_by_the_retry' => function () {
        $at = new Scene('full');
        $queue = 'php-amqplib-full-1';
        $bounds = new AMQPTable(['x-max-length' => 1, 'x-overflow' => 'reject-publish']);
        $at->channel->queue_declare($queue, false, true, false, false, false, $bounds);
        expect($at->publish('1', 'full-1', $queue), ['ack 1']);
        expect($at->publish('2', 'full-2', $queue), ['nack 2']);
        expect($at->drain($queue), ['1']);
        expect($at->publish('2', 'full-2', $queue), ['ack 2']);
        expect($at->drain($queue), ['2']);
        $at->close();
    },

    'properties_and_headers_survive' => function () {
        $at = new Scene('properties');
        $sent = [
            'content_type' => 'text/plain', 'delivery_mode' => 2, 'priority' => 3, 'correlation_id' => 'c', 'reply_to' => 'r',
            'expiration' => '60000', 'message_id' => 'properties-1', 'timestamp' => 1234567890, 'type' => 'ty', 'user_id' => 'guest',
            'app_id' => 'a',
        ];
        $headers = ['list' => [1, 'two'], 'n' => 7, 't' => true, 'text' => 'ä'];
        $at->channel->basic_publish(
            new AMQPMessage('x', $sent + ['application_headers' => new AMQPTable($headers)]), '', $at->queue
        );
        $at->settle();
        $message = $at->channel->basic_get($at->queue, true);
        foreach ($sent as $name => $value) {
            expect($message->get($name), $value);
        }
        $got = $message->get('application_headers')->getNativeData();
        ksort($got);
        expect($got, $headers);
        $at->close();
    },

    'channel_closed_404_no_exchange' => function () {
        $at = new Scene('no-exchange');
        try {
            $at->channel->basic_publish(Scene::message('x', '404-1'), 'no-such-exchange', 'k');
            $at->settle();
            throw new RuntimeException('404 expected, nothing happened');
        } catch (AMQPProtocolChannelException $closed) {
            expect($closed->amqp_reply_code, 404);
        }
        $at->connection->close();
    },

    // The usual retry by hand: the consumer publishes its message again with a count, and acks the one that it had.
    'consumer_publishes_its_messages_again' => function () {
        $at = new Scene('again');
        foreach (numbers(10) as $number) {
            $at->publish($number, "again-$number");
        }
        $done = [];
        $at->channel->basic_qos(0, 3, false);
        $at->channel->basic_consume($at->queue, '', false, false, false, false, function (AMQPMessage $message) use ($at, &$done) {
            $headers = $message->has('application_headers') ? $message->get('application_headers')->getNativeData() : [];
            $count = $headers['x-retry-count'] ?? 0;
            if ($count < 4) {
                $table = new AMQPTable(['x-retry-count' => $count + 1]);
                $copy = Scene::message($message->getBody(), $message->get('message_id'), ['application_headers' => $table]);
                $at->channel->basic_publish($copy, '', $at->queue);
            } else {
                $done[] = $message->getBody();
            }
            $message->ack();
        });
        while (count($done) < 10) {
            $at->channel->wait(null, false, PATIENCE);
        }
        sort($done);
        expect($done, numbers(10));
        expect($at->drain(), []);
        $at->close();
    },
];

/** A scene with an exchange whose duplicates the publisher is told of, as its name says; and a way to publish there. */
function told_scene(string $name): array
{
    $at = new Scene($name);
    $exchange = "php-amqplib-$name";
    $at->channel->exchange_declare($exchange, 'fanout', false, false, true);
    $at->channel->queue_bind($at->queue, $exchange);
    return [$at, function (string $body, string $id) use ($at, $exchange): array {
        $at->channel->basic_publish(Scene::message($body, $id), $exchange, 'k');
        return $at->settle();
    }];
}

$dedup = [
    'duplicate_is_nacked' => function () {
        [$at, $tell] = told_scene('nacks');
        expect($tell('x', 'told'), ['ack x']);
        expect($tell('x', 'told'), ['nack x']);
        expect($at->drain(), ['x']);
        $at->close();
    },

    'duplicate_is_returned_with_319_and_acked' => function () {
        [$at, $tell] = told_scene('returns');
        expect($tell('x', 'told'), ['ack x']);
        expect($tell('x', 'told'), ['return 319 x', 'ack x']);
        expect($at->drain(), ['x']);
        $at->close();
    },

    'retries_on_the_same_and_on_a_new_connection_are_acked_and_not_stored' => function () {
        $at = new Scene('duplicate');
        foreach ([1, 2, 3] as $_) {
            expect($at->publish('once', 'duplicate-1'), ['ack once']);
        }
        $other = new Scene('duplicate');
        expect($other->publish('once', 'duplicate-1'), ['ack once']);
        $other->close();
        expect($at->drain(), ['once']);
        $at->close();
    },

    'a_thousand_of_which_half_are_repeats' => function () {
        $at = new Scene('thousand');
        foreach (numbers(1000) as $number) {
            $at->channel->basic_publish(Scene::message('x', 'thousand-' . $number % 500), '', $at->queue);
        }
        expect(count($at->settle()), 1000);
        expect(count($at->drain()), 500);
        $at->close();
    },

    'repeats_in_a_batch_without_confirms_are_not_stored' => function () {
        $at = new Scene('shadow', false);
        foreach (numbers(50) as $number) {
            foreach ([1, 2] as $_) {
                $at->channel->batch_basic_publish(Scene::message($number, "shadow-$number"), '', $at->queue);
            }
        }
        $at->channel->publish_batch();
        expect($at->drain(), numbers(50));
        $at->close();
    },

    // The connection is gone before the ack was read: the publisher cannot know, and sends it again.
    'sent_again_because_its_ack_was_never_read' => function () {
        $at = new Scene('unread');
        $at->channel->basic_publish(Scene::message('x', 'unread-1'), '', $at->queue);
        $at->connection->getIO()->close();
        $again = new Scene('unread');
        expect($again->publish('x', 'unread-1'), ['ack x']);
        expect($again->drain(), ['x']);
        $again->close();
    },
];

[, $group] = $argv;
$only = $argv[2] ?? null;
$status = 0;
foreach (['base' => $base, 'dedup' => $dedup][$group] as $name => $scenario) {
    if ($only !== null && $only !== $name) {
        continue;
    }
    try {
        $scenario();
        echo "ok $name\n";
    } catch (Throwable $error) {
        $status = 1;
        fwrite(STDERR, "$error\n");
        echo "not ok $name ", str_replace("\n", ' ', $error->getMessage()), "\n";
    }
}
exit($status);
