package faults_test

import (
	"strings"
	"testing"

	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// rabbitmq is a broker with results in Redis, each behind a proxy of its own.
func rabbitmq(t *testing.T) stores {
	t.Helper()
	server, results := testenv.RabbitMQ(t), testenv.Redis(t)
	s := redis(t, results)
	url := server.Vhost(t)
	s.broker = testenv.NewProxy(t, server.Addr)
	s.direct.BrokerURL, s.through.BrokerURL = url, strings.Replace(url, server.Addr, s.broker.Addr, 1)
	s.resends = true
	s.through.BrokerTransportOptions = map[string]any{"heartbeat": 1}
	return s
}

// TestRabbitMQ: the server takes back what a lost connection had claimed, at once,
// and it runs a second time.
func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	for _, f := range network() {
		f.repeats = "RabbitMQ gives back what a lost connection has claimed"
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			try(t, rabbitmq(t), worker.Config{}, f)
		})
	}
}
