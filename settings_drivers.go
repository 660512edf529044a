package lovage

import (
	"fmt"
	"maps"
	"time"
)

// forDrivers adds the settings that a driver has to honour to the transport
// options, under the names that drivers read. What the options say already wins.
// An option that a driver does not know has no effect there.
func (r *resolved) forDrivers() error {
	for _, q := range []struct {
		kind               string
		exclusive, durable bool
	}{{"event", r.EventQueueExclusive, r.EventQueueDurable}, {"control", r.ControlQueueExclusive, r.ControlQueueDurable}} {
		if q.exclusive && q.durable {
			return fmt.Errorf("settings %[1]s_queue_durable and %[1]s_queue_exclusive are both true: an exclusive queue goes with its connection, set one to false", q.kind)
		}
	}
	to := map[string]any{
		"heartbeat": limit(r.BrokerHeartbeat), "delayed_queue_type": r.BrokerNativeDelayedDeliveryQueueType,
		"event_queue_prefix": r.EventQueuePrefix, "event_queue_exclusive": r.EventQueueExclusive, "event_queue_durable": r.EventQueueDurable,
		"event_queue_expires": limit(r.EventQueueExpires), "event_queue_ttl": limit(r.EventQueueTTL),
		"control_queue_exclusive": r.ControlQueueExclusive, "control_queue_durable": r.ControlQueueDurable,
		"control_queue_expires": limit(r.ControlQueueExpires), "control_queue_ttl": limit(r.ControlQueueTTL),
	}
	given(to, "login_method", r.BrokerLoginMethod)
	given(to, "max_priority", max(r.TaskQueueMaxPriority, 0))
	if r.BrokerUseSSL != nil {
		to["ssl"] = r.BrokerUseSSL
	}
	maps.Copy(to, r.BrokerTransportOptions)
	r.BrokerTransportOptions = to

	to = map[string]any{"socket_timeout": bounded(r.RedisSocketTimeout), "socket_connect_timeout": bounded(r.RedisSocketConnectTimeout)}
	given(to, "host", r.RedisHost)
	given(to, "port", r.RedisPort)
	given(to, "db", r.RedisDB)
	given(to, "username", r.RedisUsername)
	given(to, "password", r.RedisPassword)
	given(to, "client_name", r.RedisClientName)
	given(to, "health_check_interval", r.RedisBackendHealthCheckInterval)
	if r.RedisBackendUseSSL != nil {
		to["ssl"] = r.RedisBackendUseSSL
	}
	maps.Copy(to, r.ResultBackendTransportOptions)
	r.ResultBackendTransportOptions = to
	return nil
}

// given sets an option whose setting is not at its default, which is that of the
// drivers.
func given[T comparable](to map[string]any, name string, v T) {
	if v != *new(T) {
		to[name] = v
	}
}

// bounded is a wait that may have no limit, for a driver that needs one.
func bounded(d time.Duration) time.Duration {
	if d == NoLimit {
		return 24 * time.Hour
	}
	return d
}
