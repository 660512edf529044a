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
	f := start(t, urls{testenv.RabbitMQ(t).Vhost(t), redis.URL(redis.DB(t))}, false)
	runTable(t, f, 288)
	t.Run("ExpiresReserved", f.expiresReserved)
}

// TestInteropRPC runs it with results that go to their callers as messages.
func TestInteropRPC(t *testing.T) {
	t.Parallel()
	f := start(t, urls{testenv.RabbitMQ(t).Vhost(t), "rpc://"}, false)
	runTable(t, f, 144)
	t.Run("ExpiresReserved", f.expiresReserved)
}
