package redisbroker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/lovage-go/lovage/internal/testenv"
)

// patience is how long anything is waited for.
const patience = time.Minute

func limit(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("the test lost patience"))
	t.Cleanup(cancel)
	return ctx
}

func consume(t testing.TB, c broker.Conn, queues ...string) broker.Consumer {
	t.Helper()
	cfg := broker.ConsumeConfig{Worker: "celery@test"}
	for _, q := range queues {
		cfg.Queues = append(cfg.Queues, broker.Named(q))
	}
	cs, err := c.Consume(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// client is a plain one, for what a stranger does to the database.
func client(t testing.TB, url string) rueidis.Client {
	t.Helper()
	opt, _, err := redisconn.ParseURL(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	opt.DisableCache = true
	rdb, err := rueidis.NewClient(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rdb.Close)
	return rdb
}

func push(t testing.TB, url, list string, raws ...string) {
	t.Helper()
	rdb := client(t, url)
	if err := rdb.Do(t.Context(), rdb.B().Lpush().Key(list).Element(raws...).Build()).Error(); err != nil {
		t.Fatal(err)
	}
}

func keysOf(t testing.TB, rdb rueidis.Client) []string {
	t.Helper()
	keys, err := rdb.Do(t.Context(), rdb.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestRubbishNeverReachesUnacked: what is no JSON object would stop each sweep
// of the Python workers. It is kept for the operator instead.
func TestRubbishNeverReachesUnacked(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	c := open(t, url, nil)
	defer c.Close()
	rubbish := []string{"hello", "", "[1, 2]", "{'body': 'x'}", `{"body": "truncat`, "\x00\xff", `"text"`, "17"}
	push(t, url, "q", rubbish...)
	if err := c.Publish(t.Context(), task("q", "good")); err != nil {
		t.Fatal(err)
	}
	cs := consume(t, c, "q")
	ds, err := cs.Claim(limit(t), 100)
	if err != nil || len(ds) != 1 || ds[0].Properties.CorrelationID != "good" {
		t.Fatalf("claimed %d, %v, want the good one alone", len(ds), err)
	}
	dead, err := c.DeadLetters(t.Context(), "q", "", 100)
	if err != nil || len(dead) != len(rubbish) {
		t.Fatalf("%d dead letters, %v, want %d", len(dead), err, len(rubbish))
	}
	for i, d := range dead {
		if want := rubbish[len(rubbish)-1-i]; string(d.Body) != want || !strings.Contains(d.Reason, "no JSON object") || d.Queue != "q" {
			t.Errorf("letter %d is %q of queue %q because %q, want %q", i, d.Body, d.Queue, d.Reason, want)
		}
	}
	if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[0]}); err != nil {
		t.Error(err)
	}
}

// TestObjectThatIsNoMessage reaches the worker marked as malformed.
func TestObjectThatIsNoMessage(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	c := open(t, url, nil)
	defer c.Close()
	odd := []string{`{}`, `{"body": 17}`, `{"body": "???", "properties": {"body_encoding": "base64"}}`, `{"body": "x", "properties": {"body_encoding": "rot13"}}`}
	push(t, url, "q", odd...)
	cs := consume(t, c, "q")
	ds, err := cs.Claim(limit(t), 100)
	if err != nil || len(ds) != len(odd) {
		t.Fatalf("claimed %d, %v", len(ds), err)
	}
	for i := range ds {
		if ds[i].Malformed == nil || string(ds[i].Body) != odd[i] {
			t.Errorf("%s: delivered with body %s, malformed %v", odd[i], ds[i].Body, ds[i].Malformed)
		}
		if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[i], Action: broker.DeadLetter, Reason: ds[i].Malformed.Error()}); err != nil {
			t.Error(err)
		}
	}
}

// TestNothingIsLeft: after everything is done only the names of queues remain.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	c := open(t, url, map[string]any{"global_keyprefix": "team1:"})
	cs := consume(t, c, "q")
	later := task("q", "later")
	later.NotBefore = time.Now().Add(50 * time.Millisecond)
	if err := c.Publish(t.Context(), task("q", "a"), task("q", "b"), later); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 3; {
		ds, err := cs.Claim(limit(t), 10)
		if err != nil {
			t.Fatal(err)
		}
		for i := range ds {
			if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[i]}); err != nil {
				t.Fatal(err)
			}
		}
		n += len(ds)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	may := map[string]bool{"team1:_kombu.binding.q": true, "team1:lovage.queues": true, "team1:lovage.exchanges": true, "team1:lovage.parked.id": true}
	for _, k := range keysOf(t, client(t, url)) {
		if !may[k] {
			t.Errorf("key %q is left", k)
		}
	}
}

// TestPollsWithoutTracking: a server that forbids tracking, or is too old to know
// it (Redis 5 has no HELLO, and so no connection that could be told), is polled.
func TestPollsWithoutTracking(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"Forbidden": {"--rename-command", "CLIENT", ""},
		"Redis5":    {"--rename-command", "HELLO", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.PrivateRedis(t, args...)
			c := open(t, server.URL(0), nil)
			defer c.Close()
			passes(t, c)
			l, err := c.Listen(t.Context(), "ev", "#")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Broadcast(t.Context(), "ev", task("", "a")); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Next(limit(t)); err != nil {
				t.Error(err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			cs := consume(t, c, "q")
			type outcome struct {
				ds  []broker.Delivery
				err error
			}
			claimed := make(chan outcome, 1)
			ctx := limit(t)
			go func() {
				ds, err := cs.Claim(ctx, 1)
				claimed <- outcome{ds, err}
			}()
			if err := c.Publish(ctx, task("q", "a")); err != nil {
				t.Fatal(err)
			}
			got := <-claimed
			if got.err != nil || len(got.ds) != 1 {
				t.Fatalf("claimed %d, %v", len(got.ds), got.err)
			}
			if err := cs.Settle(ctx, broker.Settlement{Delivery: &got.ds[0]}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestIdleConsumerAsksRarely: an idle consumer leaves the server alone, whatever
// the number of its queues, and so costs next to nothing; but it hears a message
// at once.
func TestIdleConsumerAsksRarely(t *testing.T) {
	t.Parallel()
	server := testenv.PrivateRedis(t)
	c := open(t, server.URL(0), nil)
	defer c.Close()
	var queues []string
	for i := range 50 {
		queues = append(queues, fmt.Sprint("q", i))
	}
	cs := consume(t, c, queues...)
	ctx := limit(t)
	claimed := make(chan error, 1)
	go func() {
		ds, err := cs.Claim(ctx, 1)
		if err == nil {
			err = cs.Settle(ctx, broker.Settlement{Delivery: &ds[0]})
		}
		claimed <- err
	}()
	server.Wait(t, "INFO clients", "tracking_clients:1")
	scripts := func() (n int) {
		_, rest, _ := strings.Cut(server.Do(t, "INFO", "commandstats"), "cmdstat_evalsha:calls=")
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before, began := scripts(), time.Now()
	select {
	case err := <-claimed:
		t.Fatalf("claimed from empty queues: %v", err)
	case <-time.After(3 * time.Second):
	}
	if n, took := scripts()-before, time.Since(began); n > 1+int(took/(500*time.Millisecond)) {
		t.Errorf("the idle consumer looked %d times in %v, want at most twice a second", n, took)
	}
	start := time.Now()
	if err := c.Publish(ctx, task("q33", "a")); err != nil {
		t.Fatal(err)
	}
	if err := <-claimed; err != nil {
		t.Fatal(err)
	}
	t.Logf("a message was settled %v after it was sent", time.Since(start).Round(time.Microsecond))
}

// TestServerRestart: the same connection and consumer go on after the server was
// killed and came back empty.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	server := testenv.PrivateRedis(t)
	c := open(t, server.URL(0), map[string]any{"socket_timeout": 2})
	defer c.Close()
	cs := consume(t, c, "q")
	l, err := c.Listen(t.Context(), "ev", "#")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 {
		idle, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		ds, err := cs.Claim(idle, 1)
		for broker.Retryable(err) { // a connection from before the restart
			ds, err = cs.Claim(idle, 1)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("claimed %d, %v, want nothing", len(ds), err)
		}
		cancel()
		server.Stop(t)
		if err := c.Publish(t.Context(), task("q", "lost")); !broker.Retryable(err) {
			t.Errorf("publish to a stopped server: %v, want one that may be retried", err)
		}
		if _, err := cs.Claim(limit(t), 1); !broker.Retryable(err) {
			t.Errorf("claim on a stopped server: %v, want one that may be retried", err)
		}
		server.Start(t)
		ctx := limit(t)
		for err = c.Publish(ctx, task("q", "a")); broker.Retryable(err); {
			err = c.Publish(ctx, task("q", "a"))
		}
		if err != nil {
			t.Fatal(err)
		}
		for ds, err = cs.Claim(ctx, 1); broker.Retryable(err); {
			ds, err = cs.Claim(ctx, 1)
		}
		if err != nil || len(ds) != 1 {
			t.Fatalf("claimed %d, %v", len(ds), err)
		}
		for err = cs.Settle(ctx, broker.Settlement{Delivery: &ds[0]}); broker.Retryable(err); {
			err = cs.Settle(ctx, broker.Settlement{Delivery: &ds[0]}) // a connection from before the restart
		}
		if err != nil {
			t.Error(err)
		}
		heard := make(chan error, 1)
		go func() {
			_, err := l.Next(ctx)
			heard <- err
		}()
		tick := time.NewTicker(20 * time.Millisecond)
		for waiting := true; waiting; {
			if err := c.Broadcast(ctx, "ev", task("", "ping")); err != nil && !broker.Retryable(err) {
				t.Fatal(err)
			}
			select {
			case err := <-heard:
				if err != nil {
					t.Fatalf("listener: %v", err)
				}
				waiting = false
			case <-tick.C:
			}
		}
		tick.Stop()
	}
}

// TestOptionsInTheURL: those of the query come before the settings.
func TestOptionsInTheURL(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	c := open(t, url+"?global_keyprefix=mine.&socket_timeout=60", map[string]any{"global_keyprefix": "theirs."})
	defer c.Close()
	if err := c.Publish(t.Context(), task("q", "1")); err != nil {
		t.Fatal(err)
	}
	if keys := keysOf(t, client(t, url)); !slices.Contains(keys, "mine.q") {
		t.Errorf("the keys are %q", keys)
	}
}
