package backendtest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/protocol"
)

// part is a member of the chord g that ended with a result.
func part(id string, index int, result string) *backend.ChordPart {
	return &backend.ChordPart{Group: "g", Index: &index, Keep: time.Hour,
		ChordPart: protocol.ChordPart{TaskID: id, State: protocol.Success, Result: []byte(result)}}
}

var chordCases = []testCase{
	{"Chord/CountsUpToItsSize", []Ability{Chords}, func(w *world) {
		c := w.chords()
		w.must(c.StartChord(w.ctx, "g", 3, time.Hour))
		for i, id := range []string{"a", "b", "c"} {
			w.counts(w.other().(backend.ChordCounter), part(id, i, "1"), backend.ChordCount{Parts: i + 1, Size: 3}, i == 2)
		}
	}},
	{"Chord/PartsMayComeBeforeTheSize", []Ability{Chords}, func(w *world) {
		c := w.chords()
		w.counts(c, part("a", 0, "1"), backend.ChordCount{Parts: 1}, false)
		w.must(c.StartChord(w.ctx, "g", 2, time.Hour))
		w.counts(c, part("b", 1, "2"), backend.ChordCount{Parts: 2, Size: 2}, true)
	}},
	{"Chord/PartsAreInTheOrderOfTheirIndex", []Ability{Chords}, func(w *world) {
		c := w.chords()
		w.must(c.StartChord(w.ctx, "g", 12, time.Hour))
		var want []string
		for i := range 12 {
			want = append(want, fmt.Sprintf(`[1, "t%d", "SUCCESS", {"n": %d}]`, i, i))
			at := (i * 5) % 12
			w.count(c, part(fmt.Sprint("t", at), at, fmt.Sprintf(`{"n": %d}`, at)))
		}
		w.parts(c, "g", want...)
	}},
	{"Chord/ATaskIsCountedOnce", []Ability{Chords}, func(w *world) {
		c := w.chords()
		w.must(c.StartChord(w.ctx, "g", 2, time.Hour))
		w.count(c, part("a", 0, "1"))
		w.count(c, part("a", 0, "1"))
		failed := part("a", 0, `{"exc_type": "E"}`)
		failed.State, failed.Again = protocol.Failure, true
		w.counts(c, failed, backend.ChordCount{Parts: 1, Size: 2}, false)
		w.parts(c, "g", `[1, "a", "FAILURE", {"exc_type": "E"}]`)
		// One id may begin like another, and tasks may share an index.
		w.counts(c, part("ab", 0, "2"), backend.ChordCount{Parts: 2, Size: 2}, true)
	}},
	{"Chord/PartsWithoutIndexAreLast", []Ability{Chords}, func(w *world) {
		c := w.chords()
		w.must(c.StartChord(w.ctx, "g", 3, time.Hour))
		for range 2 {
			p := part("z", 0, "3")
			p.Index, p.Again = nil, true
			w.count(c, p)
		}
		w.count(c, part("a", 0, "1"))
		w.counts(c, part("b", 1000, "2"), backend.ChordCount{Parts: 3, Size: 3}, true)
		w.parts(c, "g", `[1, "a", "SUCCESS", 1]`, `[1, "b", "SUCCESS", 2]`, `[1, "z", "SUCCESS", 3]`)
	}},
	{"Chord/NothingCountsAfterTheEnd", []Ability{Chords}, func(w *world) {
		c := w.chords()
		w.must(c.StartChord(w.ctx, "g", 1, time.Hour))
		w.count(c, part("a", 0, "1"))
		for i, want := range []bool{true, false} {
			if won, err := w.other().(backend.ChordCounter).EndChord(w.ctx, "g", time.Hour); err != nil || won != want {
				w.Errorf("end %d: %v, %v, want %v", i, won, err, want)
			}
		}
		w.counts(c, part("b", 1, "1"), backend.ChordCount{Ended: true}, false)
		w.parts(c, "g")
		w.must(c.StartChord(w.ctx, "h", 1, time.Hour))
		other := part("b", 0, "1")
		other.Group = "h"
		w.counts(c, other, backend.ChordCount{Parts: 1, Size: 1}, true)
	}},
	{"Chord/OneEndOfMany", []Ability{Chords}, func(w *world) {
		const n = 16
		errs := make([]error, n)
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range n {
			c := w.other().(backend.ChordCounter)
			wg.Go(func() {
				ok, err := c.EndChord(w.ctx, "g", 0)
				if errs[i] = err; ok {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		w.must(errors.Join(errs...))
		if won.Load() != 1 {
			w.Errorf("%d ended it, want 1", won.Load())
		}
	}},
	{"Chord/PartsExpire", []Ability{Chords, Expires}, func(w *world) {
		c := w.chords()
		w.must(c.StartChord(w.ctx, "g", 2, w.h.Granule))
		p := part("a", 0, "1")
		p.Keep = w.h.Granule
		w.count(c, p)
		w.until("the part to expire", func() bool {
			got, err := c.ChordParts(w.ctx, "g")
			w.must(err)
			return len(got) == 0
		})
	}},
}

func (w *world) chords() backend.ChordCounter { return w.b.(backend.ChordCounter) }

func (w *world) count(c backend.ChordCounter, p *backend.ChordPart) backend.ChordCount {
	w.Helper()
	n, err := c.CountPart(w.ctx, p)
	w.must(err)
	return n
}

func (w *world) counts(c backend.ChordCounter, p *backend.ChordPart, want backend.ChordCount, complete bool) {
	w.Helper()
	if got := w.count(c, p); got != want || got.Complete() != complete {
		w.Errorf("part %s: got %+v, complete %v, want %+v, %v", p.TaskID, got, got.Complete(), want, complete)
	}
}

func (w *world) parts(c backend.ChordCounter, group string, want ...string) {
	w.Helper()
	raw, err := c.ChordParts(w.ctx, group)
	w.must(err)
	got := make([]string, len(raw))
	for i, p := range raw {
		got[i] = string(p)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		w.Errorf("parts of %s: got %q, want %q", group, got, want)
	}
}
