package interop_test

import (
	"testing"

	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestInteropRabbitMQ runs the table over RabbitMQ, with results in Redis.
func TestInteropRabbitMQ(t *testing.T) {
	t.Parallel()
	redis := testenv.Redis(t)
	runTable(t, start(t, urls{testenv.RabbitMQ(t).Vhost(t), redis.URL(redis.DB(t))}, false), 288)
}

// TestInteropRPC runs it with results that go to their callers as messages.
func TestInteropRPC(t *testing.T) {
	t.Parallel()
	runTable(t, start(t, urls{testenv.RabbitMQ(t).Vhost(t), "rpc://"}, false), 144)
}
