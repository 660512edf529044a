package sqlstore

import "time"

// CountLoss adds one lost worker to the task of a claimed message and returns how
// many there are. The claim is no orphan's any more, so that handing the message
// back does not count the same loss again.
func (tx *Tx) CountLoss(taskID string, keep time.Duration, worker int64, d *Delivery) (n int64, err error) {
	changed, err := tx.exec(stClaimUnorphan, worker, d.ID)
	if err != nil {
		return 0, err
	}
	if changed == 0 {
		return 0, ErrLeaseLost
	}
	n, _, err = tx.number(stLossAdd, taskID, tx.now+keep.Microseconds(), tx.now)
	return n, err
}

// RaiseLosses counts n lost workers for a task at least, and returns how many there
// are.
func (tx *Tx) RaiseLosses(taskID string, n int64, keep time.Duration) (int64, error) {
	n, _, err := tx.number(stLossRaise, taskID, n, tx.now+keep.Microseconds(), tx.now)
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

// ForgetLosses drops the count of a task.
func (tx *Tx) ForgetLosses(taskID string) error {
	_, err := tx.exec(stLossDelete, taskID)
	return err
}
