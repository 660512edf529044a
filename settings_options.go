package lovage

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/settings"
	"github.com/lovage-go/lovage/internal/transport"
)

// transportOption is a row of the tables of transport options: one that drivers
// heed, or one of kombu's or Celery's that has no meaning here.
type transportOption struct {
	Name    string
	Of      string // the drivers that heed it: redis amqp sqlite
	Doc     string // one line; with its default, if it has one
	Refused string // why no driver does
	Holds   string // the value that asks for nothing then: it is so anyway
}

const everyBroker = "redis amqp sqlite memory"

// brokerOptions are those of broker_transport_options. A test holds them against
// what the drivers read.
var brokerOptions = append([]transportOption{
	{Name: "ack_emulation", Refused: "a message is kept until it is acknowledged", Holds: "true"},
	{Name: "authentication", Refused: "use login_method"},
	{Name: "body_encoding", Refused: "bodies are base64, as kombu's by default; others are read", Holds: "base64"},
	{Name: "channel_max", Refused: "a connection opens as many channels as it has queues, and the server has its own limit"},
	{Name: "client_properties", Refused: "the connection names the program and its version"},
	{Name: "confirm_publish", Refused: "every publish is confirmed", Holds: "true"},
	{Name: "connect_timeout", Of: "amqp", Doc: "seconds for a connection to be made; 10"},
	{Name: "consumer_timeout", Of: "amqp", Doc: "seconds for which the server lets a message be claimed; 1800, 0: for ever"},
	{Name: "control_queue_durable", Of: "amqp", Doc: "in place of the setting of that name"},
	{Name: "control_queue_exclusive", Of: "amqp", Doc: "in place of the setting of that name"},
	{Name: "control_queue_expires", Of: "amqp", Doc: "in place of the setting of that name"},
	{Name: "control_queue_ttl", Of: "amqp", Doc: "in place of the setting of that name"},
	{Name: "dead_letter_queue", Of: "amqp", Doc: "queue of dead letters; lovage.dead"},
	{Name: "deadletter_queue", Refused: "a message that no binding takes goes to the queue that its sender names"},
	{Name: "delayed_queue_type", Of: "amqp", Doc: "in place of broker_native_delayed_delivery_queue_type"},
	{Name: "event_queue_durable", Of: "amqp", Doc: "in place of the setting of that name"},
	{Name: "event_queue_exclusive", Of: "amqp", Doc: "in place of the setting of that name"},
	{Name: "event_queue_expires", Of: "amqp", Doc: "in place of the setting of that name"},
	{Name: "event_queue_prefix", Of: "amqp", Doc: "in place of the setting of that name"},
	{Name: "event_queue_ttl", Of: "amqp", Doc: "in place of the setting of that name"},
	{Name: "fanout_patterns", Of: "redis", Doc: "channels of fanout exchanges are named with the routing key; true"},
	{Name: "fanout_prefix", Of: "redis", Doc: "before the names of channels: true is /DB., false nothing; true"},
	{Name: "frame_max", Of: "amqp", Doc: "largest frame, in bytes; as the server says"},
	{Name: "heartbeat", Of: "amqp", Doc: "in place of broker_heartbeat"},
	{Name: "insist", Refused: "the protocol has it no more"},
	{Name: "interval_max", Refused: "use broker_connection_interval_max, and task_publish_retry_policy for calls"},
	{Name: "interval_start", Refused: "the first pause is 50 ms; for calls use task_publish_retry_policy"},
	{Name: "interval_step", Refused: "each pause is twice the one before; for calls use task_publish_retry_policy"},
	{Name: "locale", Refused: "the server's texts are in English"},
	{Name: "login_method", Of: "amqp", Doc: "in place of broker_login_method"},
	{Name: "max_priority", Of: "amqp", Doc: "in place of task_queue_max_priority"},
	{Name: "max_retries", Refused: "use broker_connection_max_retries, and task_publish_retry_policy for calls"},
	{Name: "passive", Of: "amqp", Doc: "declare nothing but a program's own queues; false"},
	{Name: "polling_interval", Refused: "nothing is polled: a worker waits for the server's word"},
	{Name: "priority_steps", Of: "redis", Doc: "priorities that have a list of their own; [0, 3, 6, 9]"},
	{Name: "queue_order_strategy", Of: everyBroker, Doc: "how a worker chooses among its queues: round_robin, priority (as they are written) or sorted (by name); round_robin"},
	{Name: "queue_type", Of: "amqp", Doc: "type of queues that do not say: classic or quorum; the server's"},
	{Name: "read_timeout", Refused: "a connection that is silent for two heartbeats is lost: use heartbeat"},
	{Name: "sep", Of: "redis", Doc: "between a queue and its priority in the name of a list"},
	{Name: "socket_settings", Refused: "use heartbeat to notice a connection that is dead"},
	{Name: "unacked_index_key", Of: "redis", Doc: "kombu's key; unacked_index"},
	{Name: "unacked_key", Of: "redis", Doc: "kombu's key; unacked"},
	{Name: "unacked_mutex_expire", Refused: "a sweep of Go workers needs no lock"},
	{Name: "unacked_mutex_key", Refused: "a sweep of Go workers needs no lock"},
	{Name: "unacked_restore_limit", Refused: "what a dead worker held is given back in small parts"},
	{Name: "visibility_timeout", Of: "redis", Doc: "seconds after which claims of Python workers are given back to their queue; none: their own workers do it. A Go worker's claims have their lease"},
	{Name: "write_timeout", Refused: "a publish ends by broker_publish_timeout or its context"},
	{Name: "lease", Of: "redis sqlite", Doc: "seconds for which a worker that is not heard of keeps its messages; 30"},
}, storeOptions...)

