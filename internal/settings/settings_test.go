package settings_test

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/settings"
)

func TestClosest(t *testing.T) {
	t.Parallel()
	known := []string{"task_acks_late", "task_serializer", "worker_pool"}
	for name, want := range map[string]string{
		"task_ack_late": "task_acks_late", "tasks_serialiser": "task_serializer", "wroker_pool": "worker_pool",
		"worker_pool": "worker_pool", "timezone": "", "": "", "x": "",
	} {
		if got := settings.Closest(name, known); got != want {
			t.Errorf("Closest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestMaskLeavesItsArgumentAlone(t *testing.T) {
	t.Parallel()
	in := map[string]any{"password": "x", "routing_key": "r", "list": []any{map[string]any{"api_token": 1}, "a://b;c"}}
	got := settings.Mask(in, func(s string) string { return "<" + s + ">" })
	want := map[string]any{"password": settings.Masked, "routing_key": "r", "list": []any{map[string]any{"api_token": settings.Masked}, "<a://b>;<c>"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Mask gives %v, want %v", got, want)
	}
	if in["password"] != "x" {
		t.Error("Mask changed its argument")
	}
}

func TestNumbersThatDoNotFit(t *testing.T) {
	t.Parallel()
	for _, v := range []any{math.Inf(1), math.NaN(), 1e18, "nan", "9223372037"} {
		if d, err := settings.Duration(v); err == nil {
			t.Errorf("Duration(%v) = %v, want an error", v, d)
		}
	}
	if d, err := settings.Duration("9223372035"); err != nil || d != 9223372035*time.Second {
		t.Errorf("Duration of the longest = %v, %v", d, err)
	}
	for _, v := range []any{math.Inf(1), math.NaN(), 1e18, "1e3", true, "99999999999999999999", uint64(math.MaxUint64)} {
		if n, err := settings.Int(v); err == nil {
			t.Errorf("Int(%v) = %v, want an error", v, n)
		}
	}
}

func FuzzSources(f *testing.F) {
	for _, s := range []string{"", "1", "1h", "a,b", "[1]", `{"a": [1, {"b": null}]}`, "none", "1e400", "-0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		settings.Bool(s)
		settings.Int(s)
		settings.Strings(s)
		settings.List(s)
		if m, err := settings.Map(s); err == nil && m == nil {
			t.Errorf("Map(%q) is nil without an error", s)
		}
		if d, err := settings.Duration(s); err == nil {
			if again, err := settings.Duration(d.String()); err != nil || again != d {
				t.Errorf("Duration(%q) = %v, which reads as %v, %v", s, d, again, err)
			}
		}
		settings.Closest(s, []string{"task_acks_late", "timezone"})
	})
}
