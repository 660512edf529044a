package matrix_test

import (
	"fmt"
	"strings"
)

// end is how a run ends.
type end string

const (
	success    end = "success"
	failure    end = "failure"
	retry      end = "retry"
	ignore     end = "ignore"
	reject     end = "reject"
	requeue    end = "reject with requeue"
	soft       end = "soft time limit"
	hard       end = "hard time limit"
	terminated end = "terminated"
	lost       end = "worker lost: its child dies"
	killed     end = "worker lost: all of it is killed"
	cut        end = "connection lost before the ack"
	cutDouble  end = "connection lost, no deduplication" // worker_deduplicate_successful_tasks is off
	warm       end = "warm shutdown"
	softStop   end = "soft shutdown"
	cold       end = "cold shutdown"
	coldDeaf   end = "cold shutdown, context ignored"
)

// plain are the ends that leave the worker as it was: it has them all at once.
// Each of the others has a worker of its own, which it has with all settings.
var (
	plain = []end{success, failure, retry, ignore, reject, requeue, soft, hard, terminated}
	ends  = append(plain[:len(plain):len(plain)], lost, killed, cut, cutDouble, warm, softStop, cold, coldDeaf)
)

// cell is one run of the matrix: how it ends, and the settings that decide what
// follows.
type cell struct {
	end
	settings
}

// settings are those of a task, by Celery's names.
type settings struct {
	late   bool // acks_late
	acks   bool // acks_on_failure_or_timeout
	again  bool // reject_on_worker_lost
	errors bool // store_errors_even_if_ignored
	ignore bool // ignore_result
}

var settingNames = [...]string{"acks_late", "acks_on_failure_or_timeout", "reject_on_worker_lost", "store_errors_even_if_ignored", "ignore_result"}

func (s *settings) fields() []*bool {
	return []*bool{&s.late, &s.acks, &s.again, &s.errors, &s.ignore}
}

// String is the settings as part of a task's name: 1 is on, in the order of
// settingNames.
func (s settings) String() string {
	var b strings.Builder
	for _, f := range s.fields() {
		b.WriteByte(map[bool]byte{false: '0', true: '1'}[*f])
	}
	return b.String()
}

// allSettings is their product.
func allSettings() (list []settings) {
	for n := range 1 << len(settingNames) {
		var s settings
		for i, f := range s.fields() {
			*f = n>>i&1 == 1
		}
		list = append(list, s)
	}
	return list
}

// id is that of the cell's task.
func (c cell) id() string {
	return strings.ReplaceAll(string(c.end), " ", "_") + "." + c.settings.String()
}

func (c cell) String() string {
	on := []string{}
	for i, f := range c.fields() {
		if *f {
			on = append(on, settingNames[i])
		}
	}
	return fmt.Sprintf("%s with %s", c.end, strings.Join(on, ", "))
}

// place is where a cell runs.
type place struct {
	broker string // memory, sqlite, redis, rabbitmq
	pool   string // goroutine, prefork
}

func (p place) String() string { return p.broker + "/" + p.pool }

// impossible says why an end cannot happen at a place, or nothing.
func (p place) impossible(e end) string {
	switch {
	case e == lost && p.pool == "goroutine":
		return "a goroutine does not die alone: it is all of the worker, the next row"
	case e == killed && p.broker == "memory":
		return "the process that dies holds the broker"
	case (e == cut || e == cutDouble) && (p.broker == "memory" || p.broker == "sqlite"):
		return "there is no connection that could be lost"
	}
	return ""
}

func cellsOf(list ...end) (cells []cell) {
	for _, e := range list {
		for _, s := range allSettings() {
			cells = append(cells, cell{e, s})
		}
	}
	return cells
}