// resultOptions are those of result_backend_transport_options.
var resultOptions = append([]transportOption{
	{Name: "lease", Of: "sqlite", Doc: "as for the broker in the same file"},
	{Name: "polling_interval", Refused: "nothing is polled: who waits is told"},
	{Name: "result_chord_ordered", Of: "redis", Doc: "the results of a chord are in the order of its header; true"},
	{Name: "retry_policy", Refused: "a worker keeps the ends of its tasks until the store takes them; a caller has its context"},
	{Name: "visibility_timeout", Refused: "it is for messages: set it in broker_transport_options"},
}, storeOptions...)

// storeOptions are those of connections to a server or a file, for either use.
var storeOptions = []transportOption{
	{Name: "client_name", Of: "redis", Doc: "name of the connections; lovage"},
	{Name: "db", Of: "redis", Doc: "number of the database, if the URL has none; 0"},
	{Name: "global_keyprefix", Of: "redis", Doc: "before the name of each key"},
	{Name: "health_check_interval", Of: "redis", Doc: "seconds for which a connection may be silent before it is tried; 5"},
	{Name: "host", Of: "redis", Doc: "if the URL has none; localhost"},
	{Name: "lock_timeout", Of: "sqlite", Doc: "seconds to wait for another process's transaction; 10"},
	{Name: "master_name", Of: "redis", Doc: "name that the sentinels of a sentinel:// URL know the master by"},
	{Name: "max_connections", Refused: "there is no pool: a connection carries many commands at a time"},
	{Name: "max_pages", Of: "sqlite", Doc: "largest file, in pages of 4 KiB; any"},
	{Name: "min_other_sentinels", Refused: "each sentinel that answers is believed"},
	{Name: "password", Of: "redis", Doc: "if the URL has none"},
	{Name: "port", Of: "redis", Doc: "if the URL has none; 6379"},
	{Name: "retry_on_timeout", Refused: "what can be tried again is", Holds: "true"},
	{Name: "sentinel_kwargs", Of: "redis", Doc: "map of the password and username for the sentinels"},
	{Name: "socket_connect_timeout", Of: "redis", Doc: "seconds for a connection to be made; 5"},
	{Name: "socket_keepalive", Refused: "connections are always kept alive", Holds: "true"},
	{Name: "socket_keepalive_options", Refused: "use health_check_interval"},
	{Name: "socket_timeout", Of: "redis", Doc: "seconds for an answer; 10"},
	{Name: "ssl", Of: "redis amqp", Doc: "TLS where the URL does not say so: true, or a map of files"},
	{Name: "synchronous", Of: "sqlite", Doc: "full: what is confirmed survives a power loss; normal: a crash of the program; full"},
	{Name: "username", Of: "redis", Doc: "if the URL has none"},
}

// urlParameters are what the query of a URL may have beside the options, and the
// options that it may not have.
var urlParameters = []transportOption{
	{Name: "password", Refused: "write it before the @ of the URL, where logs mask it"},
	{Name: "queue_order_strategy", Refused: "the worker reads it: set it in broker_transport_options"},
	{Name: "server_hostname", Of: "redis amqp", Doc: "name in the server's certificate, if it is not the host"},
	{Name: "ssl_ca_certs", Of: "redis amqp", Doc: "file of the authorities; the system's"},
	{Name: "ssl_cert_reqs", Of: "redis amqp", Doc: "required, or none: the certificate is not checked; required"},
	{Name: "ssl_certfile", Of: "redis amqp", Doc: "file of the client's certificate"},
	{Name: "ssl_keyfile", Of: "redis amqp", Doc: "file of its key, if it is elsewhere"},
	{Name: "username", Refused: "write it before the @ of the URL"},
	{Name: "virtual_host", Of: "redis", Doc: "number of the database, for URLs whose path is a socket"},
}

