package sqlbroker

import (
	"context"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/sqlstore"
)

// OpenApart opens the store as another process would; set may change what the
// URL says.
func OpenApart(ctx context.Context, cfg broker.Config, set func(*sqlstore.Config)) (*Conn, error) {
	sc, err := sqlstore.ParseURL(cfg.URL, cfg.Options)
	if err != nil {
		return nil, err
	}
	sc.Private = true
	if set != nil {
		set(&sc)
	}
	return open(ctx, cfg, sc)
}

// Abandon cuts the connection off as kill -9 would.
func (c *Conn) Abandon() error { return c.db.Abandon() }
