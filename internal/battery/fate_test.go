package battery_test

import (
	"hash/fnv"
	"strings"

	"github.com/lovage-go/lovage"
)

// fate is what a task is meant to come to.
type fate struct {
	name  string
	state lovage.State // "": nothing is stored
	kind  string       // the type of its exception, if that matters
	kills bool         // each run ends its process
}

var fates = map[string]fate{}

func init() {
	for _, f := range []fate{
		{name: "ok", state: lovage.Success},
		{name: "retry", state: lovage.Success}, // the second time
		{name: "link", state: lovage.Success},  // and calls battery.after
		{name: "chain", state: lovage.Success}, // and two steps more
		{name: "eta", state: lovage.Success},   // not before its time
		{name: "leak", state: lovage.Success},  // leaves goroutines behind
		{name: "hoard", state: lovage.Success}, // leaves memory behind
		{name: "ignore"},
		{name: "fail", state: lovage.Failure},
		{name: "reject", state: lovage.Failure},
		{name: "panic", state: lovage.Failure, kind: "Panic"},
		{name: "soft", state: lovage.Failure, kind: "SoftTimeLimitExceeded"},
		{name: "hard", state: lovage.Failure, kind: "TimeLimitExceeded"}, // returns late
		{name: "deaf", state: lovage.Failure, kind: "TimeLimitExceeded"}, // never returns
		{name: "kill", state: lovage.Failure, kind: "WorkerLostError", kills: true},
		{name: "exit", state: lovage.Failure, kind: "WorkerLostError", kills: true},
		{name: "segv", state: lovage.Failure, kind: "WorkerLostError", kills: true},
		{name: "alone", state: lovage.Failure, kind: "WorkerLostError", kills: true}, // panics in a goroutine of its own
		{name: "overflow", state: lovage.Failure, kind: "WorkerLostError", kills: true},
		{name: "memory", state: lovage.Failure, kind: "WorkerLostError", kills: true}, // that the system does not give
	} {
		fates[f.name] = f
	}
}

// share is how many of a thousand tasks have a fate.
type share struct {
	fate string
	of   uint32
}

// mixes are what the tasks of a round come to; the rest of them end well.
var mixes = map[string][]share{
	"calm":  {{"fail", 100}, {"retry", 100}, {"link", 200}},
	"crash": {{"fail", 100}, {"retry", 100}, {"link", 200}, {"kill", 2}},
	"soak":  {{"fail", 50}, {"retry", 100}, {"link", 100}, {"chain", 50}, {"eta", 50}, {"ignore", 20}, {"reject", 20}, {"panic", 20}, {"soft", 10}},
	"storm": {{"fail", 80}, {"retry", 80}, {"link", 80}, {"chain", 60}, {"eta", 60}, {"ignore", 40}, {"reject", 40}, {"panic", 40},
		{"soft", 30}, {"hard", 15}, {"kill", 1}, {"exit", 1}, {"segv", 1}, {"alone", 1}, {"overflow", 1}},
}

// fateOf reads a fate off a task's id, so that any process, and the judge, know
// it without asking the store: by chance in a mix, else by the id's first word.
func fateOf(id, mix string) fate {
	shares, ok := mixes[mix]
	if !ok {
		name, _, _ := strings.Cut(id, ".")
		return fates[name]
	}
	h := fnv.New32a()
	h.Write([]byte(id))
	n := h.Sum32() % 1000
	for _, s := range shares {
		if n < s.of {
			return fates[s.fate]
		}
		n -= s.of
	}
	return fates["ok"]
}
