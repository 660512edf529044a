package matrix_test

import (
	"context"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
)

func memoryStores() stores {
	store := memory.New()
	return stores{
		conf: lovage.Config{},
		opts: []lovage.AppOption{
			lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
			lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }),
		},
	}
}

func TestMemory(t *testing.T) {
	testBroker(t, "memory", func(*testing.T) stores { return memoryStores() })
}
