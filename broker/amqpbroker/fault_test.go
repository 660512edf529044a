package amqpbroker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
)

// patience is how long anything is waited for.
const patience = time.Minute

func task(queue, id string) *broker.Message {
	return &broker.Message{
		Headers:    protocol.Headers{Lang: "go", Task: "t", ID: id, RootID: id},
		Properties: protocol.Properties{ContentType: protocol.ContentJSON, ContentEncoding: protocol.EncodingUTF8, CorrelationID: id, DeliveryMode: 2},
		Body:       []byte(id), RoutingKey: queue, Queue: queue,
	}
}

// site is a connection with a consumer of queue q, and what they log.
type site struct {
	*testing.T
	c   *amqpbroker.Conn
	cs  broker.Consumer
	log *logged
}

// logged keeps a log for looking.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newSite(t *testing.T, url string, options map[string]any) *site {
	t.Helper()
	s := &site{T: t, log: new(logged)}
	var err error
	s.c, err = amqpbroker.Open(t.Context(), broker.Config{URL: url, Options: options, Logger: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.c.Close(); err != nil && !broker.Retryable(err) {
			t.Errorf("close: %v", err)
		}
	})
	s.cs, err = s.c.Consume(t.Context(), broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("q")}, Worker: "test", Window: 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) publish(ids ...string) {
	s.Helper()
	for _, id := range ids {
		if err := s.c.Publish(s.Context(), task("q", id)); err != nil {
			s.Fatalf("publish %s: %v", id, err)
		}
	}
}

// claim takes one message; an unavailable broker is asked again until ctx ends.
func (s *site) claim(ctx context.Context) *broker.Delivery {
	s.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ds, err := s.cs.Claim(ctx, 1)
		switch {
		case err == nil:
			return &ds[0]
		case !broker.Retryable(err) || ctx.Err() != nil:
			s.Fatalf("claim: %v\n%s", err, s.log)
		}
		<-tick.C
	}
}

func (s *site) settle(d *broker.Delivery, a broker.Action) error {
	return s.cs.Settle(s.Context(), broker.Settlement{Delivery: d, Action: a})
}

// works sends a message through, trying again.
func (s *site) works() {
	s.Helper()
	ctx := limit(s.T, patience)
	id := fmt.Sprint("works", time.Now().UnixNano())
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.c.Publish(ctx, task("q", id))
		if err == nil {
			break
		}
		if !broker.Retryable(err) || ctx.Err() != nil {
			s.Fatalf("publish: %v\n%s", err, s.log)
		}
		<-tick.C
	}
	for {
		d := s.claim(ctx)
		err := s.settle(d, broker.Ack)
		switch {
		case errors.Is(err, broker.ErrLeaseLost), broker.Retryable(err): // it comes again
		case err != nil:
			s.Fatalf("ack: %v", err)
		case string(d.Body) == id:
			return
		}
	}
}

// logs waits until the log says something.
func (s *site) logs(text string) {
	s.Helper()
	for ctx := limit(s.T, patience); !strings.Contains(s.log.String(), text); {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			s.Errorf("the log does not say %q:\n%s", text, s.log)
			return
		}
	}
}

func vhostOf(url string) string { return url[strings.LastIndex(url, "/")+1:] }

func TestQueueDeletedUnderConsumer(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	s := newSite(t, url, nil)
	s.publish("a")
	d := s.claim(limit(t, patience))
	// At once: a consumer from which nobody claims rests after a while, and then
	// the server has nobody to tell.
	other, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ch, err := other.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDelete("q", false, false, false); err != nil {
		t.Fatal(err)
	}
	s.logs("the queue was deleted") // before that the old queue may still work
	s.works()
	if err := s.settle(d, broker.Ack); !errors.Is(err, broker.ErrLeaseLost) {
		t.Errorf("ack of a message whose channel is gone: %v, want ErrLeaseLost", err)
	}
}

func TestConnectionClosedByServer(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	s := newSite(t, url, nil)
	s.publish("a", "b")
	d := s.claim(limit(t, patience))
	server.Control(t, "close_all_connections", "--vhost", vhostOf(url), "maintenance")
	again := s.claim(limit(t, patience))
	if !again.Redelivered || string(again.Body) != string(d.Body) {
		t.Errorf("got %q, redelivered %v, want %q again", again.Body, again.Redelivered, d.Body)
	}
	if err := s.settle(d, broker.Ack); !errors.Is(err, broker.ErrLeaseLost) {
		t.Errorf("ack by a tag of the old channel: %v, want ErrLeaseLost", err)
	}
	if err := s.settle(again, broker.Ack); err != nil {
		t.Error(err)
	}
	s.works()
	s.logs("maintenance")
}

