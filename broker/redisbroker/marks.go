package redisbroker

import (
	"bytes"
	"slices"
	"strconv"
)

// marks are what a message has been through. They are members of delivery_info,
// where kombu keeps its redelivered; kombu passes ours on.
type marks struct {
	redelivered bool
	orphaned    bool
	losses      int
}

const (
	keyRedelivered = "redelivered"
	keyOrphaned    = "lovage_orphaned"
	keyLosses      = "lovage_losses"
)

// redeliveredTail is how kombu, and we, end the headers of a redelivered message.
const redeliveredTail = `"redelivered": true}`

// deliveredHeaders gives the headers as they were sent, in a copy of the receiver's own.
func (e *envelope) deliveredHeaders() []byte {
	h := e.text[e.headers.from:e.headers.to:e.headers.to]
	if len(h) == 0 {
		return []byte("{}")
	}
	if end, ok := unmarkedHeaders(h); ok {
		return append(append(make([]byte, 0, end+1), h[:end]...), '}')
	}
	return slices.Clone(h)
}

// unmarkedHeaders finds where the headers end without kombu's mark.
func unmarkedHeaders(h []byte) (end int, ok bool) {
	if !bytes.HasSuffix(h, []byte(redeliveredTail)) {
		return 0, false
	}
	h = h[:len(h)-len(redeliveredTail)]
	if bytes.HasSuffix(h, []byte(", ")) {
		return len(h) - 2, true
	}
	return len(h), len(h) == 1
}

// mark rewrites a raw envelope with other marks; the rest stays as it is, byte
// by byte. An envelope that cannot be read is left alone.
func mark(raw string, m marks) string {
	e, err := parseEnvelope(raw)
	if err != nil {
		return raw
	}
	out := make([]byte, 0, len(raw)+96)
	first, second := e.headers, e.info
	if e.info.to > 0 && e.info.from < e.headers.from {
		first, second = second, first
	}
	at := 0
	for _, part := range [...]span{first, second} {
		if part.to == 0 {
			continue
		}
		out = append(out, raw[at:part.from]...)
		if part == e.headers {
			out = appendMarkedHeaders(out, e.text[part.from:part.to], m)
		} else {
			out = appendMarkedInfo(out, e.text[part.from:part.to], m)
		}
		at = part.to
	}
	return string(append(out, raw[at:]...))
}

func appendMarkedHeaders(out, h []byte, m marks) []byte {
	if end, ok := unmarkedHeaders(h); ok {
		out = append(out, h[:end]...)
	} else {
		out = append(out, h[:len(h)-1]...)
	}
	if m.redelivered {
		if out[len(out)-1] != '{' {
			out = append(out, ", "...)
		}
		return append(out, redeliveredTail...)
	}
	return append(out, '}')
}

// appendMarkedInfo copies the members of delivery_info but for the marks.
func appendMarkedInfo(out, info []byte, m marks) []byte {
	start := len(out)
	out = append(out, '{')
	comma := func() {
		if len(out) > start+1 {
			out = append(out, ", "...)
		}
	}
	eachMember(info, func(key string, member []byte) {
		if key != keyRedelivered && key != keyOrphaned && key != keyLosses {
			comma()
			out = append(out, member...)
		}
	})
	if m.redelivered {
		comma()
		out = append(out, `"redelivered": true`...)
	}
	if m.orphaned {
		comma()
		out = append(out, `"`+keyOrphaned+`": true`...)
	}
	if m.losses > 0 {
		comma()
		out = strconv.AppendInt(append(out, `"`+keyLosses+`": `...), int64(m.losses), 10)
	}
	return append(out, '}')
}
