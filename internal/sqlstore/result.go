package sqlstore

import "time"

// Result is a stored result; Meta is the encoded document.
type Result struct {
	TaskID  string
	State   string
	Meta    []byte
	GroupID string
	Expires time.Duration // from now; 0: never
}

// Store writes a result, unless the state that is stored does not yield to it: see
// protocol.State.Yields.
func (tx *Tx) Store(r *Result) error {
	seq, err := tx.next()
	if err != nil {
		return err
	}
	_, err = tx.exec(stResultStore, seq, r.TaskID, r.State, nonNil(r.Meta), orNull(r.GroupID), tx.expiry(r.Expires), tx.now)
	tx.bells |= BellResults
	return err
}

func orNull(s string) value {
	if s == "" {
		return nil
	}
	return s
}

func (tx *Tx) expiry(d time.Duration) value {
	if d <= 0 {
		return nil
	}
	return tx.now + d.Microseconds()
}

// Fetch reads a result; false if it is unknown or has expired.
func (tx *Tx) Fetch(taskID string) (r Result, ok bool, err error) {
	err = tx.query(stResultFetch, 4, func(row []value) error {
		r = Result{TaskID: taskID, State: text(row[0]), Meta: blob(row[1]), GroupID: text(row[2])}
		if until, expires := row[3].(int64); expires {
			if until <= tx.now {
				return nil
			}
			r.Expires = time.Duration(until-tx.now) * time.Microsecond
		}
		ok = true
		return nil
	}, taskID)
	return r, ok, err
}

// Forget deletes a result.
func (tx *Tx) Forget(taskID string) error {
	_, err := tx.exec(stResultDelete, taskID)
	return err
}

// Seq is the last number given by a committed transaction.
func (tx *Tx) Seq() (int64, error) {
	n, _, err := tx.number(stSeq)
	return n, err
}

// ResultsSince lists the ids of results written after a number, up to limit,
// and the number of the last one listed.
func (tx *Tx) ResultsSince(seq int64, limit int) (ids []string, last int64, err error) {
	last = seq
	err = tx.query(stResultSince, 2, func(row []value) error {
		last = integer(row[0])
		ids = append(ids, text(row[1]))
		return nil
	}, seq, int64(limit))
	return ids, last, err
}

// ResultChanged reports whether the result of an id was written after a number.
func (tx *Tx) ResultChanged(taskID string, seq int64) (bool, error) {
	_, ok, err := tx.number(stResultChanged, taskID, seq)
	return ok, err
}

// ExpireSome deletes up to limit expired rows of each kind that can expire and
// returns how many results there were among them.
func (tx *Tx) ExpireSome(limit int) (results int, more bool, err error) {
	for _, st := range [...]statement{stResultExpire, stGroupExpire, stOnceExpire, stLossExpire, stFanoutExpire} {
		n, err := tx.exec(st, tx.now, int64(limit))
		if err != nil {
			return 0, false, err
		}
		if st == stResultExpire {
			results = int(n)
		}
		more = more || int(n) == limit
	}
	return results, more, nil
}

// SaveGroup keeps a group's document.
func (tx *Tx) SaveGroup(id string, doc []byte, expires time.Duration) error {
	_, err := tx.exec(stGroupSave, id, nonNil(doc), tx.expiry(expires))
	return err
}

// Group reads a group's document; nil if it is unknown or has expired.
func (tx *Tx) Group(id string) (doc []byte, err error) {
	err = tx.query(stGroupRead, 2, func(row []value) error {
		if until, expires := row[1].(int64); !expires || until > tx.now {
			doc = blob(row[0])
		}
		return nil
	}, id)
	return doc, err
}

// DeleteGroup deletes a group's document.
func (tx *Tx) DeleteGroup(id string) error {
	_, err := tx.exec(stGroupDelete, id)
	return err
}

// ClaimOnce takes an id for an owner; false if it is done or another's.
func (tx *Tx) ClaimOnce(id, owner string, lease time.Duration) (bool, error) {
	n, err := tx.exec(stOnceClaim, id, owner, tx.now+lease.Microseconds(), tx.now)
	return n > 0, err
}

// DoneOnce marks an id as done.
func (tx *Tx) DoneOnce(id, owner string, keep time.Duration) error {
	_, err := tx.exec(stOnceDone, id, owner, tx.now+keep.Microseconds())
	return err
}
