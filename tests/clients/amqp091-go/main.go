// Go's amqp091-go against whatever listens on AMQP_PORT. See ../README.md.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const patience = 20 * time.Second

type scenario struct {
	name string
	run  func()
}

// Scenarios panic with what is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(got, wanted interface{}) {
	if !reflect.DeepEqual(got, wanted) {
		panic(fmt.Sprintf("expected %v, got %v", wanted, got))
	}
}

type as struct {
	user, password, vhost string
	heartbeat             time.Duration
}

func dial(as as) (*amqp.Connection, error) {
	if as.user == "" {
		as.user, as.password = "guest", "guest"
	}
	if as.vhost == "" {
		as.vhost = os.Getenv("AMQP_VHOST")
	}
	if as.heartbeat == 0 {
		as.heartbeat = 30 * time.Second
	}
	address := net.JoinHostPort(os.Getenv("AMQP_HOST"), os.Getenv("AMQP_PORT"))
	return amqp.DialConfig("amqp://"+address, amqp.Config{
		SASL:      []amqp.Authentication{&amqp.PlainAuth{Username: as.user, Password: as.password}},
		Vhost:     as.vhost,
		Heartbeat: as.heartbeat,
		Locale:    "en_US",
	})
}

func connect() *amqp.Connection {
	connection, err := dial(as{})
	must(err)
	return connection
}

// A connection, a channel and an empty queue named after the scenario.
type scene struct {
	*amqp.Connection
	channel  *amqp.Channel
	queue    string
	confirms confirms
}

// The library hands confirmations out in the order of publishing. (Its deferred confirmations of 1.5.0 are registered
// after the message is sent: one whose ack is quicker waits forever.)
type confirms chan amqp.Confirmation

func confirming(channel *amqp.Channel) confirms {
	must(channel.Confirm(false))
	return channel.NotifyPublish(make(chan amqp.Confirmation, 1000))
}

// Whether the next publish was acked.
func (confirms confirms) next() bool {
	select {
	case confirmation, open := <-confirms:
		if !open {
			panic("closed, not confirmed")
		}
		return confirmation.Ack
	case <-time.After(patience):
		panic("neither acked nor nacked")
	}
}

func open(name string, confirm bool) *scene {
	return openAs(name, confirm, as{})
}

func openAs(name string, confirm bool, as as) *scene {
	connection, err := dial(as)
	must(err)
	channel, err := connection.Channel()
	must(err)
	var confirms confirms
	if confirm {
		confirms = confirming(channel)
	}
	queue, err := channel.QueueDeclare("go-"+name, true, false, false, false, nil)
	must(err)
	return &scene{connection, channel, queue.Name, confirms}
}

func message(body, id string) amqp.Publishing {
	return amqp.Publishing{MessageId: id, Body: []byte(body)}
}

func (at *scene) send(exchange, key string, mandatory bool, message amqp.Publishing) {
	must(at.channel.PublishWithContext(context.Background(), exchange, key, mandatory, false, message))
}

// Publishes and waits for the answer.
func (at *scene) settle(key string, mandatory bool, message amqp.Publishing) bool {
	at.send("", key, mandatory, message)
	return at.confirms.next()
}

func (at *scene) publish(body, id string) {
	expect(at.settle(at.queue, false, message(body, id)), true)
}

func drain(channel *amqp.Channel, queue string) []string {
	bodies := []string{}
	for {
		delivery, ok, err := channel.Get(queue, true)
		must(err)
		if !ok {
			return bodies
		}
		bodies = append(bodies, string(delivery.Body))
	}
}

func (at *scene) drain() []string { return drain(at.channel, at.queue) }

func next(deliveries <-chan amqp.Delivery) amqp.Delivery {
	select {
	case delivery := <-deliveries:
		return delivery
	case <-time.After(patience):
		panic("nothing is delivered")
	}
}

// What the broker closes with.
func code(err error) int {
	var closed *amqp.Error
	if !errors.As(err, &closed) {
		panic(fmt.Sprintf("not closed by the broker but: %v", err))
	}
	return closed.Code
}

