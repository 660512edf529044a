package sqlstore

// Ack ends a claim and deletes the message. Like the other ends of a claim it
// writes nothing and gives ErrLeaseLost if the claim has ended before.
func (tx *Tx) Ack(worker int64, d *Delivery) error {
	if err := tx.unclaim(worker, d); err != nil {
		return err
	}
	return tx.drop(d)
}

// Requeue puts the message back at the producing end.
func (tx *Tx) Requeue(worker int64, d *Delivery) error {
	if err := tx.unclaim(worker, d); err != nil {
		return err
	}
	pos, err := tx.next()
	if err != nil {
		return err
	}
	return tx.place(d.queue, d.rank, pos, d.ID, 0, flagRedelivered)
}

// HandBack puts the message back where it was taken from.
func (tx *Tx) HandBack(worker int64, d *Delivery) error {
	if err := tx.unclaim(worker, d); err != nil {
		return err
	}
	return tx.place(d.queue, d.rank, d.pos, d.ID, 0, d.flags|flagRedelivered)
}

// Park puts the message back until a time (µs).
func (tx *Tx) Park(worker int64, d *Delivery, until int64) error {
	if err := tx.unclaim(worker, d); err != nil {
		return err
	}
	return tx.place(d.queue, d.rank, d.pos, d.ID, until, d.flags|flagRedelivered)
}

// Bury makes the message a dead letter.
func (tx *Tx) Bury(worker int64, d *Delivery, reason string, losses int) error {
	if err := tx.unclaim(worker, d); err != nil {
		return err
	}
	id, err := tx.next()
	if err != nil {
		return err
	}
	if _, err := tx.exec(stDeadInsert, id, d.queue, d.rank, reason, tx.now, int64(losses), nonNil(d.Headers), nonNil(d.Envelope), nonNil(d.Body)); err != nil {
		return err
	}
	return tx.drop(d)
}

// unclaim is the fence: whose claim is gone changes nothing.
func (tx *Tx) unclaim(worker int64, d *Delivery) error {
	tx.step("claim")
	n, err := tx.exec(stClaimDelete, worker, d.ID)
	if err == nil && n == 0 {
		err = ErrLeaseLost
	}
	return err
}

func (tx *Tx) drop(d *Delivery) error {
	tx.step("message")
	_, err := tx.exec(stMessageDelete, d.ID)
	return err
}

// Finish is all that the end of one run causes.
type Finish struct {
	Delivery *Delivery
	Publish  []*Message
	Results  []*Result
	// End settles the claim: Ack, Requeue or another method of Tx.
	End func(tx *Tx, worker int64) error
}

// Finish settles, publishes and stores. A message that no queue takes fails the
// finish before anything is written.
func (tx *Tx) Finish(worker int64, f *Finish) error {
	for _, m := range f.Publish {
		if m.Mandatory {
			if _, err := tx.route(m); err != nil {
				return err
			}
		}
	}
	if err := f.End(tx, worker); err != nil {
		return err
	}
	for _, m := range f.Publish {
		tx.step("publish")
		if err := tx.Publish(m); err != nil {
			return err
		}
	}
	for _, r := range f.Results {
		tx.step("result")
		if err := tx.Store(r); err != nil {
			return err
		}
	}
	return nil
}
