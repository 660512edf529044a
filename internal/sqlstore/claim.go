package sqlstore

// Delivery is a message as read from a queue.
type Delivery struct {
	ID       int64
	Queue    string
	Headers  []byte
	Envelope []byte
	Body     []byte

	queue, rank, pos, flags int64
}

// Due is when a delayed message is, in µs.
func (d *Delivery) Due() int64 { return d.pos }

// Redelivered: it was claimed before.
func (d *Delivery) Redelivered() bool { return d.flags&flagRedelivered != 0 }

// Orphaned: a claim of it ended with its holder, and no loss was counted since.
func (d *Delivery) Orphaned() bool { return d.flags&flagOrphaned != 0 }

// delivery reads a row of rank, pos, id, flags, headers, envelope, body.
func delivery(row []value, queue string, queueID int64) Delivery {
	return Delivery{
		ID: integer(row[2]), Queue: queue, Headers: blob(row[4]), Envelope: blob(row[5]), Body: blob(row[6]),
		queue: queueID, rank: integer(row[0]), pos: integer(row[1]), flags: integer(row[3]),
	}
}

// maxPromote bounds the delayed messages that one claim makes ready, per queue.
const maxPromote = 1000

// Claim takes up to limit messages for a worker, from the queues in the order
// given, each by priority and then by position. It is ErrLeaseLost when the
// worker's row is gone.
func (tx *Tx) Claim(worker int64, queues []string, limit int) ([]Delivery, error) {
	if _, ok, err := tx.number(stWorkerAlive, worker); err != nil {
		return nil, err
	} else if !ok {
		return nil, ErrLeaseLost
	}
	paused, err := tx.Paused()
	if err != nil {
		return nil, err
	}
	var out []Delivery
	for _, q := range queues {
		if len(out) >= limit {
			break
		}
		if named(paused, q) {
			continue
		}
		id, err := tx.queueID(q, false)
		if err != nil {
			return nil, err
		}
		if id == 0 {
			continue
		}
		if err := tx.promote(id); err != nil {
			return nil, err
		}
		if out, err = tx.take(out, worker, q, id, limit-len(out)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func named(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func (tx *Tx) take(out []Delivery, worker int64, queue string, id int64, limit int) ([]Delivery, error) {
	before := len(out)
	err := tx.query(stReadyTake, 7, func(row []value) error {
		out = append(out, delivery(row, queue, id))
		return nil
	}, id, int64(limit))
	if err != nil || len(out) == before {
		return out, err
	}
	// What was read is a prefix of the queue's order.
	last := &out[len(out)-1]
	if _, err := tx.exec(stReadyToClaim, worker, id, last.rank, last.pos, last.ID); err != nil {
		return nil, err
	}
	if _, err := tx.exec(stReadyDelete, id, last.rank, last.pos, last.ID); err != nil {
		return nil, err
	}
	return out, nil
}

// promote makes the messages of a queue ready whose time has come.
func (tx *Tx) promote(queue int64) error {
	type place struct{ due, id, rank, flags int64 }
	var due []place
	err := tx.query(stDelayedDue, 4, func(row []value) error {
		due = append(due, place{integer(row[0]), integer(row[1]), integer(row[2]), integer(row[3])})
		return nil
	}, queue, tx.now, int64(maxPromote))
	if err != nil || len(due) == 0 {
		return err
	}
	for _, p := range due {
		if _, err := tx.exec(stReadyInsert, queue, p.rank, p.due-aheadOfAll, p.id, p.flags); err != nil {
			return err
		}
	}
	last := due[len(due)-1]
	_, err = tx.exec(stDelayedDelete, queue, last.due, last.id)
	return err
}

// Waiting reports whether one of the queues has a message to claim now, and if
// not, when the next delayed one is due (µs, 0: none).
func (tx *Tx) Waiting(queues []string) (now bool, next int64, err error) {
	paused, err := tx.Paused()
	if err != nil {
		return false, 0, err
	}
	for _, q := range queues {
		if named(paused, q) {
			continue
		}
		id, err := tx.queueID(q, false)
		if err != nil {
			return false, 0, err
		}
		if id == 0 {
			continue
		}
		if _, ok, err := tx.number(stReadyAny, id); err != nil || ok {
			return ok, 0, err
		}
		due, ok, err := tx.number(stDelayedNext, id)
		if err != nil {
			return false, 0, err
		}
		if ok && due <= tx.now {
			return true, 0, nil
		}
		if ok && (next == 0 || due < next) {
			next = due
		}
	}
	return false, next, nil
}