// TestHeartbeat: a server that says nothing any more, not even a heartbeat, is gone.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	proxy := testenv.NewProxy(t, server.Addr)
	s := newSite(t, strings.Replace(server.Vhost(t), server.Addr, proxy.Addr, 1), map[string]any{"heartbeat": 1, "connect_timeout": 10})
	s.works()
	proxy.Hold()
	if _, err := s.cs.Claim(limit(t, patience), 1); !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("claim from a silent server: %v, want ErrUnavailable before the deadline", err)
	}
	proxy.Release()
	s.works()
}

// TestSlowOpenExcusesNoDeath: a consumer whose time is over before it has asked for
// messages has lost none, so that what comes to it later is no hand-back of its own.
func TestSlowOpenExcusesNoDeath(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	vhost := server.Vhost(t)
	proxy := testenv.NewProxy(t, server.Addr)
	slow := newSite(t, strings.Replace(vhost, server.Addr, proxy.Addr, 1), nil)
	slow.works()
	amqpbroker.Rest(slow.cs)
	proxy.Hold()
	ds, err := slow.cs.Claim(limit(t, 300*time.Millisecond), 1)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a claim without an answer: got %v, %v", ds, err)
	}
	proxy.Release()
	other := newSite(t, vhost, nil)
	other.publish("a")
	ctx := limit(t, patience)
	other.claim(ctx)
	other.c.Cut()
	if d := slow.claim(ctx); string(d.Body) != "a" || !d.Orphaned {
		t.Errorf("after a death: got %q, orphaned %v, want a, true\n%s", d.Body, d.Orphaned, slow.log)
	}
}

// TestNobodyReads: a server that is lost while much is being written to it holds
// up neither the writer, once that is known, nor the end of the connection.
func TestNobodyReads(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	proxy := testenv.NewProxy(t, server.Addr)
	s := newSite(t, strings.Replace(server.Vhost(t), server.Addr, proxy.Addr, 1), map[string]any{"heartbeat": 1, "connect_timeout": 60})
	s.works()
	proxy.Blackhole()
	large := make([]*broker.Message, 64)
	for i := range large { // more than the network takes by itself
		large[i] = task("q", fmt.Sprint("large", i))
		large[i].Body = make([]byte, 1<<20)
	}
	ctx := limit(t, patience)
	if err := s.c.Publish(ctx, large...); !errors.Is(err, broker.ErrUnavailable) || ctx.Err() != nil {
		t.Errorf("publish to a server that does not read: %v, want ErrUnavailable once its heartbeats are missed", err)
	}
	sent := make(chan error, 1)
	go func() { sent <- s.c.Publish(ctx, task("q", "dialling")) }()
	s.logs("for=publish")
	closed := make(chan error, 1)
	go func() { closed <- s.c.Close() }()
	for what, ch := range map[string]chan error{"the call that connects": sent, "Close": closed} {
		select {
		case <-ch:
		case <-time.After(40 * time.Second): // connect_timeout is a minute
			t.Errorf("%s does not return", what)
		}
	}
}

// TestCutHandshake: a connection that ends before it is made was not refused, at
// whatever step.
func TestCutHandshake(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	for _, late := range []time.Duration{150, 300, 450, 600, 900} { // of six ways
		t.Run(fmt.Sprint(int(late)), func(t *testing.T) {
			t.Parallel()
			proxy := testenv.NewProxy(t, server.Addr)
			proxy.Latency(late * time.Millisecond)
			c, err := amqpbroker.Open(limit(t, patience), broker.Config{URL: strings.Replace(url, server.Addr, proxy.Addr, 1), Options: map[string]any{"connect_timeout": 0.8}})
			if err == nil {
				t.Fatalf("connected: %v", c.Close())
			}
			if !errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		})
	}
}

