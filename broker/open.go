package broker

import (
	"context"
	"log/slog"

	"github.com/lovage-go/lovage/internal/scheme"
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

var drivers = scheme.Table[Opener]{Kind: "broker", Setting: "broker_url", Import: map[string]string{
	"memory":       "github.com/lovage-go/lovage/memory",
	"sqlite":       "github.com/lovage-go/lovage/broker/sqlbroker",
	"redis":        "github.com/lovage-go/lovage/broker/redisbroker",
	"rediss":       "github.com/lovage-go/lovage/broker/redisbroker",
	"redis+socket": "github.com/lovage-go/lovage/broker/redisbroker",
	"sentinel":     "github.com/lovage-go/lovage/broker/redisbroker",
	"rediscluster": "github.com/lovage-go/lovage/broker/redisbroker",
	"amqp":         "github.com/lovage-go/lovage/broker/amqpbroker",
	"amqps":        "github.com/lovage-go/lovage/broker/amqpbroker",
	"pyamqp":       "github.com/lovage-go/lovage/broker/amqpbroker",
	"pyamqps":      "github.com/lovage-go/lovage/broker/amqpbroker",
	"librabbitmq":  "github.com/lovage-go/lovage/broker/amqpbroker",
}}

// Register makes a driver available under URL schemes. It is called from a
// driver's init; a scheme registered twice panics.
func Register(open Opener, schemes ...string) { drivers.Register(open, schemes...) }

// Open opens the broker that the URL's scheme names.
func Open(ctx context.Context, cfg Config) (Conn, error) {
	open, err := drivers.Lookup(cfg.URL, Redact(cfg.URL))
	if err != nil {
		return nil, err
	}
	return open(ctx, cfg)
}

// Redact masks the passwords in broker or backend URLs, for logs and errors.
func Redact(raw string) string { return scheme.Redact(raw) }

// URLs takes a list of broker URLs with ; between them apart, into those that can
// be used instead of one another: several sentinels, or nodes of one Redis Cluster,
// are one.
func URLs(list string) []string { return scheme.Split(list) }
