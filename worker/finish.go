package worker

import (
	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// finish is what the end of one run, or of one claim, causes.
type finish struct {
	job      *job
	publish  []*protocol.Message
	store    []*protocol.Record
	ends     []*broker.ChordEnd
	claim    broker.Settlement
	hasClaim bool // claim is to be settled

	published, stored, ended bool // steps done, where they are not one

	outcome *lovage.Outcome // of a run; nil: only a claim ends
	size    int64           // counted in finishBytes
	entered bool            // counted
	done    chan error      // who waits for the answer, or
	then    func(error)     // who is to be told
}

func (f *finish) settle(s broker.Settlement) { f.claim, f.hasClaim = s, true }

func (f *finish) bytes() (n int64) {
	for _, m := range f.messages() {
		n += int64(len(m.Body)) + 512
	}
	for _, r := range f.records() {
		n += int64(len(r.Meta))
	}
	return n + int64(len(f.job.d.Body)+len(f.job.d.Headers))
}

// messages are all that the finish sends, those of the chords that it ends last.
func (f *finish) messages() []*protocol.Message {
	list := f.publish
	for _, e := range f.ends {
		list = append(list[:len(list):len(list)], e.Publish...)
	}
	return list
}

// again reports whether the finish sends its own task once more.
func (f *finish) again() bool {
	return f.outcome != nil && f.outcome.State == lovage.StateRetry
}

func (f *finish) records() []*protocol.Record {
	list := f.store
	for _, e := range f.ends {
		list = append(list[:len(list):len(list)], e.Store...)
	}
	return list
}

// enter counts a finish among those that wait to be kept, which bound what may be
// claimed. It reports false if there is nothing to keep.
func (f *finish) enter() bool {
	if len(f.publish) == 0 && len(f.store) == 0 && len(f.ends) == 0 && !f.hasClaim {
		return false
	}
	f.entered, f.size = true, f.bytes()
	if f.outcome == nil { // the message itself waits, as when it is parked
		f.size += int64(len(f.job.d.Body))
	}
	f.job.w.count.finishing.Add(1)
	f.job.w.count.finishBytes.Add(f.size)
	return true
}

// known reports whether the run counts although its message is lost: whoever has
// that finds the task's success in the store and does not run it again, and no
// hook would run for it otherwise.
func (f *finish) known() bool {
	return f.stored && f.hasClaim && f.outcome != nil && f.outcome.State == lovage.Success && f.job.w.dedup
}

// answer ends the finish.
func (f *finish) answer(err error) {
	w := f.job.w
	if f.hasClaim && (err == nil || gone(err)) {
		f.job.link.release(f.job)
	}
	if f.hasClaim && err == nil {
		w.counted(f.claim.Action)
		switch f.claim.Action {
		case broker.Ack, broker.DeadLetter, broker.Reject:
			w.forgetLosses(f.job)
		}
	}
	if gone(err) && f.known() {
		err = nil
	}
	if f.entered {
		w.count.finishing.Add(-1)
		w.count.finishBytes.Add(-f.size)
		ring(w.room)
	}
	switch {
	case f.done != nil:
		f.done <- err
	case f.outcome == nil:
		f.then(err)
	default:
		f.job.link.commit.tell(f, err)
	}
}

// conclude ends a run that nobody waited for.
func (f *finish) conclude(err error) {
	j := f.job
	defer j.w.rescue("finish", func(error) { j.end() })
	f.then(err)
	j.result(f.outcome)
	j.end()
}

// refusedError says that a store will never take what a run caused.
type refusedError struct {
	err   error
	again bool // the task's failure was refused too
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }
