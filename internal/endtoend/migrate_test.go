package endtoend_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/migrate"
	"github.com/lovage-go/lovage/worker"
)

// command runs a command line of an app on a broker.
func command(t *testing.T, url string, words ...string) (code int, out, errs string) {
	t.Helper()
	app := lovage.New("proj", lovage.Config{BrokerURL: url}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	code = cli.Run(ctx, app, words, strings.NewReader(""), &o, &e, cli.Environ(nil))
	return code, o.String(), e.String()
}

// fill sends tasks with the ids name-0, name-1 ... to the queue celery.
func fill(t *testing.T, url string, names ...string) {
	t.Helper()
	app := lovage.New("sender", lovage.Config{BrokerURL: url}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	defer app.Close(context.Background())
	for i, name := range names {
		if _, err := app.Send(t.Context(), name, lovage.Args{Positional: []any{i, 1}}, lovage.TaskID(fmt.Sprint(name, "-", i)), lovage.Headers(map[string]any{"tenant": i})); err != nil {
			t.Fatal(err)
		}
	}
}

func ready(t *testing.T, url, queue string) int {
	t.Helper()
	conn, err := broker.Open(t.Context(), broker.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l, err := conn.(broker.Lengther).Lengths(t.Context(), queue)
	if err != nil {
		t.Fatal(err)
	}
	return l[queue].Ready
}

// TestMigrate moves tasks from every broker to RabbitMQ, where a worker runs them,
// and copies them from there.
func TestMigrate(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) string{
		"sqlite": file, "redis": brokers["redis"], "rabbitmq": func(t *testing.T) string { return testenv.RabbitMQ(t).Vhost(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, destination, store := open(t), testenv.RabbitMQ(t).Vhost(t), file(t)
			fill(t, source, "t.add", "t.other", "t.add", "t.add", "t.other")
			code, out, errs := command(t, source, "migrate", source, destination, "-a", "-T", "t.add", "-n", "2")
			if code != 0 || !strings.HasPrefix(out, "Migrating task 1/5: t.add[t.add-0]\nMigrating task 2/5: t.add[t.add-2]\n") {
				t.Fatalf("exit code %d, %s%s", code, out, errs)
			}
			if n := ready(t, source, "celery"); n != 3 {
				t.Errorf("%d messages are left at the source, want 3", n)
			}
			if code, out, errs = command(t, source, "migrate", source, destination, "--tasks=t.add", "--timeout", "0.5"); code != 0 || strings.Count(out, "Migrating task") != 1 {
				t.Fatalf("a copy: exit code %d, %s%s", code, out, errs)
			}
			if n := ready(t, source, "celery"); n != 3 {
				t.Errorf("after a copy %d messages are at the source, want 3", n)
			}
			ran := make(chan string, 8)
			m := startMember(t, lovage.Config{BrokerURL: destination, ResultBackend: store}, newLogbook(), worker.Config{Concurrency: 1}, func(app *lovage.App) {
				lovage.Func(app, "t.add", func(ctx context.Context, in addArgs) (int, error) {
					r := lovage.RequestFrom(ctx)
					ran <- fmt.Sprint(r.ID, " ", in.X+in.Y, " ", r.Delivery.Queue)
					return in.X + in.Y, nil
				})
			})
			got := map[string]bool{receive(t, ran): true, receive(t, ran): true, receive(t, ran): true}
			for _, want := range []string{"t.add-0 1 celery", "t.add-2 3 celery", "t.add-3 4 celery"} {
				if !got[want] {
					t.Errorf("the worker ran %v, want %s", got, want)
				}
			}
			m.stop()
		})
	}
}

// TestMove: by id and by name, within one broker.
func TestMove(t *testing.T) {
	onEvery(t, func(t *testing.T, url string) {
		fill(t, url, "t.a", "t.b", "t.a", "t.c")
		conn, err := broker.Open(t.Context(), broker.Config{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		from := []broker.Queue{broker.Named("celery")}
		for i, route := range []migrate.Route{migrate.ByID(map[string]string{"t.a-2": "two", "t.c-9": "nine"}), migrate.ByName(map[string]string{"t.a": "as", "t.b": "bs"})} {
			stats, err := migrate.Run(t.Context(), conn, conn, migrate.Options{Queues: from, Route: route})
			if want := []migrate.Stats{{Moved: 1, Left: 3}, {Moved: 2, Left: 1}}[i]; err != nil || stats != want {
				t.Errorf("route %d: %+v, %v, want %+v", i, stats, err, want)
			}
		}
		for queue, want := range map[string]int{"celery": 1, "two": 1, "as": 1, "bs": 1} {
			if n := ready(t, url, queue); n != want {
				t.Errorf("queue %s has %d messages, want %d", queue, n, want)
			}
		}
	})
}
