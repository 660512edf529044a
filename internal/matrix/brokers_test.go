package matrix_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/backend/sqlbackend"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	_ "github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/memory"
)

func TestMemory(t *testing.T) {
	testBroker(t, "memory", func(*testing.T) stores {
		store := memory.New()
		return stores{opts: []lovage.AppOption{
			lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
			lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }),
		}}
	})
}

func TestSQLite(t *testing.T) {
	testBroker(t, "sqlite", func(t *testing.T) stores {
		url := "sqlite://" + filepath.Join(t.TempDir(), "tasks.db")
		return stores{conf: lovage.Config{BrokerURL: url, ResultBackend: url}}
	})
}

func TestRedis(t *testing.T) {
	testBroker(t, "redis", func(t *testing.T) stores {
		server := testenv.Redis(t)
		url := server.URL(server.DB(t))
		s := stores{conf: lovage.Config{BrokerURL: url, ResultBackend: url}, proxy: testenv.NewProxy(t, server.Addr)}
		near := strings.Replace(url, server.Addr, s.proxy.Addr, 1)
		s.near = &lovage.Config{BrokerURL: near, ResultBackend: near}
		return s
	})
}

// TestRabbitMQ keeps results in Redis.
func TestRabbitMQ(t *testing.T) {
	testBroker(t, "rabbitmq", func(t *testing.T) stores {
		server, results := testenv.RabbitMQ(t), testenv.Redis(t)
		url, back := server.Vhost(t), results.URL(results.DB(t))
		s := stores{conf: lovage.Config{BrokerURL: url, ResultBackend: back}, proxy: testenv.NewProxy(t, server.Addr)}
		s.near = &lovage.Config{BrokerURL: strings.Replace(url, server.Addr, s.proxy.Addr, 1), ResultBackend: back}
		return s
	})
}
