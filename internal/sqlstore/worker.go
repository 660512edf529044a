package sqlstore

import (
	"fmt"
	"path/filepath"
	"time"
)

// Register makes a worker row for a consumer of this process and returns its
// id, which no other worker ever has.
func (tx *Tx) Register(name string, lease time.Duration) (int64, error) {
	if err := tx.core.lock.ensure(); err != nil {
		return 0, fmt.Errorf("sqlite %s: register %s: %w", tx.core.cfg.Path, name, err)
	}
	id, err := tx.next()
	if err != nil {
		return 0, err
	}
	_, err = tx.exec(stWorkerInsert, id, name, tx.core.boot, tx.core.lock.name, leaseNow()+lease.Microseconds(), tx.now)
	return id, err
}

// Renew extends a worker's lease; ErrLeaseLost if its row is gone.
func (tx *Tx) Renew(worker int64, lease time.Duration) error {
	n, err := tx.exec(stWorkerRenew, leaseNow()+lease.Microseconds(), worker)
	if err == nil && n == 0 {
		err = ErrLeaseLost
	}
	return err
}

// Unregister hands a worker's claims back, uncounted, and deletes its row.
func (tx *Tx) Unregister(worker int64) error {
	_, err := tx.release(worker, flagRedelivered)
	return err
}

func (tx *Tx) release(worker, flags int64) (claims int64, err error) {
	if claims, err = tx.exec(stClaimsToReady, flags, worker); err != nil {
		return 0, err
	}
	if claims > 0 {
		tx.bells |= BellWork
		if _, err := tx.exec(stClaimsDelete, worker); err != nil {
			return 0, err
		}
	}
	_, err = tx.exec(stWorkerDelete, worker)
	return claims, err
}

// Gone is a worker that has lost its claims or is to lose them.
type Gone struct {
	ID     int64
	Name   string
	Reason string
	lock   string
	claims int64
}

// Suspects lists the workers that look dead: their lock is free, their lease
// has run out, or they belong to an earlier boot. It does not write.
func (tx *Tx) Suspects() ([]Gone, error) {
	var out []Gone
	now, dir := leaseNow(), sideDir(tx.core.cfg.Path)
	gone := map[string]bool{tx.core.lock.name: false}
	err := tx.query(stWorkerList, 5, func(row []value) error {
		w := Gone{ID: integer(row[0]), Name: text(row[1]), lock: text(row[3])}
		dead, known := gone[w.lock]
		switch {
		case text(row[2]) != tx.core.boot:
			w.Reason = "the machine was restarted"
		case integer(row[4]) < now:
			w.Reason = "its lease ran out"
		case known && !dead:
			return nil
		default:
			if !known {
				dead = holderGone(filepath.Join(dir, filepath.Base(w.lock)))
				gone[w.lock] = dead
			}
			if !dead {
				return nil
			}
			w.Reason = "its process has ended"
		}
		out = append(out, w)
		return nil
	})
	return out, err
}

// TakeOver gives a suspect's claims back to their queues as orphans. It reports
// false if the worker has shown life or is gone already.
func (tx *Tx) TakeOver(w *Gone) (bool, error) {
	still := false
	err := tx.query(stWorkerList, 5, func(row []value) error {
		if integer(row[0]) == w.ID {
			still = w.Reason != "its lease ran out" || integer(row[4]) < leaseNow()
		}
		return nil
	})
	if err != nil || !still {
		return false, err
	}
	w.claims, err = tx.release(w.ID, flagRedelivered|flagOrphaned)
	return err == nil, err
}
