// Package transport reads transport options, the map of Celery's
// broker_transport_options and result_backend_transport_options that goes to a
// driver. The names are each driver's own.
package transport

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/internal/settings"
)

// Options reads options one by one and keeps the first mistake. It is for one
// goroutine.
type Options struct {
	raw map[string]any
	err error
}

// Read begins to read options, from code, from a file or from the environment.
func Read(raw map[string]any) *Options { return &Options{raw: raw} }

// ReadURL is Read with what the query of a URL says: it comes first, as kombu has
// it. The parameters of TLS are read by tlsurl.
func ReadURL(raw map[string]any, address string) *Options {
	q := Query(address)
	if len(q) == 0 {
		return Read(raw)
	}
	all := maps.Clone(raw)
	if all == nil {
		all = map[string]any{}
	}
	for name := range q {
		if !slices.Contains(accounts, name) {
			all[name] = q.Get(name)
		}
	}
	return Read(all)
}

// accounts are what a query is not to have: it stands in logs.
var accounts = []string{"username", "password"}

// Query takes the query of a URL, or of the first that has one in a list of
// sentinels or nodes.
func Query(address string) url.Values {
	_, query, _ := strings.Cut(address, "?")
	query, _, _ = strings.Cut(query, ";")
	query, _, _ = strings.Cut(query, "#")
	q, _ := url.ParseQuery(query) // without what is malformed, as the drivers' parsers have it
	return q
}

// Err is the first mistake, nil if there was none.
func (o *Options) Err() error { return o.err }

// Value is an option as it is, nil if it is not set.
func (o *Options) Value(name string) any { return o.raw[name] }

// Text reads a text.
func (o *Options) Text(name, def string) string {
	switch v := o.raw[name].(type) {
	case nil:
		return def
	case string:
		return v
	default:
		o.wrong(name, "a text")
		return def
	}
}

// Flag reads true or false.
func (o *Options) Flag(name string, def bool) bool {
	switch v := o.raw[name].(type) {
	case nil:
		return def
	case bool:
		return v
	case string:
		if b, err := strconv.ParseBool(strings.ToLower(v)); err == nil {
			return b
		}
	}
	o.wrong(name, "true or false")
	return def
}

// Seconds reads a duration written as a number of seconds.
func (o *Options) Seconds(name string, def time.Duration) time.Duration {
	switch v := o.raw[name].(type) {
	case nil:
		return def
	case time.Duration:
		return v
	}
	f, ok := number(o.raw[name])
	if !ok || f < 0 {
		o.wrong(name, "a number of seconds")
		return def
	}
	return time.Duration(f * float64(time.Second))
}

// Positive is Seconds where zero stands for the default as well.
func (o *Options) Positive(name string, def time.Duration) time.Duration {
	if d := o.Seconds(name, def); d > 0 {
		return d
	}
	return def
}

// Whole reads a whole number.
func (o *Options) Whole(name string, def int) int {
	if o.raw[name] == nil {
		return def
	}
	n, ok := whole(o.raw[name])
	if !ok {
		o.wrong(name, "a whole number")
		return def
	}
	return n
}

// Wholes reads a list of whole numbers.
func (o *Options) Wholes(name string, def []int) []int {
	var out []int
	switch v := o.raw[name].(type) {
	case nil:
		return def
	case []int:
		return v
	case []any:
		for _, x := range v {
			n, ok := whole(x)
			if !ok {
				o.wrong(name, "a list of whole numbers")
				return def
			}
			out = append(out, n)
		}
		return out
	}
	o.wrong(name, "a list of whole numbers")
	return def
}

// Sub reads a map of further options. Their mistakes are kept by what it returns.
func (o *Options) Sub(name string) *Options {
	switch v := o.raw[name].(type) {
	case nil:
	case map[string]any:
		return Read(v)
	default:
		o.wrong(name, "a map")
	}
	return Read(nil)
}

// wrong does not quote what it got, which may be a secret.
func (o *Options) wrong(name, want string) {
	if o.err == nil {
		o.err = fmt.Errorf("transport option %s: want %s, got a value of type %T", name, want, o.raw[name])
	}
}

func whole(v any) (int, bool) {
	f, ok := number(v)
	return int(f), ok && f == float64(int(f))
}

func number(v any) (float64, bool) {
	if s, ok := v.(string); ok {
		f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		return f, err == nil
	}
	return settings.Number(v)
}
