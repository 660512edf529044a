package amqpbroker

import (
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// frameRest is more than what a frame of properties has beside texts and headers.
const frameRest = 64

// fits tells why AMQP cannot carry a message: for that the library, or the server,
// would end the connection, which others use as well.
func (o *outgoing) fits(frame int) error {
	m := &o.msg
	size, err := fieldSize(m.Headers)
	if err != nil {
		return fmt.Errorf("its headers: %w: %w", err, broker.ErrUnsupported)
	}
	for _, t := range [...]struct{ what, text string }{
		{"exchange", o.exchange}, {"routing key", o.key}, {"content type", m.ContentType}, {"content encoding", m.ContentEncoding},
		{"correlation id", m.CorrelationId}, {"reply_to", m.ReplyTo}, {"message id", m.MessageId}, {"type", m.Type}, {"app id", m.AppId},
	} {
		if len(t.text) > 255 {
			return fmt.Errorf("its %s %.20q... has %d bytes, AMQP allows 255: %w", t.what, t.text, len(t.text), broker.ErrUnsupported)
		}
		size += len(t.text)
	}
	if frame > 0 && size+frameRest > frame {
		return fmt.Errorf("its headers have %d bytes, and a frame %d (frame_max): send a reference to the data: %w", size, frame, broker.ErrTooLarge)
	}
	return nil
}

// fieldSize is how many bytes a value takes in a table, with its type.
func fieldSize(v any) (n int, err error) {
	switch v := v.(type) {
	case nil:
		return 1, nil
	case bool, byte, int8:
		return 2, nil
	case int16, uint16:
		return 3, nil
	case int32, uint32, float32:
		return 5, nil
	case amqp.Decimal:
		return 6, nil
	case int64, float64, time.Time:
		return 9, nil
	case string:
		return 5 + len(v), nil
	case []byte:
		return 5 + len(v), nil
	case []any:
		n = 5
		for _, x := range v {
			size, err := fieldSize(x)
			if err != nil {
				return 0, err
			}
			n += size
		}
		return n, nil
	case amqp.Table:
		n = 5
		for k, x := range v {
			if len(k) > 255 {
				return 0, fmt.Errorf("the key %.20q... has %d bytes, AMQP allows 255", k, len(k))
			}
			size, err := fieldSize(x)
			if err != nil {
				return 0, fmt.Errorf("%q: %w", k, err)
			}
			n += 1 + len(k) + size
		}
		return n, nil
	}
	return 0, fmt.Errorf("AMQP has no type for %T", v)
}
