package amqpbroker

import (
	"cmp"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/transport"
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

	ssl any // TLS also for amqp://

	events, control own
}

// own is how the queues are declared that events and remote control come by.
type own struct {
	exclusive, durable bool
	expires, ttl       time.Duration // 0: never
	prefix             string        // of the queues of events
}

func readOwn(r *transport.Options, kind string, expires, ttl time.Duration) (own, error) {
	o := own{
		exclusive: r.Flag(kind+"_queue_exclusive", true), durable: r.Flag(kind+"_queue_durable", false),
		expires: r.Seconds(kind+"_queue_expires", expires), ttl: r.Seconds(kind+"_queue_ttl", ttl),
	}
	if o.durable && o.exclusive {
		return o, fmt.Errorf("%s_queue_durable and %s_queue_exclusive are both true: an exclusive queue goes with its connection, set one to false", kind, kind)
	}
	return o, nil
}

// queue gives q the properties of such a queue.
func (o *own) queue(q broker.Queue) broker.Queue {
	q.AutoDelete, q.Exclusive, q.Transient, q.Arguments = true, o.exclusive, !o.durable, map[string]any{}
	for name, d := range map[string]time.Duration{"x-expires": o.expires, "x-message-ttl": o.ttl} {
		if d > 0 {
			q.Arguments[name] = d.Milliseconds()
		}
	}
	return q
}

func readOptions(raw map[string]any, address string) (o options, err error) {
	r := transport.ReadURL(raw, address)
	o = options{
		heartbeat: r.Seconds("heartbeat", 10*time.Second),
		timeout:   r.Seconds("connect_timeout", 10*time.Second),
		frameMax:  r.Whole("frame_max", 0),
		login:     r.Text("login_method", ""),

		claims: r.Seconds("consumer_timeout", 30*time.Minute),

		passive:   r.Flag("passive", false),
		queueType: r.Text("queue_type", ""),
		priority:  r.Whole("max_priority", 0),
		dead:      r.Text("dead_letter_queue", "lovage.dead"),
		quorum:    r.Text("delayed_queue_type", "quorum") == "quorum",

		ssl: r.Value("ssl"),
	}
	var events, control error
	o.events, events = readOwn(r, "event", time.Minute, 5*time.Second)
	o.control, control = readOwn(r, "control", 10*time.Second, 5*time.Minute)
	o.events.prefix = r.Text("event_queue_prefix", "")
	switch err := cmp.Or(r.Err(), events, control); {
	case err != nil:
		return o, err
	case o.queueType != "" && o.queueType != "classic" && o.queueType != "quorum":
		return o, fmt.Errorf("transport option queue_type is %q: use classic or quorum", o.queueType)
	case o.priority < 0 || o.priority > 255:
		return o, fmt.Errorf("transport option max_priority is %d: use 0 to 255, and 10 at most to be quick", o.priority)
	}
	return o, nil
}
