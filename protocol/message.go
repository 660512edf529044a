package protocol

import "time"

// Content types of the serializers that Celery ships, and its one text encoding.
const (
	ContentJSON    = "application/json"
	ContentYAML    = "application/x-yaml"
	ContentMsgpack = "application/x-msgpack"
	ContentPickle  = "application/x-python-serialize"
	ContentText    = "text/plain"
	ContentData    = "application/data"

	EncodingUTF8   = "utf-8"
	EncodingBinary = "binary"
)

// Message is one message as its sender sees it: headers, properties and an
// encoded body. A task message has Headers.Task set; events, control requests
// and version 1 task messages leave the task headers empty.
//
// A Message is not safe for concurrent use.
type Message struct {
	Headers    Headers
	Properties Properties
	Body       []byte // encoded and, if Headers say so, compressed

	// Exchange and RoutingKey address the message; Queue names the target
	// queue where it is known (the anonymous exchange, or a routed queue).
	Exchange   string
	RoutingKey string
	Queue      string

	// NotBefore parks the message: no consumer gets it earlier. Zero means now.
	NotBefore time.Time
	// ExpiresAt lets a broker drop the message late; the worker decides. Zero means never.
	ExpiresAt time.Time
	// Mandatory asks the broker to refuse the message if no queue takes it.
	Mandatory bool
	// Once marks a message that may be sent twice with one id; where it is sent
	// outside the commit that decides, it goes out with [OnceHeader].
	Once bool
}

// Properties are the AMQP basic properties that Celery uses.
type Properties struct {
	ContentType     string
	ContentEncoding string
	CorrelationID   string
	ReplyTo         string
	DeliveryMode    int  // 1 transient, 2 persistent
	Priority        *int // nil: none given
	Expiration      time.Duration
	HasExpiration   bool              // Expiration 0 is a value: already expired
	Extra           map[string]string // message_id, user_id, app_id, type, cluster_id ...
}
