package lovage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// failover opens one of several brokers. It stays with the one that worked last
// and goes on to the next when that cannot be opened.
type failover struct {
	urls []string // in the order of broker_failover_strategy
	log  *slog.Logger

	mu sync.Mutex
	at int // which worked last
}

func newFailover(list, strategy string, r *randomness, log *slog.Logger) *failover {
	f := &failover{urls: broker.URLs(list), log: log}
	if strategy == "shuffle" {
		for i := len(f.urls) - 1; i > 0; i-- {
			j := r.int64n(int64(i))
			f.urls[i], f.urls[j] = f.urls[j], f.urls[i]
		}
	}
	return f
}

// several reports whether there is a choice.
func (f *failover) several() bool { return len(f.urls) > 1 }

// open tries each URL once, the one that worked last first. Each has an equal
// part of the time that is left.
func (f *failover) open(ctx context.Context, try func(ctx context.Context, url string) (broker.Conn, error)) (broker.Conn, error) {
	if !f.several() {
		return try(ctx, f.urls[0])
	}
	f.mu.Lock()
	first := f.at
	f.mu.Unlock()
	var errs []error
	for i := range f.urls {
		at := (first + i) % len(f.urls)
		bounded, cancel := ctx, func() {}
		if end, ok := ctx.Deadline(); ok {
			bounded, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(len(f.urls)-i))
		}
		conn, err := try(bounded, f.urls[at])
		late := bounded.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil {
			f.mu.Lock()
			f.at = at
			f.mu.Unlock()
			if i > 0 {
				f.log.Warn("another broker is used", "broker", broker.Redact(f.urls[at]), "instead_of", broker.Redact(f.urls[first]), "error", errs[0])
			}
			return conn, nil
		}
		if late {
			err = fmt.Errorf("no answer in time: %w", broker.ErrUnavailable)
		}
		errs = append(errs, fmt.Errorf("%s: %w", broker.Redact(f.urls[at]), err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("none of %d brokers can be opened: %w", len(f.urls), errors.Join(errs...))
}

// brokers gives the choice for consuming or for publishing, one for both if they
// go to the same URLs, so that they also stay together.
func (a *App) brokers(read bool) (*failover, error) {
	url := a.conf.BrokerReadURL
	if url == "" || !read {
		var err error
		if url, err = a.brokerURL(); err != nil {
			return nil, err
		}
	}
	a.choice.Lock()
	defer a.choice.Unlock()
	f := a.choice.of[url]
	if f == nil {
		f = newFailover(url, a.conf.BrokerFailoverStrategy, a.rand, a.log)
		if a.choice.of == nil {
			a.choice.of = map[string]*failover{}
		}
		a.choice.of[url] = f
	}
	return f, nil
}

// failed takes a look at an error of the connection to publish by. If there is
// another broker to go to the connection is closed, so that the next use opens
// one that works, and the error is one that may be gone then.
func (a *App) failed(ctx context.Context, conn broker.Conn, err error) error {
	if a.openBroker != nil || !broker.Retryable(err) && !errors.Is(err, broker.ErrClosed) {
		return err
	}
	f, e := a.brokers(false)
	if e != nil || !f.several() {
		return err
	}
	if gone, _ := a.conn.discard(ctx, func(c broker.Conn) bool { return c == conn }); gone {
		a.declared.Clear() // the next one may know none of the queues
	}
	if broker.Retryable(err) || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err) // closed by whoever saw it fail first
}