func closedWith(code int, closed <-chan *amqp.Error) string {
	select {
	case reason := <-closed:
		if reason == nil {
			panic("closed without a reason")
		}
		expect(reason.Code, code)
		return reason.Reason
	case <-time.After(patience):
		panic("not closed")
	}
}

func contains(text, part string) {
	if !strings.Contains(text, part) {
		panic(fmt.Sprintf("no %q in %q", part, text))
	}
}

func numbers(count int) []string {
	list := []string{}
	for number := 0; number < count; number++ {
		list = append(list, fmt.Sprint(number))
	}
	return list
}

var base = []scenario{
	{"server_properties", func() {
		connection := connect()
		expect(connection.Properties["product"], "RabbitMQ")
		capabilities := connection.Properties["capabilities"].(amqp.Table)
		for _, name := range []string{"publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked"} {
			expect(capabilities[name], true)
		}
		must(connection.Close())
	}},
	{"publish_without_confirms", func() {
		at := open("plain", false)
		for _, number := range numbers(100) {
			at.send("", at.queue, false, message(number, "plain-"+number))
		}
		expect(at.drain(), numbers(100))
		must(at.Close())
	}},
	{"publish_with_confirms", func() {
		at := open("confirms", true)
		for _, number := range numbers(100) {
			at.send("", at.queue, false, message(number, "confirms-"+number))
		}
		for range numbers(100) {
			expect(at.confirms.next(), true)
		}
		expect(at.drain(), numbers(100))
		must(at.Close())
	}},
	{"mandatory_is_returned_then_acked", func() {
		at := open("mandatory", true)
		returned := at.channel.NotifyReturn(make(chan amqp.Return, 1))
		expect(at.settle("no-such-queue", true, message("lost", "mandatory-1")), true)
		// It was there before the ack.
		select {
		case lost := <-returned:
			expect(int(lost.ReplyCode), 312)
			expect(string(lost.Body), "lost")
		default:
			panic("acked, not returned")
		}
		must(at.Close())
	}},
	{"nack_when_the_queue_is_full", func() {
		at := open("full", true)
		arguments := amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"}
		_, err := at.channel.QueueDeclare("go-full-1", true, false, false, false, arguments)
		must(err)
		expect(at.settle("go-full-1", false, message("1", "full-1")), true)
		expect(at.settle("go-full-1", false, message("2", "full-2")), false)
		must(at.Close())
	}},
	{"tx_commit_and_rollback", func() {
		at := open("tx", false)
		must(at.channel.Tx())
		at.send("", at.queue, false, message("committed", "tx-1"))
		must(at.channel.TxCommit())
		at.send("", at.queue, false, message("rolled back", "tx-2"))
		must(at.channel.TxRollback())
		other, err := at.Channel()
		must(err)
		expect(drain(other, at.queue), []string{"committed"})
		must(at.Close())
	}},
	{"large_body", func() {
		at := open("large", true)
		body := make([]byte, 16<<20)
		_, err := rand.Read(body)
		must(err)
		expect(at.settle(at.queue, false, amqp.Publishing{MessageId: "large-1", Body: body}), true)
		delivery, ok, err := at.channel.Get(at.queue, true)
		must(err)
		expect(ok && bytes.Equal(delivery.Body, body), true)
		must(at.Close())
	}},
	{"empty_body", func() {
		at := open("empty", true)
		at.publish("", "empty-1")
		at.publish("", "empty-2")
		expect(at.drain(), []string{"", ""})
		must(at.Close())
	}},
	{"all_properties_survive", func() {
		at := open("properties", true)
		sent := amqp.Publishing{
			ContentType: "text/plain", ContentEncoding: "utf-8",
			Headers: amqp.Table{"text": "ä", "n": int32(7), "list": []interface{}{int64(1), "two"}, "t": true,
				"table": amqp.Table{"nothing": nil}, "d": amqp.Decimal{Scale: 2, Value: 314}},
			DeliveryMode: 2, Priority: 3, CorrelationId: "c", ReplyTo: "r", Expiration: "60000",
			MessageId: "properties-1", Timestamp: time.Unix(1234567890, 0), Type: "ty", UserId: "guest", AppId: "a",
			Body: []byte("x"),
		}
		expect(at.settle(at.queue, false, sent), true)
		got, ok, err := at.channel.Get(at.queue, true)
		must(err)
		expect(ok, true)
		expect(amqp.Publishing{
			ContentType: got.ContentType, ContentEncoding: got.ContentEncoding, Headers: got.Headers,
			DeliveryMode: got.DeliveryMode, Priority: got.Priority, CorrelationId: got.CorrelationId,
			ReplyTo: got.ReplyTo, Expiration: got.Expiration, MessageId: got.MessageId, Timestamp: got.Timestamp,
			Type: got.Type, UserId: got.UserId, AppId: got.AppId, Body: got.Body,
		}, sent)
		must(at.Close())
	}},
	{"two_hundred_channels", func() {
		at := open("channels", true)
		all := []confirms{}
		for _, number := range numbers(200) {
			channel, err := at.Channel()
			must(err)
			all = append(all, confirming(channel))
			must(channel.PublishWithContext(
				context.Background(), "", at.queue, false, false, message(number, "channels-"+number)))
		}
		for _, confirms := range all {
			expect(confirms.next(), true)
		}
		expect(len(at.drain()), 200)
		must(at.Close())
	}},
	{"consume_ack_nack_reject", func() {
		at := open("consume", true)
		for _, body := range []string{"ack", "nack", "reject"} {
			at.publish(body, "consume-"+body)
		}
		deliveries, err := at.channel.Consume(at.queue, "", false, false, false, false, nil)
		must(err)
		seen := map[string]int{}
		for count := 0; count < 4; count++ {
			delivery := next(deliveries)
			body := string(delivery.Body)
			seen[fmt.Sprint(body, delivery.Redelivered)]++
			switch {
			case body == "ack" || delivery.Redelivered:
				must(delivery.Ack(false))
			case body == "nack":
				must(delivery.Nack(false, true))
			default:
				must(delivery.Reject(false))
			}
		}
		expect(seen, map[string]int{"ackfalse": 1, "nackfalse": 1, "nacktrue": 1, "rejectfalse": 1})
		must(at.channel.Cancel("", false))
		expect(at.drain(), []string{})
		must(at.Close())
	}},
	{"get_and_recover", func() {
		at := open("get", true)
		_, ok, err := at.channel.Get(at.queue, false)
		must(err)
		expect(ok, false)
		at.publish("got", "get-1")
		first, _, err := at.channel.Get(at.queue, false)
		must(err)
		expect(first.Redelivered, false)
		must(at.channel.Recover(true))
		again, _, err := at.channel.Get(at.queue, false)
		must(err)
		expect(again.Redelivered, true)
		must(again.Ack(false))
		must(at.Close())
	}},
	{"qos_and_cancel", func() {
		at := open("qos", true)
		for _, number := range numbers(5) {
			at.publish(number, "qos-"+number)
		}
		channel, err := at.Channel()
		must(err)
		must(channel.Qos(2, 0, false))
		deliveries, err := channel.Consume(at.queue, "some", false, false, false, false, nil)
		must(err)
		next(deliveries)
		second := next(deliveries)
		state, err := at.channel.QueueInspect(at.queue)
		must(err)
		expect(state.Messages, 3)
		must(second.Ack(true))
		next(deliveries)
		next(deliveries)
		must(channel.Cancel("some", false))
		must(channel.Close())
		expect(len(at.drain()), 3)
		must(at.Close())
	}},
	{"broker_cancels_a_consumer", func() {
		at := open("cancelled", true)
		cancelled := at.channel.NotifyCancel(make(chan string, 1))
		_, err := at.channel.Consume(at.queue, "some", false, false, false, false, nil)
		must(err)
		other := open("cancelled", false)
		_, err = other.channel.QueueDelete(at.queue, false, false, false)
		must(err)
		select {
		case tag := <-cancelled:
			expect(tag, "some")
		case <-time.After(patience):
			panic("not cancelled")
		}
		must(other.Close())
		must(at.Close())
	}},
	{"direct_reply_to", func() {
		at := open("rpc", true)
		replies, err := at.channel.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil)
		must(err)
		question := message("question", "rpc-1")
		question.ReplyTo = "amq.rabbitmq.reply-to"
		expect(at.settle(at.queue, false, question), true)
		server := open("rpc", true)
		asked, _, err := server.channel.Get(at.queue, true)
		must(err)
		server.send("", asked.ReplyTo, false, message(string(asked.Body)+" answered", "rpc-2"))
		expect(string(next(replies).Body), "question answered")
		must(server.Close())
		must(at.Close())
	}},
	{"exclusive_queue", func() {
		owner, other := open("exclusive", false), open("exclusive", false)
		queue, err := owner.channel.QueueDeclare("", false, false, true, false, nil)
		must(err)
		_, err = other.channel.QueueInspect(queue.Name)
		expect(code(err), 405)
		must(owner.Close())
		channel, err := other.Channel()
		must(err)
		_, err = channel.QueueInspect(queue.Name)
		expect(code(err), 404)
		must(other.Close())
	}},
	{"channel_closed_403_access_refused", func() {
		at := open("rights", true)
		connection, err := dial(as{user: "reader", password: "reader"})
		must(err)
		channel, err := connection.Channel()
		must(err)
		must(channel.Confirm(false))
		closed := channel.NotifyClose(make(chan *amqp.Error, 1))
		must(channel.PublishWithContext(context.Background(), "", at.queue, false, false, message("x", "rights-1")))
		contains(closedWith(403, closed), "ACCESS_REFUSED")
		_, err = connection.Channel() // the connection lives on
		must(err)
		must(connection.Close())
		must(at.Close())
	}},
	{"channel_closed_404_no_exchange", func() {
		at := open("no-exchange", true)
		closed := at.channel.NotifyClose(make(chan *amqp.Error, 1))
		at.send("no-such-exchange", "", false, message("x", "404-1"))
		contains(closedWith(404, closed), "no exchange 'no-such-exchange'")
		must(at.Close())
	}},
	{"channel_closed_406_inequivalent_argument", func() {
		at := open("inequivalent", true)
		_, err := at.channel.QueueDeclare(at.queue, false, false, false, false, nil)
		expect(code(err), 406)
		contains(err.Error(), "inequivalent arg 'durable'")
		must(at.Close())
	}},
	{"connection_closed_540_not_implemented", func() {
		// `immediate` is not implemented by RabbitMQ: the whole connection is closed for it.
		at := open("immediate", true)
		closed := at.NotifyClose(make(chan *amqp.Error, 1))
		must(at.channel.PublishWithContext(context.Background(), "", at.queue, false, true, message("x", "540-1")))
		contains(closedWith(540, closed), "NOT_IMPLEMENTED")
	}},
	{"connection_closed_530_vhost_not_allowed", func() {
		_, err := dial(as{vhost: os.Getenv("AMQP_CLOSED_VHOST")})
		expect(err, amqp.ErrVhost)
	}},
	{"wrong_password", func() {
		_, err := dial(as{user: "guest", password: "wrong"})
		expect(code(err), 403)
	}},
	{"update_secret", func() {
		connection := connect()
		must(connection.UpdateSecret("guest", "renewed"))
		must(connection.Close())
	}},
	{"heartbeat_while_only_one_id_flows", func() {
		at := openAs("heartbeat", true, as{heartbeat: 2 * time.Second})
		// The confirms pace it; the deadline is what is tested.
		for end := time.Now().Add(7 * time.Second); time.Now().Before(end); {
			at.publish("again", "heartbeat-1")
		}
		at.publish("last", "heartbeat-2")
		_, err := at.channel.QueuePurge(at.queue, false)
		must(err)
		must(at.Close())
	}},
}

