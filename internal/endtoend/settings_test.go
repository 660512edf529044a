package endtoend_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// configured is a Config that a file with these settings gives.
func configured(t *testing.T, values map[string]any) lovage.Config {
	t.Helper()
	var c lovage.Config
	if ws, err := c.Apply(values); err != nil || len(ws) > 0 {
		t.Fatal(ws, err)
	}
	return c
}

// TestSettingsOnRabbitMQ: what settings say of queues and connections is what the
// server has, by its own word.
func TestSettingsOnRabbitMQ(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		values map[string]any
		want   map[string]string // queue, with * for what is made up: type, numbers, durable, exclusive
		conn   string            // heartbeat and login
	}{
		"Defaults": {nil, map[string]string{
			"celery": "classic [] true false", "made": "classic [] true false", "named": "classic [] true false",
			"celery_delayed_3": "quorum [x-message-ttl:8000] true false",
			"celeryev.*":       "classic [x-expires:60000 x-message-ttl:5000] false true",
			"*.celery.pidbox":  "classic [x-expires:10000 x-message-ttl:300000] false true",
		}, "10 PLAIN"},
		"Set": {map[string]any{
			"task_default_queue_type": "quorum", "task_create_missing_queue_type": "quorum", "task_queue_max_priority": 7,
			"task_create_missing_queue_exchange_type": "topic", "broker_native_delayed_delivery_queue_type": "classic",
			"event_queue_prefix": "ev", "event_queue_exclusive": false, "event_queue_durable": true, "event_queue_expires": 90, "event_queue_ttl": 2.5,
			"control_queue_exclusive": false, "control_queue_durable": true, "control_queue_expires": 20, "control_queue_ttl": "none",
			"broker_heartbeat": 7, "broker_login_method": "AMQPLAIN",
		}, map[string]string{
			"celery": "quorum [] true false", "made": "quorum [] true false", "named": "classic [x-max-priority:7] true false",
			"celery_delayed_3": "classic [x-message-ttl:8000] true false",
			"ev.*":             "classic [x-expires:90000 x-message-ttl:2500] true false",
			"*.celery.pidbox":  "classic [x-expires:20000] true false",
		}, "7 AMQPLAIN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.RabbitMQ(t)
			url := server.Vhost(t)
			values := map[string]any{"broker_url": url}
			maps.Copy(values, c.values)
			m := startMember(t, configured(t, values), newLogbook(), worker.Config{Concurrency: 1}, withAdd)
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			events, err := m.app.Events(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			conn, err := m.app.Broker(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.Declare(ctx, broker.Named("named")); err != nil {
				t.Fatal(err)
			}
			for _, o := range [][]lovage.CallOption{{lovage.Queue("made")}, {lovage.Countdown(10 * time.Second)}} {
				if _, err := m.app.Send(ctx, "t.add", lovage.Args{Positional: []any{1, 2}}, o...); err != nil {
					t.Fatal(err)
				}
			}
			got := queuesOf(t, server, url)
			for pattern, want := range c.want {
				name, have := pattern, got[pattern]
				for n, h := range got {
					before, after, star := strings.Cut(pattern, "*")
					if star && strings.HasPrefix(n, before) && strings.HasSuffix(n, after) {
						name, have = n, h
					}
				}
				if have != want {
					t.Errorf("queue %s is %q, want %q; there are %v", name, have, want, slices.Sorted(maps.Keys(got)))
				}
			}
			conns := server.Control(t, "list_connections", "--silent", "--no-table-headers", "vhost", "timeout", "auth_mechanism")
			if want := strings.Join(append([]string{strings.TrimPrefix(url[strings.LastIndex(url, "/"):], "/")}, strings.Fields(c.conn)...), "\t"); !strings.Contains(conns, want) {
				t.Errorf("connections (virtual host, heartbeat, login) are\n%s, want %s", conns, want)
			}
		})
	}
}

// queuesOf describes the queues of a virtual host: type, arguments that are
// numbers, durable, exclusive.
func queuesOf(t *testing.T, server *testenv.RabbitServer, url string) map[string]string {
	t.Helper()
	raw := server.Control(t, "list_queues", "--silent", "--formatter", "json", "--vhost", url[strings.LastIndex(url, "/")+1:],
		"name", "type", "arguments", "durable", "exclusive")
	var list []struct {
		Name, Type         string
		Arguments          [][3]any // name, type, value
		Durable, Exclusive any      // a quorum queue has "" for what it cannot be
	}
	if err := json.Unmarshal([]byte(raw), &list); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	out := map[string]string{}
	for _, q := range list {
		numbers := []string{}
		for _, a := range q.Arguments {
			if n, ok := a[2].(float64); ok {
				numbers = append(numbers, fmt.Sprintf("%s:%.0f", a[0], n))
			}
		}
		slices.Sort(numbers)
		out[q.Name] = fmt.Sprint(q.Type, " ", numbers, " ", q.Durable == true, " ", q.Exclusive == true)
	}
	return out
}

// TestSettingsOfRedisResults: what the URL leaves out the settings say.
func TestSettingsOfRedisResults(t *testing.T) {
	t.Parallel()
	server := testenv.PrivateRedis(t, "--user", "keeper", "on", ">p@ss", "~*", "&*", "+@all")
	host, number, _ := strings.Cut(server.Addr, ":")
	app := lovage.New("proj", configured(t, map[string]any{
		"broker_url": file(t), "result_backend": "redis://", "redis_host": host, "redis_port": number, "redis_db": 5,
		"redis_username": "keeper", "redis_password": "p@ss", "redis_client_name": "keeping",
		"redis_backend_health_check_interval": 3, "redis_socket_timeout": 4, "redis_socket_connect_timeout": 2,
	}), lovage.WithLogger(slog.New(slog.DiscardHandler)))
	defer app.Close(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := app.Backend(ctx); err != nil {
		t.Fatal(err)
	}
	if list := server.Must(t, "CLIENT", "LIST"); !strings.Contains(list, " name=keeping ") || !strings.Contains(list, " db=5 ") || !strings.Contains(list, " user=keeper ") {
		t.Errorf("the server's clients are\n%s", list)
	}
}
