package serializer_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lovage-go/lovage/serializer"
)

type Inner struct {
	When time.Time         `json:"when"`
	IDs  []uuid.UUID       `json:"ids"`
	Opt  *serializer.Date  `json:"opt,omitempty"`
	Blob map[string][]byte `json:"blob"`
}

type embedded struct{ Level int }

type outer struct {
	embedded
	*Inner
	Name  string
	Price serializer.Decimal
	Any   any
	List  [2]Inner
	Raw   json.RawMessage
	Big   *big.Int
	F     float64
	At    serializer.Time `json:"at,omitzero"`
	Self  *outer          `json:"self,omitempty"`
	Skip  int             `json:"-"`
	Quote int64           `json:",string"`
}

// compact drops the spaces of Python's style.
var compact = strings.NewReplacer(": ", ":", ", ", ",")

func sample() outer {
	id := uuid.MustParse("12345678-1234-5678-1234-567812345678")
	in := Inner{
		When: time.Date(2024, 2, 29, 12, 30, 45, 123456000, time.UTC), IDs: []uuid.UUID{id},
		Opt: &serializer.Date{Year: 2024, Month: 2, Day: 29}, Blob: map[string][]byte{"a": []byte("hé"), "b": {0xff, 0}},
	}
	big1, _ := new(big.Int).SetString("1180591620717411303424", 10)
	return outer{
		embedded: embedded{3}, Inner: &in, Name: "<é&>", Price: "12.3400", List: [2]Inner{in, in}, Big: big1,
		Any: []any{serializer.Number("1.0"), serializer.Number("1"), map[string]any{"d": serializer.Date{Year: 1, Month: 1, Day: 1}}, nil, true, "x"},
		Raw: json.RawMessage(`{"n": NaN}`), F: 2, At: serializer.Time{Hour: 1, Nanosecond: 7000}, Self: &outer{Name: "in"}, Quote: 5,
	}
}

