package interop_test

import (
	"testing"

	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestInteropRedis runs the table over Redis, with results there too.
func TestInteropRedis(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	f := start(t, urls{url, url}, false)
	runTable(t, f, 300)
	t.Run("ExpiresReserved", f.expiresReserved)
}

// TestInteropRedisApart runs it with results in another database.
func TestInteropRedisApart(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	runTable(t, start(t, urls{server.URL(server.DB(t)), server.URL(server.DB(t))}, false), 300)
}