// TestServerFaults: what needs a node of its own, one after the other.
func TestServerFaults(t *testing.T) {
	t.Parallel()
	server := testenv.PrivateRabbitMQ(t, "consumer_timeout = 1500")
	server.Control(t, "eval", "application:set_env(rabbit, channel_tick_interval, 500).")
	t.Run("ConsumerTimeout", func(t *testing.T) {
		s := newSite(t, server.Vhost(t), nil)
		s.publish("a", "b")
		ctx := limit(t, patience)
		d := s.claim(ctx)
		for again := s.claim(ctx); ; again = s.claim(ctx) {
			if string(again.Body) == "a" { // given back by the server
				if err := s.settle(again, broker.Ack); err != nil {
					t.Error(err)
				}
				break
			}
			if err := s.settle(again, broker.Ack); err != nil && !errors.Is(err, broker.ErrLeaseLost) {
				t.Error(err)
			}
		}
		if err := s.settle(d, broker.Ack); !errors.Is(err, broker.ErrLeaseLost) {
			t.Errorf("ack after the consumer timeout: %v, want ErrLeaseLost", err)
		}
		s.works()
		s.logs("PRECONDITION_FAILED - delivery acknowledgement on channel")
	})
	t.Run("RunOutlastsTheTimeout", func(t *testing.T) {
		redis := testenv.Redis(t)
		log := new(logged)
		app := lovage.New("proj", lovage.Config{BrokerURL: server.Vhost(t), ResultBackend: redis.URL(redis.DB(t)), TaskDefaultQueue: "q",
			BrokerTransportOptions: map[string]any{"consumer_timeout": 1.5}}, lovage.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
		var runs atomic.Int32
		goOn := make(chan struct{})
		long := lovage.Func(app, "t.long", func(context.Context, addArgs) (int, error) {
			n := runs.Add(1)
			<-goOn
			return int(n), nil
		})
		goWorker(t, app)
		ctx := limit(t, patience)
		res, err := long.Delay(ctx, addArgs{})
		if err != nil {
			t.Fatal(err)
		}
		s := &site{T: t, log: log}
		s.logs("Task t.long[" + res.ID() + "] runs, and its message is claimed since")
		s.logs("the broker takes it away after 1.5s")
		s.logs("PRECONDITION_FAILED - delivery acknowledgement on channel")
		s.logs("Task t.long[" + res.ID() + "] has come again while it runs here")
		close(goOn)
		if n, err := res.Get(ctx); err != nil || n != 1 {
			t.Errorf("the result is %d, %v, want that of the first run", n, err)
		}
		s.logs("Task t.long[" + res.ID() + "] has succeeded before and is not run again")
		if n := runs.Load(); n != 1 {
			t.Errorf("%d runs", n)
		}
	})
	t.Run("MemoryAlarm", func(t *testing.T) {
		s := newSite(t, server.Vhost(t), nil)
		s.publish("before")
		server.Control(t, "set_vm_memory_high_watermark", "0.00001")
		var err error
		var ctx context.Context
		for all := limit(t, patience); err == nil && all.Err() == nil; { // the first may be taken before the alarm reaches us
			ctx = limit(t, time.Second)
			err = s.c.Publish(ctx, task("q", "in alarm"))
		}
		if !errors.Is(err, broker.ErrUnavailable) || ctx.Err() == nil {
			t.Errorf("publish in alarm: %v, want ErrUnavailable at the deadline", err)
		}
		s.logs("RabbitMQ takes no messages")
		err = s.c.Declare(limit(t, time.Second), broker.Named("other"))
		if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "low on memory") {
			t.Errorf("declare in alarm: %v, want ErrUnavailable with the reason", err)
		}
		d := s.claim(limit(t, patience)) // consuming and acks go on
		if err := s.settle(d, broker.Ack); err != nil {
			t.Errorf("ack in alarm: %v", err)
		}
		server.Control(t, "set_vm_memory_high_watermark", "0.9")
		s.works()
		s.logs("RabbitMQ takes messages again")
	})
	t.Run("NodeDiesAndComesBack", func(t *testing.T) {
		s := newSite(t, server.Vhost(t), nil)
		confirmed := map[string]bool{}
		for i := range 200 {
			id := fmt.Sprint(i)
			s.publish(id)
			confirmed[id] = true
		}
		server.Stop(t)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := s.c.Publish(ctx, task("q", "x")); !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("publish to a dead node: %v, want ErrUnavailable", err)
		}
		server.Start(t)
		for ctx := limit(t, patience); len(confirmed) > 0; {
			d := s.claim(ctx)
			delete(confirmed, string(d.Body))
			if err := s.settle(d, broker.Ack); err != nil {
				t.Error(err)
			}
		}
		s.works()
	})
}