// warnOfOptions tells of transport options that have no effect, in the URLs and in
// the settings for them. A child's parent has told.
func (a *App) warnOfOptions() {
	if IsChild() {
		return
	}
	if a.openBroker == nil {
		url, err := a.brokerURL()
		a.warnOf("broker_transport_options", brokerOptions, a.cfg.BrokerTransportOptions, err, url, a.conf.BrokerReadURL)
		a.warnOfQuery("broker_url", brokerOptions, err, url)
		if a.conf.BrokerReadURL != url {
			a.warnOfQuery("broker_read_url", brokerOptions, nil, a.conf.BrokerReadURL)
		}
	}
	if a.openBackend == nil {
		url, err := a.backendURL()
		a.warnOf("result_backend_transport_options", resultOptions, a.cfg.ResultBackendTransportOptions, err, url)
		a.warnOfQuery("result_backend", resultOptions, err, url)
	}
}

// warnOfQuery is warnOf for the queries of URLs.
func (a *App) warnOfQuery(setting string, rows []transportOption, err error, list string) {
	rows = slices.Concat(urlParameters, rows) // of two of one name the first holds
	slices.SortStableFunc(rows, func(a, b transportOption) int { return strings.Compare(a.Name, b.Name) })
	rows = slices.CompactFunc(rows, func(a, b transportOption) bool { return a.Name == b.Name })
	for _, url := range broker.URLs(list) {
		if driverOf(url) == "sqlite" {
			continue // it refuses what it does not know
		}
		given := map[string]any{}
		for name, values := range transport.Query(url) {
			given[name] = values[0]
		}
		a.warnOf(setting, rows, given, err, url)
	}
}

func (a *App) warnOf(setting string, rows []transportOption, given map[string]any, err error, lists ...string) {
	if err != nil {
		return // it comes back from the first use
	}
	var drivers []string
	for _, list := range lists {
		for _, url := range broker.URLs(list) {
			d := driverOf(url)
			if d == "" && url != "" {
				return // a driver from elsewhere has options of its own
			}
			if d != "" && !slices.Contains(drivers, d) {
				drivers = append(drivers, d)
			}
		}
	}
	source := a.cfg.origin[setting]
	if source == "" {
		source = "code"
	}
	for _, name := range sortedKeys(given) {
		if text := unheeded(name, given[name], rows, drivers); text != "" {
			w := Warning{setting, source, text}
			a.log.Warn(w.String(), "setting", setting, "source", source, "option", name)
		}
	}
}

// unheeded says why none of the drivers heeds an option, "" if one does, or if
// there is nothing to tell: in memory no option asks for anything.
func unheeded(name string, value any, rows []transportOption, drivers []string) string {
	heeds := func(r transportOption) bool {
		return slices.ContainsFunc(drivers, func(d string) bool { return slices.Contains(strings.Fields(r.Of), d) })
	}
	i := slices.IndexFunc(rows, func(r transportOption) bool { return r.Name == name })
	switch {
	case i < 0:
		var all, ours []string
		for _, r := range rows {
			if all = append(all, r.Name); heeds(r) {
				ours = append(ours, r.Name)
			}
		}
		slices.Sort(ours)
		text := fmt.Sprintf("there is no option %q.", name)
		if near := settings.Closest(name, all); near != "" {
			text = fmt.Sprintf("there is no option %q; did you mean %s?", name, near)
		}
		return text + " Those of " + strings.Join(drivers, " and ") + ": " + orNone(ours)
	case settings.None(value), heeds(rows[i]), slices.Equal(drivers, []string{"memory"}):
		return ""
	case rows[i].Refused == "":
		return name + " has no effect with " + strings.Join(drivers, " and ") + ": it is an option of " + strings.ReplaceAll(rows[i].Of, " ", " and ")
	case strings.EqualFold(fmt.Sprint(value), rows[i].Holds):
		return ""
	}
	return name + " has no effect here: " + rows[i].Refused
}

func orNone(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// driverOf names the drivers of this module that open a URL, as the tables do;
// "" for others.
func driverOf(url string) string {
	scheme, _, _ := strings.Cut(url, ":")
	switch scheme {
	case "redis", "rediss", "redis+socket", "socket", "sentinel", "rediscluster", "redis+cluster", "rediss+cluster":
		return "redis"
	case "amqp", "amqps", "pyamqp", "pyamqps", "librabbitmq":
		return "amqp"
	case "memory", "cache+memory":
		return "memory"
	case "sqlite", "rpc":
		return scheme
	}
	return ""
}