var dedup = []scenario{
	{"duplicate_is_acked_and_not_stored", func() {
		at, other := open("duplicate", true), open("duplicate", true)
		for range numbers(10) {
			at.send("", at.queue, false, message("once", "duplicate-1"))
			other.send("", at.queue, false, message("once", "duplicate-1"))
		}
		for range numbers(10) {
			expect(at.confirms.next(), true)
			expect(other.confirms.next(), true)
		}
		expect(at.drain(), []string{"once"})
		must(other.Close())
		must(at.Close())
	}},
	{"duplicate_without_confirms_is_not_stored", func() {
		at := open("shadow", false)
		for _, number := range numbers(50) {
			at.send("", at.queue, false, message(number, "shadow-"+number))
			at.send("", at.queue, false, message(number, "shadow-"+number))
		}
		expect(at.drain(), numbers(50))
		must(at.Close())
	}},
	{"confirms_selected_after_publishing_count_from_one", func() {
		at := open("late", false)
		at.send("", at.queue, false, message("a", "late-1"))
		at.send("", at.queue, false, message("a", "late-1"))
		confirms := confirming(at.channel)
		at.send("", at.queue, false, message("a", "late-1"))
		// The library waits for tag 1, and for no other.
		expect(confirms.next(), true)
		expect(at.drain(), []string{"a"})
		must(at.Close())
	}},
	{"same_id_to_two_queues_is_two_messages", func() {
		first, second := open("two-1", true), open("two-2", true)
		for _, at := range []*scene{first, second, first, second} {
			at.publish("x", "two")
		}
		expect(first.drain(), []string{"x"})
		expect(second.drain(), []string{"x"})
		must(first.Close())
		must(second.Close())
	}},
	{"duplicate_with_mandatory_is_a_plain_ack", func() {
		at := open("mandatory-again", true)
		returned := at.channel.NotifyReturn(make(chan amqp.Return, 1))
		expect(at.settle(at.queue, true, message("x", "mandatory-again")), true)
		_, err := at.channel.QueueDelete(at.queue, false, false, false)
		must(err)
		expect(at.settle(at.queue, true, message("x", "mandatory-again")), true)
		expect(len(returned), 0)
		must(at.Close())
	}},
	{"rollback_then_retry_is_delivered", func() {
		at := open("rollback", false)
		must(at.channel.Tx())
		at.send("", at.queue, false, message("x", "rollback-1"))
		must(at.channel.TxRollback())
		at.send("", at.queue, false, message("x", "rollback-1"))
		must(at.channel.TxCommit())
		at.send("", at.queue, false, message("x", "rollback-1"))
		at.send("", at.queue, false, message("y", "rollback-2"))
		must(at.channel.TxCommit())
		other, err := at.Channel()
		must(err)
		expect(drain(other, at.queue), []string{"x", "y"})
		must(at.Close())
	}},
}