func TestTaggedTypesAtAnyDepth(t *testing.T) {
	t.Parallel()
	want := sample()
	data, err := serializer.JSON.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"Level": 3`, `"when": {"__type__": "datetime", "__value__": "2024-02-29T12:30:45.123456+00:00"}`,
		`{"__type__": "uuid", "__value__": {"hex": "12345678123456781234567812345678"}}`,
		`"opt": {"__type__": "date", "__value__": "2024-02-29"}`,
		`{"__type__": "bytes", "__value__": "h\u00e9"}`, `{"__type__": "base64", "__value__": "/wA="}`,
		`"Name": "<\u00e9&>"`, `{"__type__": "decimal", "__value__": "12.3400"}`, `[1.0, 1, {"d": `, `"Raw": {"n": NaN}`,
		`"Big": 1180591620717411303424`, `"F": 2.0`, `{"__type__": "time", "__value__": "01:00:00.000007"}`, `"Quote": "5"`,
	} {
		if !strings.Contains(compact.Replace(string(data)), compact.Replace(part)) {
			t.Errorf("missing %s in %s", part, data)
		}
	}
	var got outer
	if err := serializer.JSON.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	want.Self.Raw, want.Self.Price = json.RawMessage("null"), "0"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestPlainStringsDecodeToo(t *testing.T) {
	t.Parallel()
	var got struct {
		T time.Time
		D serializer.Date
		C serializer.Time
		M serializer.Decimal
		N serializer.Decimal
		U uuid.UUID
		B []byte
		X any
	}
	const text = `{"T": "2024-02-29T12:30:45Z", "D": "2024-02-29T00:00:00", "C": "23:59", "M": "1E+5", "N": 1.50,
		"U": "12345678-1234-5678-1234-567812345678", "B": "h\u00e9", "X": {"__type__": "unknown", "__value__": 1}}`
	if err := serializer.JSON.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got.T.Unix() != 1709209845 || got.D.String() != "2024-02-29" || got.C.Hour != 23 || got.M != "1E+5" || got.N != "1.50" ||
		got.U[0] != 0x12 || string(got.B) != "hé" || len(got.X.(map[string]any)) != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestNaNAndInfinity(t *testing.T) {
	t.Parallel()
	in := map[string]any{"a": math.NaN(), "b": math.Inf(1), "c": float32(math.Inf(-1)), "d": 0.1, "e": float32(0.1), "f": 1e100}
	data, err := serializer.JSON.Marshal(in)
	if want := `{"a": NaN, "b": Infinity, "c": -Infinity, "d": 0.1, "e": 0.1, "f": 1e+100}`; err != nil || string(data) != want {
		t.Fatalf("got %s, %v, want %s", data, err, want)
	}
	var floats map[string]float64
	if err := serializer.JSON.Unmarshal(data, &floats); err != nil || !math.IsNaN(floats["a"]) || !math.IsInf(floats["c"], -1) {
		t.Errorf("got %v, %v", floats, err)
	}
	var open any
	if err := serializer.JSON.Unmarshal(data, &open); err != nil || open.(map[string]any)["a"] != serializer.Number("NaN") {
		t.Errorf("got %v, %v", open, err)
	}
	for _, dst := range []any{new(int), new(string), new([]int), new(big.Int)} {
		err := serializer.JSON.Unmarshal([]byte("NaN"), dst)
		if err == nil {
			t.Errorf("%T: got no error", dst)
		}
	}
	err = serializer.JSON.Unmarshal([]byte("[1, NaN]"), new([]int))
	if err == nil || !strings.Contains(err.Error(), "NaN and Infinity fit only a float or any, not []int") {
		t.Errorf("got %v", err)
	}
}

func TestErrorsSayWhere(t *testing.T) {
	t.Parallel()
	var dst struct{ Rows []struct{ At time.Time } }
	err := serializer.JSON.Unmarshal([]byte(`{"Rows": [{"At": "2024-01-01"}, {"At": 5}]}`), &dst)
	if want := "decode JSON: at .Rows[1].At: got a number, want datetime"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = serializer.JSON.Marshal([]any{1, map[string]any{"f": func() {}}})
	if want := "encode JSON: at [1].f: json: unsupported type: func()"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	type ring struct{ Next any }
	r := &ring{}
	r.Next = r
	if _, err := serializer.JSON.Marshal(r); err == nil || !strings.Contains(err.Error(), "hold itself") {
		t.Errorf("got %v, want a word on the cycle", err)
	}
	if err := serializer.JSON.Unmarshal([]byte("1"), 5); err == nil {
		t.Error("no pointer: got no error")
	}
}

// TestPlainTypesAreEncodingJSON compares with the standard library.
func TestPlainTypesAreEncodingJSON(t *testing.T) {
	t.Parallel()
	type plain struct {
		A int               `json:"a"`
		B []string          `json:"b,omitempty"`
		C map[string]bool   `json:"c"`
		D *struct{ E int8 } `json:"d"`
	}
	in := plain{A: 1, B: []string{"<x>", "é"}, C: map[string]bool{"z": true}}
	data, err := serializer.JSON.Marshal(in)
	if want := `{"a":1,"b":["<x>","\u00e9"],"c":{"z":true},"d":null}`; err != nil || string(data) != want {
		t.Errorf("got %s, %v, want %s", data, err, want)
	}
	var out plain
	if err := serializer.JSON.Unmarshal(data, &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("got %+v, %v, want %+v", out, err, in)
	}
}

func TestFieldRulesAreEncodingJSON(t *testing.T) {
	t.Parallel()
	type A struct{ X, Y, Z float64 }
	type B struct{ X, Y float64 }
	type C struct {
		A
		B
		Y float64 `json:"Y"`
		W float64 `json:"z"`
	}
	in := C{A{1.5, 2.5, 3.5}, B{4.5, 5.5}, 6.5, 7.5}
	ours, err := serializer.JSON.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := compact.Replace(string(ours)); got != string(theirs) {
		t.Errorf("got %s, want %s", got, theirs)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limits  serializer.Limits
		text    string
		setting string
	}{
		{serializer.Limits{MaxBytes: 4}, `"four"`, "MaxBytes"},
		{serializer.Limits{MaxDepth: 2}, `[[[]]]`, "MaxDepth"},
		{serializer.Limits{MaxItems: 3}, `[1, 2, 3]`, "MaxItems"},
		{serializer.Limits{}, strings.Repeat("[", 65) + strings.Repeat("]", 65), "MaxDepth"},
	} {
		err := c.limits.CheckJSON([]byte(c.text))
		le, ok := errors.AsType[*serializer.LimitError](err)
		if !ok || le.Setting != c.setting || !strings.Contains(err.Error(), "raise Limits."+c.setting) {
			t.Errorf("%s: got %v, want one over %s", c.text, err, c.setting)
		}
	}
	for _, bad := range []string{"", "[", "[1,]", "{1:2}", `{"a"}`, "01", "1.", "-", "+1", "nul", "NaN1", "\"\n\"", `"\x"`, `"\u12g4"`, "1 2", "\"\xff\""} {
		if err := (serializer.Limits{}).CheckJSON([]byte(bad)); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
	for _, good := range []string{"NaN", "-Infinity", "Infinity", " [1, 2.5e-3, {\"a\\n\": null}] ", `"\ud800"`} {
		if err := (serializer.Limits{}).CheckJSON([]byte(good)); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func BenchmarkMarshal(b *testing.B) {
	type args struct{ X, Y int }
	for name, v := range map[string]any{"Struct": args{2, 3}, "Any": []any{2, "a", 1.5}, "Time": struct{ T time.Time }{time.Unix(1e9, 0).UTC()}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := serializer.JSON.Marshal(v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	b.ReportAllocs()
	data := []byte(`{"X": 2, "Y": 3}`)
	for b.Loop() {
		var v struct{ X, Y int }
		if err := serializer.JSON.Unmarshal(data, &v); err != nil {
			b.Fatal(err)
		}
	}
}
