package sqlstore

import (
	"math"
	"time"
)

// Dead is a dead letter.
type Dead struct {
	ID       int64
	Queue    string
	Reason   string
	At       time.Time
	Losses   int
	Headers  []byte
	Envelope []byte
	Body     []byte

	queue, rank int64
}

const deadColumns = 9

func dead(row []value, names map[int64]string) Dead {
	return Dead{
		ID: integer(row[0]), Queue: names[integer(row[1])], Reason: text(row[3]), At: time.UnixMicro(integer(row[4])).UTC(),
		Losses: int(integer(row[5])), Headers: blob(row[6]), Envelope: blob(row[7]), Body: blob(row[8]),
		queue: integer(row[1]), rank: integer(row[2]),
	}
}

// DeadLetters lists newest first those before an id (0: from the newest), of one
// queue or, for "", of all.
func (tx *Tx) DeadLetters(queue string, before int64, limit int) (out []Dead, err error) {
	names, err := tx.queueNames()
	if err != nil {
		return nil, err
	}
	if before <= 0 {
		before = math.MaxInt64
	}
	st, args := stDeadList, []value{before, int64(limit)}
	if queue != "" {
		id, err := tx.queueID(queue, false)
		if err != nil || id == 0 {
			return nil, err
		}
		st, args = stDeadListQueue, []value{id, before, int64(limit)}
	}
	err = tx.query(st, deadColumns, func(row []value) error {
		out = append(out, dead(row, names))
		return nil
	}, args...)
	return out, err
}

// DeadLetter reads one; false if there is none of that id.
func (tx *Tx) DeadLetter(id int64) (d Dead, ok bool, err error) {
	names, err := tx.queueNames()
	if err != nil {
		return d, false, err
	}
	err = tx.query(stDeadRead, deadColumns, func(row []value) error {
		d, ok = dead(row, names), true
		return nil
	}, id)
	return d, ok, err
}

// RequeueDead sends a letter back to its queue as it was and forgets the losses
// of its task; false if there is none of that id.
func (tx *Tx) RequeueDead(id int64, taskID string) (bool, error) {
	d, ok, err := tx.DeadLetter(id)
	if err != nil || !ok {
		return false, err
	}
	if _, err := tx.exec(stDeadDelete, id); err != nil {
		return false, err
	}
	if _, err := tx.exec(stLossDelete, taskID); err != nil {
		return false, err
	}
	fresh, err := tx.next()
	if err != nil {
		return false, err
	}
	if _, err := tx.exec(stMessageInsert, fresh, nonNil(d.Headers), nonNil(d.Envelope), nonNil(d.Body)); err != nil {
		return false, err
	}
	return true, tx.place(d.queue, d.rank, fresh, fresh, 0, 0)
}

// DropDead deletes a letter; false if there is none of that id.
func (tx *Tx) DropDead(id int64) (bool, error) {
	n, err := tx.exec(stDeadDelete, id)
	return n > 0, err
}
