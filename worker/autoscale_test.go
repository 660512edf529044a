package worker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/worker"
)

func TestAutoscale(t *testing.T) {
	t.Parallel()
	nap := func(_ context.Context, d time.Duration) (int, error) { <-time.After(d); return 0, nil }
	run := func(name string, conf lovage.Config, cfg worker.Config, test func(x *world, h *lovage.Handle[time.Duration, int])) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h *lovage.Handle[time.Duration, int]
			in(t, setup{conf: conf, cfg: cfg, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.nap", nap) }}, func(x *world) { test(x, h) })
		})
	}
	slots := func(x *world, when string, want int) {
		x.t.Helper()
		if got := x.w.Stats().Slots; got != want {
			x.t.Errorf("slots %s: got %d, want %d\n%s", when, got, want, x.log)
		}
	}
	ten := worker.Config{Concurrency: 2, Autoscale: worker.Autoscale{Max: 10, Min: 3}}
	run("UpAtOnceAndDownAfter30Seconds", lovage.Config{}, ten, func(x *world, h *lovage.Handle[time.Duration, int]) {
		slots(x, "at the start", 3)
		for range 5 {
			delay(x, h, 10*time.Second)
		}
		pause(time.Millisecond)
		slots(x, "with five runs", 5)
		x.wantLog(1, "Scaling up 2 slots.")
		for range 20 {
			delay(x, h, 10*time.Second)
		}
		pause(time.Millisecond)
		slots(x, "with 25 to run", 10)
		if s := x.w.Stats(); s.Active != 10 || s.Reserved > 1 { // one ahead, until a run was seen
			x.t.Errorf("got %d active and %d reserved, want the maximum of 10, and no more than one", s.Active, s.Reserved)
		}
		pause(30 * time.Second) // the last five begin at 20 s, and end at 30 s
		if s := x.w.Stats(); s.Succeeded != 25 {
			x.t.Errorf("succeeded: got %d, want 25", s.Succeeded)
		}
		pause(18 * time.Second) // 28 s after ten were needed
		slots(x, "before 30 s have passed", 10)
		pause(4 * time.Second)
		slots(x, "after 30 s", 5) // as many as ran meanwhile
		pause(32 * time.Second)
		slots(x, "after another 30 s", 3)
		x.wantLog(1, "Scaling down 5 slots.")
		x.wantLog(1, "Scaling down 2 slots.")
	})
	run("AMinimumOfNoneKeepsOne", lovage.Config{}, worker.Config{Autoscale: worker.Autoscale{Max: 2}}, func(x *world, h *lovage.Handle[time.Duration, int]) {
		slots(x, "at the start", 1)
		for range 3 {
			delay(x, h, time.Second)
		}
		pause(time.Millisecond)
		slots(x, "with three to run", 2)
		pause(time.Minute)
		slots(x, "of an idle pool", 1)
	})
	run("AUseNowAndThenKeepsASlot", lovage.Config{}, worker.Config{Autoscale: worker.Autoscale{Max: 4}}, func(x *world, h *lovage.Handle[time.Duration, int]) {
		for range 6 { // two at once each 20 s
			delay(x, h, time.Second)
			delay(x, h, time.Second)
			pause(20 * time.Second)
			slots(x, "between two uses", 2)
		}
	})
	run("PrefetchFollowsTheSize", lovage.Config{WorkerPrefetchMultiplier: 3}, worker.Config{Autoscale: worker.Autoscale{Max: 4}}, func(x *world, h *lovage.Handle[time.Duration, int]) {
		prefetch := func(want int) {
			x.t.Helper()
			replies, err := x.app.Control().Inspect(context.Background(), "stats", nil, one)
			ask(x, replies, err)
			var stats struct {
				Prefetch   int            `json:"prefetch_count"`
				Autoscaler map[string]int `json:"autoscaler"`
			}
			if err := replies[0].Decode(&stats); err != nil || stats.Prefetch != want || stats.Autoscaler["max"] != 4 || stats.Autoscaler["min"] != 1 {
				x.t.Errorf("stats: got %+v, %v, want a prefetch count of %d and the bounds 4 and 1", stats, err, want)
			}
		}
		delay(x, h, time.Millisecond)
		pause(time.Second)
		prefetch(1 + 3)
		for range 100 {
			delay(x, h, time.Millisecond)
		}
		most := 0
		for range 30 {
			pause(time.Millisecond)
			most = max(most, x.w.Stats().Reserved)
		}
		prefetch(4 + 3*4)
		if most > 3*4 {
			x.t.Errorf("claimed ahead: got %d, want at most 3 for each of 4 slots", most)
		}
	})
	run("ByRemoteControl", lovage.Config{}, ten, func(x *world, h *lovage.Handle[time.Duration, int]) {
		ctx, c := context.Background(), x.app.Control()
		scale := func(most, least int, text string) {
			x.t.Helper()
			replies, err := c.Autoscale(ctx, most, least, one)
			want(x, ask(x, replies, err), text)
		}
		for range 20 {
			delay(x, h, time.Minute)
		}
		pause(time.Millisecond)
		scale(5, 2, "autoscale now max=5 min=2") // runs above it go on
		slots(x, "below the new maximum", 5)
		if s := x.w.Stats(); s.Active != 10 {
			x.t.Errorf("active: got %d, want the 10 that had begun", s.Active)
		}
		pause(time.Minute)
		if s := x.w.Stats(); s.Active != 5 || s.Succeeded != 10 {
			x.t.Errorf("a minute later: got %+v, want 5 active and 10 done", s)
		}
		scale(8, 6, "autoscale now max=8 min=6")
		pause(time.Millisecond)
		slots(x, "above the new minimum", 8) // there is more to do
		pause(3 * time.Minute)
		slots(x, "when idle", 6)
		scale(8, 7, "autoscale now max=8 min=7")
		slots(x, "when idle", 7)
		for _, bounds := range [][2]int{{3, 5}, {-1, 2}, {0, 0}} {
			replies, err := c.Autoscale(ctx, bounds[0], bounds[1], one)
			if got := ask(x, replies, err); !strings.HasPrefix(got, "ValueError(") {
				x.t.Errorf("autoscale %v: got %q, want a ValueError", bounds, got)
			}
		}
		replies, err := c.Broadcast(ctx, "autoscale", map[string]any{"max": 9}, one) // the other stays
		want(x, ask(x, replies, err), "autoscale now max=9 min=7")
		for _, verb := range []string{"grow", "shrink"} {
			replies, err := c.Broadcast(ctx, "pool_"+verb, map[string]any{"n": 1}, one)
			want(x, ask(x, replies, err), fmt.Sprintf("pool_%s is not supported with autoscale. Adjust autoscale range instead.", verb))
		}
	})
	t.Run("NotWithSolo", func(t *testing.T) {
		t.Parallel()
		fails(t, setup{cfg: worker.Config{Pool: "solo", Autoscale: worker.Autoscale{Max: 2}}, tasks: func(app *lovage.App) { lovage.Func(app, "t.nap", nap) }}, "solo has one slot")
	})
}

func TestParseAutoscale(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]worker.Autoscale{
		"10,3": {Max: 10, Min: 3}, "3,10": {Max: 10, Min: 3}, "5": {Max: 5, Min: 1}, "5,0": {Max: 5, Min: 1}, " 4 , 4 ": {Max: 4, Min: 4},
	} {
		if got, err := worker.ParseAutoscale(text); got != want || err != nil {
			t.Errorf("ParseAutoscale(%q): got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "many", "3,4,5", "0", "-1,3", "3,", "0,0"} {
		if got, err := worker.ParseAutoscale(text); err == nil {
			t.Errorf("ParseAutoscale(%q): got %+v, want an error", text, got)
		}
	}
}
