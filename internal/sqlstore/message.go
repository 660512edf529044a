package sqlstore

// Message is one message to publish. Headers, Envelope and Body are stored as
// they are.
type Message struct {
	Queue      string // "": by exchange and routing key
	Exchange   string
	RoutingKey string
	Mandatory  bool
	Priority   int   // higher is served first
	NotBefore  int64 // µs; 0 or past: now
	Headers    []byte
	Envelope   []byte
	Body       []byte

	Routed int // set by Publish
}

// Flags of a message's place.
const (
	flagRedelivered = 1
	flagOrphaned    = 2
)

// aheadOfAll is taken from the due time of a delayed message to make its
// position: a message that has waited for its time goes before those that
// only wait their turn, in the order of the times.
const aheadOfAll = 1 << 61

// Publish puts the message into its queue or queues and sets m.Routed to their
// number. It writes nothing when it gives ErrNoQueue.
func (tx *Tx) Publish(m *Message) error {
	ids, err := tx.route(m)
	if err != nil {
		return err
	}
	m.Routed = len(ids)
	for _, queue := range ids {
		id, err := tx.next()
		if err != nil {
			return err
		}
		if _, err := tx.exec(stMessageInsert, id, nonNil(m.Headers), nonNil(m.Envelope), nonNil(m.Body)); err != nil {
			return err
		}
		if err := tx.place(queue, rank(m.Priority), id, id, m.NotBefore, 0); err != nil {
			return err
		}
	}
	return nil
}

// place puts a message among the ready, or the delayed until due.
func (tx *Tx) place(queue, rank, pos, id, due, flags int64) (err error) {
	tx.bells |= BellWork
	if due > tx.now {
		_, err = tx.exec(stDelayedInsert, queue, due, id, rank, flags)
	} else {
		_, err = tx.exec(stReadyInsert, queue, rank, pos, id, flags)
	}
	return err
}

// rank orders a queue: low ranks first, so a high priority is a low rank.
func rank(priority int) int64 { return -int64(min(max(priority, 0), 255)) }

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Peek reads a queue's waiting messages in their order, the delayed ones last,
// without claiming.
func (tx *Tx) Peek(queue string, offset, limit int) ([]Delivery, error) {
	id, err := tx.queueID(queue, false)
	if err != nil || id == 0 || limit <= 0 {
		return nil, err
	}
	offset = max(offset, 0)
	var out []Delivery
	collect := func(row []value) error {
		out = append(out, delivery(row, queue, id))
		return nil
	}
	if err := tx.query(stReadyPeek, 7, collect, id, int64(limit), int64(offset)); err != nil || len(out) >= limit {
		return out, err
	}
	ready, _, err := tx.number(stReadyCount, id)
	if err != nil {
		return nil, err
	}
	late, err := tx.PeekDelayed(queue, max(offset-int(ready), 0), limit-len(out))
	return append(out, late...), err
}

// PeekDelayed lists the messages of a queue that wait for their time.
func (tx *Tx) PeekDelayed(queue string, offset, limit int) (out []Delivery, err error) {
	id, err := tx.queueID(queue, false)
	if err != nil || id == 0 || limit <= 0 {
		return nil, err
	}
	err = tx.query(stDelayedPeek, 7, func(row []value) error {
		out = append(out, delivery(row, queue, id))
		return nil
	}, id, int64(limit), int64(max(offset, 0)))
	return out, err
}
