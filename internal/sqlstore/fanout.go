package sqlstore

import "time"

const (
	// fanoutKeep is how long a broadcast waits for listeners that are slow.
	fanoutKeep = time.Minute
	// fanoutMost bounds the broadcasts kept of one exchange.
	fanoutMost = 20_000
)

// Broadcast is one message to everybody who listens to an exchange.
type Broadcast struct {
	N        int64 // its number in the exchange, counted without gaps
	Keep     time.Duration
	Headers  []byte
	Envelope []byte
	Body     []byte
}

// Broadcast sends messages to an exchange.
func (tx *Tx) Broadcast(exchange string, msgs []Broadcast) error {
	last := int64(0)
	err := tx.query(stFanoutNumber, 1, func(row []value) error {
		last = integer(row[0])
		return nil
	}, exchange, int64(len(msgs)))
	if err != nil {
		return err
	}
	for i := range msgs {
		m := &msgs[i]
		keep := fanoutKeep
		if m.Keep > 0 {
			keep = min(keep, m.Keep)
		}
		n := last - int64(len(msgs)-1-i)
		if _, err := tx.exec(stFanoutInsert, exchange, n, tx.now+keep.Microseconds(), nonNil(m.Headers), nonNil(m.Envelope), nonNil(m.Body)); err != nil {
			return err
		}
	}
	tx.bells |= BellFanout
	if last > fanoutMost {
		_, err = tx.exec(stFanoutTrim, exchange, last-fanoutMost)
	}
	return err
}

// LastBroadcast is the number of the newest message of an exchange.
func (tx *Tx) LastBroadcast(exchange string) (int64, error) {
	n, _, err := tx.number(stFanoutCount, exchange)
	return n, err
}

// Broadcasts reads up to limit messages after a number. It gives the number
// that it has read up to and how many on the way were gone or too old.
func (tx *Tx) Broadcasts(exchange string, after int64, limit int) (out []Broadcast, last, missed int64, err error) {
	last = after
	err = tx.query(stFanoutNext, 5, func(row []value) error {
		n := integer(row[0])
		missed += n - last - 1
		if last = n; integer(row[1]) <= tx.now {
			missed++
			return nil
		}
		out = append(out, Broadcast{N: n, Headers: blob(row[2]), Envelope: blob(row[3]), Body: blob(row[4])})
		return nil
	}, exchange, after, int64(limit))
	return out, last, missed, err
}

// BroadcastsGone counts the messages after a number that are deleted, up to the
// oldest that is left.
func (tx *Tx) BroadcastsGone(exchange string, after int64) (int64, error) {
	oldest, ok, err := tx.number(stFanoutOldest, exchange, after)
	if err != nil {
		return 0, err
	}
	if !ok {
		if oldest, err = tx.LastBroadcast(exchange); err != nil {
			return 0, err
		}
		oldest++
	}
	return max(oldest-after-1, 0), nil
}
