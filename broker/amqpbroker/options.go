package amqpbroker

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// options are what the transport options say; see [Open].
type options struct {
	heartbeat time.Duration
	timeout   time.Duration // of connecting, and of a call whose context has no deadline
	frameMax  int
	login     string // PLAIN, AMQPLAIN, EXTERNAL

	claims time.Duration // the server's consumer_timeout; 0: it has none

	passive   bool   // declare nothing, look whether it is there
	queueType string // of queues that do not say
	priority  int    // x-max-priority of queues that do not say
	dead      string // queue of dead letters
	quorum    bool   // the delay queues are quorum queues

	eventExclusive   bool
	controlExclusive bool
}

func readOptions(raw map[string]any) (o options, err error) {
	r := reader{raw: raw}
	o = options{
		heartbeat: r.seconds("heartbeat", 10*time.Second),
		timeout:   r.seconds("connect_timeout", 10*time.Second),
		frameMax:  r.whole("frame_max", 0),
		login:     r.text("login_method", ""),

		claims: r.seconds("consumer_timeout", 30*time.Minute),

		passive:   r.flag("passive", false),
		queueType: r.text("queue_type", ""),
		priority:  r.whole("max_priority", 0),
		dead:      r.text("dead_letter_queue", "lovage.dead"),
		quorum:    r.text("delayed_queue_type", "quorum") == "quorum",

		eventExclusive:   r.flag("event_queue_exclusive", true),
		controlExclusive: r.flag("control_queue_exclusive", true),
	}
	switch {
	case r.err != nil:
		return o, r.err
	case o.queueType != "" && o.queueType != "classic" && o.queueType != "quorum":
		return o, fmt.Errorf("transport option queue_type is %q: use classic or quorum", o.queueType)
	case o.priority < 0 || o.priority > 255:
		return o, fmt.Errorf("transport option max_priority is %d: use 0 to 255, and 10 at most to be quick", o.priority)
	}
	return o, nil
}

// reader reads options one by one and keeps the first mistake.
type reader struct {
	raw map[string]any
	err error
}

func (r *reader) text(name, def string) string {
	switch v := r.raw[name].(type) {
	case nil:
		return def
	case string:
		return v
	default:
		r.wrong(name, "a text", v)
		return def
	}
}

func (r *reader) flag(name string, def bool) bool {
	switch v := r.raw[name].(type) {
	case nil:
		return def
	case bool:
		return v
	default:
		r.wrong(name, "true or false", v)
		return def
	}
}

func (r *reader) seconds(name string, def time.Duration) time.Duration {
	if d, ok := r.raw[name].(time.Duration); ok {
		return d
	}
	if r.raw[name] == nil {
		return def
	}
	f, ok := number(r.raw[name])
	if !ok || f < 0 {
		r.wrong(name, "a number of seconds", r.raw[name])
		return def
	}
	return time.Duration(f * float64(time.Second))
}

func (r *reader) whole(name string, def int) int {
	if r.raw[name] == nil {
		return def
	}
	f, ok := number(r.raw[name])
	if !ok || f != float64(int(f)) {
		r.wrong(name, "a whole number", r.raw[name])
		return def
	}
	return int(f)
}

func (r *reader) wrong(name, want string, got any) {
	if r.err == nil {
		r.err = fmt.Errorf("transport option %s: want %s, got %v", name, want, got)
	}
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, true
	case json.Number:
		f, err := n.Float64()
		return f, err == nil
	case string:
		f, err := strconv.ParseFloat(n, 64)
		return f, err == nil
	}
	return 0, false
}
