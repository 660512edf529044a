package sqlstore

import "time"

// CountLoss adds one lost worker to a task and returns how many there are. If
// d is given its claim is no orphan's any more, so that handing the message
// back does not count the same loss again.
func (tx *Tx) CountLoss(taskID string, keep time.Duration, worker int64, d *Delivery) (n int64, err error) {
	if d != nil {
		changed, err := tx.exec(stClaimUnorphan, worker, d.ID)
		if err != nil {
			return 0, err
		}
		if changed == 0 {
			return 0, ErrLeaseLost
		}
	}
	err = tx.query(stLossAdd, 1, func(row []value) error {
		n = integer(row[0])
		return nil
	}, taskID, tx.now+keep.Microseconds(), tx.now)
	return n, err
}

// Counted takes the mark of an orphan from the delivery, after CountLoss was
// committed.
func (d *Delivery) Counted() { d.flags &^= flagOrphaned }

// Losses tells how many lost workers were counted for a task.
func (tx *Tx) Losses(taskID string) (int64, error) {
	n, _, err := tx.number(stLossRead, taskID, tx.now)
	return n, err
}
