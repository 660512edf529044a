package transport_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/transport"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	o := transport.Read(map[string]any{
		"text": "x", "flag": "False", "seconds": json.Number("1.5"), "duration": time.Minute, "zero": 0,
		"whole": " 7", "wholes": []any{0, 3.0, "6"}, "sub": map[string]any{"password": "p"}, "none": nil,
	})
	got := []any{
		o.Text("text", ""), o.Flag("flag", true), o.Seconds("seconds", 0), o.Seconds("duration", 0), o.Positive("zero", time.Hour), o.Seconds("zero", time.Hour),
		o.Whole("whole", 0), o.Wholes("wholes", nil), o.Sub("sub").Text("password", ""), o.Text("none", "d"), o.Whole("missing", 3), o.Sub("missing").Text("x", "d"),
	}
	want := []any{"x", false, 1500 * time.Millisecond, time.Minute, time.Hour, time.Duration(0), 7, []int{0, 3, 6}, "p", "d", 3, "d"}
	if !reflect.DeepEqual(got, want) || o.Err() != nil {
		t.Errorf("got %v, %v, want %v", got, o.Err(), want)
	}
}

func TestTheQueryComesFirst(t *testing.T) {
	t.Parallel()
	given := map[string]any{"lease": 30, "host": "h"}
	for _, url := range []string{"redis://h/0?lease=4&flag=true&password=hunter2&wholes=3", "sentinel://a?lease=4&flag=true;sentinel://b", "redis://h?lease=4&flag=True#x"} {
		o := transport.ReadURL(given, url)
		if lease := o.Seconds("lease", 0); lease != 4*time.Second || !o.Flag("flag", false) || o.Text("host", "") != "h" || o.Text("password", "none") != "none" || o.Err() != nil {
			t.Errorf("%s: lease %v, %v", url, lease, o.Err())
		}
	}
	o := transport.ReadURL(nil, "redis://h?wholes=3")
	if o.Wholes("wholes", nil); o.Err() == nil {
		t.Error("a text is taken for a list")
	}
	if given["lease"] != 30 {
		t.Errorf("the settings are changed: %v", given)
	}
}

func TestTheFirstMistakeIsKept(t *testing.T) {
	t.Parallel()
	for says, read := range map[string]func(o *transport.Options){
		"option x: want a text, got a value of type float64":       func(o *transport.Options) { o.Text("x", "") },
		"option y: want true or false, got a value of type string": func(o *transport.Options) { o.Flag("y", false) },
		"option y: want a number of seconds":                       func(o *transport.Options) { o.Seconds("y", 0) },
		"option x: want a whole number":                            func(o *transport.Options) { o.Whole("x", 0) },
		"option y: want a list of whole numbers":                   func(o *transport.Options) { o.Wholes("y", nil) },
		"option y: want a map":                                     func(o *transport.Options) { o.Sub("y") },
	} {
		o := transport.Read(map[string]any{"x": 1.5, "y": "hunter2"})
		read(o)
		o.Flag("x", false)
		if err := o.Err(); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want an error that says %q and shows no value", err, says)
		}
	}
}
