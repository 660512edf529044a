package sqlbackend

import (
	"context"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/internal/sqlstore"
)

// OpenApart opens the store as another process would.
func OpenApart(ctx context.Context, cfg backend.Config) (*Backend, error) {
	sc, err := sqlstore.ParseURL(cfg.URL, cfg.Options)
	if err != nil {
		return nil, err
	}
	sc.Private = true
	return open(ctx, cfg, sc)
}
