package broker

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sort"
	"strings"
	"sync"
)

// Config is what a driver is opened with.
type Config struct {
	URL     string
	Options map[string]any // broker_transport_options, Celery's names
	Logger  *slog.Logger   // nil: slog.Default()
	// MaxBody caps what is read from the broker, in bytes; 0 is the driver's default.
	MaxBody int
}

// Log returns the logger, never nil.
func (c Config) Log() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.Default()
}

// Opener opens a connection for a URL of its scheme.
type Opener func(ctx context.Context, cfg Config) (Conn, error)

var drivers = struct {
	sync.RWMutex
	m map[string]Opener
}{m: map[string]Opener{}}

// imports names the package to import for a scheme that is not linked in.
var imports = map[string]string{
	"memory":       "github.com/lovage-go/lovage/memory",
	"sqlite":       "github.com/lovage-go/lovage/broker/sqlbroker",
	"redis":        "github.com/lovage-go/lovage/broker/redisbroker",
	"rediss":       "github.com/lovage-go/lovage/broker/redisbroker",
	"redis+socket": "github.com/lovage-go/lovage/broker/redisbroker",
	"sentinel":     "github.com/lovage-go/lovage/broker/redisbroker",
}

// Register makes a driver available under URL schemes. It is called from a
// driver's init; a scheme registered twice panics.
func Register(open Opener, schemes ...string) {
	drivers.Lock()
	defer drivers.Unlock()
	for _, s := range schemes {
		if _, dup := drivers.m[s]; dup {
			panic("broker: scheme " + s + " registered twice")
		}
		drivers.m[s] = open
	}
}

// Open opens the broker that the URL's scheme names.
func Open(ctx context.Context, cfg Config) (Conn, error) {
	scheme, _, ok := strings.Cut(cfg.URL, ":")
	if !ok || scheme == "" {
		return nil, fmt.Errorf("broker_url %q has no scheme: write it like sqlite:///path/to/file.db or memory://", Redact(cfg.URL))
	}
	drivers.RLock()
	open := drivers.m[scheme]
	known := make([]string, 0, len(drivers.m))
	for s := range drivers.m {
		known = append(known, s)
	}
	drivers.RUnlock()
	if open != nil {
		return open(ctx, cfg)
	}
	sort.Strings(known)
	if pkg, ok := imports[scheme]; ok {
		return nil, fmt.Errorf("broker scheme %q is not linked into this program: add import _ %q", scheme, pkg)
	}
	return nil, fmt.Errorf("broker scheme %q is not known; this program has: %s", scheme, strings.Join(known, ", "))
}

// Redact masks the password in a broker or backend URL, for logs and errors.
func Redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		if i := strings.LastIndex(raw, "@"); i >= 0 {
			if j := strings.Index(raw, "://"); j >= 0 && j < i {
				return raw[:j+3] + "**" + raw[i:]
			}
		}
		return raw
	}
	if u.User != nil {
		if _, has := u.User.Password(); has {
			name := u.User.Username()
			u.User = nil
			s := u.String()
			return strings.Replace(s, "://", "://"+url.User(name).String()+":**@", 1)
		}
	}
	return raw
}
