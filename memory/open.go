package memory

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
)

// named holds the stores that URLs name. An entry is written once.
var named = struct {
	sync.Mutex
	m map[string]*Store
}{m: map[string]*Store{}}

// Named returns the store that memory://name opens, made if it is not there.
// The empty name is "default". Options count only for the first call.
func Named(name string, opts ...Option) *Store {
	name = cmp.Or(name, "default")
	named.Lock()
	defer named.Unlock()
	s := named.m[name]
	if s == nil {
		s = New(opts...)
		named.m[name] = s
	}
	return s
}

func nameOf(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("memory URL %q: %w: write it like memory://name", broker.Redact(raw), err)
	}
	return u.Host + strings.TrimSuffix(u.Path, "/"), nil
}

func openBroker(_ context.Context, cfg broker.Config) (broker.Conn, error) {
	name, err := nameOf(cfg.URL)
	if err != nil {
		return nil, err
	}
	opts := []Option{WithLogger(cfg.Log())}
	if cfg.MaxBody > 0 {
		opts = append(opts, WithMaxBody(cfg.MaxBody))
	}
	return Named(name, opts...).Broker(), nil
}

func openBackend(_ context.Context, cfg backend.Config) (backend.Backend, error) {
	name, err := nameOf(cfg.URL)
	if err != nil {
		return nil, err
	}
	return Named(name, WithLogger(cfg.Log())).Backend(), nil
}

func init() {
	broker.Register(openBroker, "memory")
	backend.Register(openBackend, "memory", "cache+memory")
}