var blocked = []scenario{
	{"blocked_and_unblocked", func() {
		at := open("blocked", true)
		told := at.NotifyBlocked(make(chan amqp.Blocking, 2))
		at.publish("before", "blocked-1")
		ask("alarm on")
		at.send("", at.queue, false, message("during", "blocked-2"))
		expect((<-told).Active, true)
		ask("alarm off")
		expect((<-told).Active, false)
		expect(at.confirms.next(), true)
		expect(at.drain(), []string{"before", "during"})
		must(at.Close())
	}},
}

var input = bufio.NewReader(os.Stdin)

func ask(what string) {
	fmt.Println("?", what)
	_, err := input.ReadString('\n')
	must(err)
}

func run(scenario scenario) (good bool) {
	defer func() {
		if reason := recover(); reason != nil {
			fmt.Printf("not ok %s %v\n", scenario.name, reason)
		}
	}()
	done := make(chan interface{}, 1)
	go func() {
		defer func() { done <- recover() }()
		scenario.run()
	}()
	select {
	case reason := <-done:
		if reason != nil {
			panic(reason)
		}
	case <-time.After(3 * patience):
		panic("it hangs")
	}
	fmt.Println("ok", scenario.name)
	return true
}

func main() {
	good := true
	for _, scenario := range map[string][]scenario{"base": base, "dedup": dedup, "blocked": blocked}[os.Args[1]] {
		if len(os.Args) < 3 || os.Args[2] == scenario.name {
			good = run(scenario) && good
		}
	}
	if !good {
		os.Exit(1)
	}
}
