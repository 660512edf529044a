package events_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/events"
)

func TestParse(t *testing.T) {
	t.Parallel()
	t.Run("UnknownFieldsKeepTheirText", func(t *testing.T) {
		t.Parallel()
		in := `{"type":"a-b","big":123456789012345678901234567890,"exact":1.50,"deep":{"x":[1e3,null]}}`
		list, err := events.Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		out, err := list[0].AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"big":123456789012345678901234567890`, `"exact":1.50`, `"deep":{"x":[1e3,null]}`} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s is not in %s", want, out)
			}
		}
	})
	t.Run("PythonsNaNIsRead", func(t *testing.T) {
		t.Parallel()
		list, err := events.Parse([]byte(`{"type":"a-b","x":NaN,"y":[-Infinity,Infinity],"s":"NaN \" Infinity"}`))
		if err != nil {
			t.Fatal(err)
		}
		f := list[0].Fields
		if x, ok := f["x"].(float64); !ok || !math.IsNaN(x) {
			t.Errorf("x is %v, want NaN", f["x"])
		}
		if want := []any{math.Inf(-1), math.Inf(1)}; !reflect.DeepEqual(f["y"], want) {
			t.Errorf("y is %v, want %v", f["y"], want)
		}
		if got, want := list[0].Text("s"), `NaN " Infinity`; got != want {
			t.Errorf("s is %q, want %q", got, want)
		}
		out, err := list[0].AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(out), `"x":NaN,"y":[-Infinity,Infinity]`) {
			t.Errorf("NaN is not written as Python does: %s", out)
		}
	})
	t.Run("AGoodEventSurvivesABadNeighbour", func(t *testing.T) {
		t.Parallel()
		list, err := events.Parse([]byte(`[{"type":"a-b"},7,{"clock":3}]`))
		if err == nil || !strings.Contains(err.Error(), "event 1 of a batch of 3: event is a number, not an object") {
			t.Errorf("error is %v", err)
		}
		if len(list) != 1 || list[0].Type != "a-b" {
			t.Errorf("got %v, want the one of type a-b", list)
		}
	})
	for name, in := range map[string]string{
		"Empty": ``, "NoObject": `"x"`, "NoType": `{"hostname":"h"}`, "TypeIsNoText": `{"type":3}`,
		"TwoValues": `{"type":"a"} {}`, "CutOff": `{"type":"a"`, "BareNaNLike": `{"type":"a","x":NaNN}`,
		"TooDeep": `{"type":"a","x":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`,
	} {
		t.Run(name+"IsRefused", func(t *testing.T) {
			t.Parallel()
			if list, err := events.Parse([]byte(in)); err == nil {
				t.Errorf("%s gave %v, want an error", in, list)
			}
		})
	}
}

func TestAppendJSON(t *testing.T) {
	t.Parallel()
	e := events.Event{Type: "shop-order", Hostname: "h@x", PID: 7, Clock: 3, UUID: "u", Timestamp: 1795219695, Fields: map[string]any{
		"freq": 2.0, "n": 1, "s": "é\"\n", "list": []string{"a"}, "raw": json.RawMessage(`{"k":1}`), "none": nil, "small": 1e-7,
	}}
	out, err := e.AppendJSON([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	want := `x{"hostname":"h@x","utcoffset":0,"pid":7,"clock":3,"uuid":"u","freq":2.0,"list":["a"],"n":1,"none":null,"raw":{"k":1},"s":"\u00e9\"\n","small":1e-07,"timestamp":1795219695.0,"type":"shop-order"}`
	if string(out) != want {
		t.Errorf("got  %s\nwant %s", out, want)
	}
	cyclic := map[string]any{}
	cyclic["again"] = cyclic
	for name, bad := range map[string]events.Event{
		"no type":   {Fields: map[string]any{"a": 1}},
		"clock":     {Type: "a-b", Fields: map[string]any{"clock": 1}},
		"channel":   {Type: "a-b", Fields: map[string]any{"channel": make(chan int)}},
		"cyclic":    {Type: "a-b", Fields: map[string]any{"cyclic": cyclic}},
		"badnumber": {Type: "a-b", Fields: map[string]any{"badnumber": json.Number("1,2")}},
	} {
		out, err := bad.AppendJSON([]byte("x"))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error is %v", name, err)
		}
		if string(out) != "x" {
			t.Errorf("%s: a failed append left %q", name, out)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, g := range readGolden(f) {
		f.Add([]byte(g.Body))
	}
	f.Add([]byte(`[{"type":"a","x":NaN},{"type":"b","timestamp":-Infinity,"pid":1e400,"uuid":null}]`))
	f.Fuzz(func(t *testing.T, in []byte) {
		list, err := events.Parse(in)
		if err != nil {
			return
		}
		for _, e := range list {
			e.Time()
			text, err := e.AppendJSON(nil)
			if err != nil {
				t.Fatalf("what was read cannot be written: %v in %q", err, in)
			}
			again, err := events.Parse(text)
			if err != nil {
				t.Fatalf("what was written cannot be read: %v in %s", err, text)
			}
			text2, err := again[0].AppendJSON(nil)
			if err != nil || string(text2) != string(text) {
				t.Fatalf("second round differs (%v):\n%s\n%s", err, text, text2)
			}
		}
	})
}
