package lovage

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
)

// Broker opens the broker at first use and returns the App's connection to it.
func (a *App) Broker(ctx context.Context) (broker.Conn, error) {
	if err := a.Freeze(); err != nil {
		return nil, err
	}
	var f *failover
	if a.openBroker == nil && !a.conn.Opened() { // a mistake of the configuration needs no back-off
		var err error
		if f, err = a.brokers(false); err != nil {
			return nil, err
		}
	}
	conn, err := a.conn.Get(ctx, func(ctx context.Context) (broker.Conn, error) {
		if a.openBroker != nil {
			return a.openBroker(ctx)
		}
		if f == nil { // another has closed it in between
			var err error
			if f, err = a.brokers(false); err != nil {
				return nil, err
			}
		}
		return f.open(ctx, a.openURL)
	})
	return conn, closedError(err)
}

// closedError names the App where one of its own connections is closed.
func closedError(err error) error {
	if errors.Is(err, ErrLazyClosed) {
		return ErrClosed
	}
	return err
}

// Backend opens the result store at first use. Without one the error is ErrNoBackend.
func (a *App) Backend(ctx context.Context) (backend.Backend, error) {
	if err := a.Freeze(); err != nil {
		return nil, err
	}
	var url string
	if a.openBackend == nil && !a.back.Opened() {
		var err error
		if url, err = a.backendURL(); err != nil {
			return nil, err
		}
	}
	b, err := a.back.Get(ctx, func(ctx context.Context) (backend.Backend, error) {
		if a.openBackend != nil {
			return a.openBackend(ctx)
		}
		brokerURL, _ := a.brokerURL() // for results as messages, which miss it if it is needed
		return backend.Open(ctx, backend.Config{
			URL: url, Options: a.conf.ResultBackendTransportOptions, Logger: a.log, OpenBroker: a.openSameBroker,
			BrokerURL: brokerURL, BrokerOptions: a.conf.BrokerTransportOptions, Expires: a.resultExpires(), Persistent: a.conf.ResultPersistent,
		})
	})
	return b, closedError(err)
}

// stores reports whether results can be kept at all, without opening anything.
func (a *App) stores() bool {
	if a.openBackend != nil {
		return true
	}
	url, err := a.backendURL()
	return err == nil && url != ""
}

// byReply reports whether results go to their callers as messages.
func (a *App) byReply() bool {
	if a.openBackend != nil {
		return false
	}
	url, err := a.backendURL()
	return err == nil && strings.HasPrefix(url, "rpc:")
}

// noChords says why chords cannot be run here, or nil: their members have to be
// counted, or looked at, by whoever ends last.
func (a *App) noChords() error {
	switch {
	case !a.stores():
		return errors.New("there is no result store to count the members in: set result_backend")
	case a.byReply():
		return errors.New("results go to their callers by rpc://, so that no worker can count the members: set result_backend to a store, such as Redis")
	}
	return nil
}

// OpenBroker opens a broker connection of its own, beside the App's: a worker
// consumes on one. The caller closes it.
func (a *App) OpenBroker(ctx context.Context) (broker.Conn, error) {
	if err := a.Freeze(); err != nil {
		return nil, err
	}
	if a.openBroker != nil {
		return a.openBroker(ctx)
	}
	f, err := a.brokers(true)
	if err != nil {
		return nil, err
	}
	return f.open(ctx, a.openURL)
}

// openSameBroker opens a connection to the broker that the App publishes to, for
// results as messages.
func (a *App) openSameBroker(ctx context.Context) (any, error) {
	if a.openBroker != nil {
		return a.openBroker(ctx)
	}
	f, err := a.brokers(false)
	if err != nil {
		return nil, err
	}
	return f.open(ctx, func(ctx context.Context, url string) (broker.Conn, error) {
		return broker.Open(ctx, broker.Config{URL: url, Options: a.conf.BrokerTransportOptions, Logger: a.log})
	})
}

func (a *App) openURL(ctx context.Context, url string) (broker.Conn, error) {
	return broker.Open(ctx, broker.Config{
		URL: url, Options: a.conf.BrokerTransportOptions, Logger: a.log, MaxBody: a.conf.TaskMaxMessageSize,
	})
}

func (a *App) brokerURL() (string, error) {
	switch {
	case a.conf.BrokerWriteURL != "":
		return a.conf.BrokerWriteURL, nil
	case a.conf.BrokerURL != "":
		return a.conf.BrokerURL, nil
	}
	b, _, err := defaultURLs(a.name, a.log)
	if err != nil {
		return "", err
	}
	if b == "" {
		return "", errors.New("lovage: broker_url is not set: set Config.BrokerURL, or import _ \"github.com/lovage-go/lovage/embedded\" in main for the embedded store")
	}
	return b, nil
}

func (a *App) backendURL() (string, error) {
	switch a.conf.ResultBackend {
	case "":
	case "disabled", "disabled://":
		return "", ErrNoBackend
	default:
		return a.conf.ResultBackend, nil
	}
	if a.conf.BrokerURL != "" || a.openBroker != nil {
		return "", ErrNoBackend
	}
	_, b, err := defaultURLs(a.name, a.log)
	if err != nil {
		return "", err
	}
	if b == "" {
		return "", ErrNoBackend
	}
	return b, nil
}

// defaults is the write-once table that package embedded fills.
var defaults struct {
	sync.Mutex
	urls func(app string, log *slog.Logger) (brokerURL, backendURL string, err error)
}

// SetDefaultURLs gives URLs to Apps that configure none. It is for package
// embedded, called from its init; a second call panics.
func SetDefaultURLs(f func(app string, log *slog.Logger) (brokerURL, backendURL string, err error)) {
	defaults.Lock()
	defer defaults.Unlock()
	if defaults.urls != nil {
		panic("lovage: SetDefaultURLs is called twice")
	}
	defaults.urls = f
}

func defaultURLs(app string, log *slog.Logger) (string, string, error) {
	defaults.Lock()
	f := defaults.urls
	defaults.Unlock()
	if f == nil {
		return "", "", nil
	}
	return f(app, log)
}

// URLs are where the App's messages and results go, for people to read:
// passwords are masked. A connection that an option of New opens is "custom",
// none at all is "".
func (a *App) URLs() (brokerURL, resultBackend string) {
	const custom = "custom"
	if brokerURL = custom; a.openBroker == nil {
		url, _ := a.brokerURL()
		brokerURL = broker.Redact(url)
	}
	if resultBackend = custom; a.openBackend == nil {
		url, _ := a.backendURL()
		resultBackend = broker.Redact(url)
	}
	return brokerURL, resultBackend
}
