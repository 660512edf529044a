package bind_test

import (
	"encoding/json"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/bind"
	"github.com/lovage-go/lovage/serializer"
)

// encoded is args and kwargs of in, or the error.
func encoded[T any](t *testing.T, in T) string {
	t.Helper()
	args, kwargs, err := planOf[T](t).Encode(in)
	if err != nil {
		return err.Error()
	}
	return string(args) + " " + string(kwargs)
}

type mixedArgs struct {
	X    int
	Y    int            `lovage:",default=5"`
	S    string         `lovage:",optional"`
	P    *int           `lovage:",default=7"`
	L    []int          `lovage:",default=[1,2]"`
	T    time.Time      `lovage:",optional"`
	Rest []string       `lovage:",rest"`
	K    bool           `lovage:",kwonly"`
	F    float64        `lovage:",default=0.5"`
	More map[string]any `lovage:",extra"`
}

func TestEncode(t *testing.T) {
	t.Parallel()
	nine := 9
	for name, c := range map[string]struct{ got, want string }{
		"RequiredByPosition": {encoded(t, addArgs{2, 3}), `[2,3] {}`},
		"DefaultsStayHome": {
			encoded(t, mixedArgs{X: 1, Y: 5, L: []int{1, 2}, F: 0.5}), `[1] {"k":false}`},
		"ZeroIsNotTheDefault": {
			encoded(t, mixedArgs{X: 1}), `[1] {"y":0,"l":[],"k":false,"f":0.0}`},
		"OthersByKeyword": {
			encoded(t, mixedArgs{X: 1, Y: 5, S: "a", P: &nine, L: []int{3}, K: true, F: 2}), `[1] {"s":"a","p":9,"l":[3],"k":true,"f":2.0}`},
		"RestForcesPositions": {
			encoded(t, mixedArgs{X: 1, Y: 5, L: []int{1, 2}, F: 0.5, Rest: []string{"r"}}),
			`[1,5,"",7,[1,2],{"__type__": "datetime", "__value__": "0001-01-01T00:00:00+00:00"},"r"] {"k":false}`},
		"ExtraInOrder": {
			encoded(t, mixedArgs{Y: 5, L: []int{1, 2}, F: 0.5, More: map[string]any{"b": 1, "a": nil}}), `[0] {"k":false,"a":null,"b":1}`},
		"ExtraIsAParameter": {
			encoded(t, mixedArgs{More: map[string]any{"x": 1}}), `argument "more": the key "x" is a parameter of its own; set that field`},
		"Nothing":     {encoded(t, struct{}{}), `[] {}`},
		"Single":      {encoded(t, "a\"b\x00ü"), `["a\"b\u0000\u00fc"] {}`},
		"SingleNil":   {encoded[any](t, nil), `[null] {}`},
		"NilSlice":    {encoded[[]int](t, nil), `[[]] {}`},
		"NilMap":      {encoded[map[string]int](t, nil), `[{}] {}`},
		"NilPointer":  {encoded[*int](t, nil), `[null] {}`},
		"PointerBig":  {encoded(t, big.NewInt(7)), `[7] {}`},
		"ValueBig":    {encoded(t, *big.NewInt(7)), `[7] {}`},
		"Pointer":     {encoded(t, &addArgs{2, 3}), `[2,3] {}`},
		"LargeFloat":  {encoded(t, 1e21), `[1e+21] {}`},
		"Float32":     {encoded(t, float32(0.1)), `[0.1] {}`},
		"NaN":         {encoded(t, math.NaN()), `[NaN] {}`},
		"Infinities":  {encoded(t, []float64{math.Inf(1), math.Inf(-1)}), `[[Infinity,-Infinity]] {}`},
		"Bytes":       {encoded(t, []byte("a")), `[{"__type__": "bytes", "__value__": "a"}] {}`},
		"NilBytes":    {encoded[[]byte](t, nil), `[null] {}`},
		"Date":        {encoded(t, serializer.Date{Year: 2026, Month: 11, Day: 21}), `[{"__type__":"date","__value__":"2026-11-21"}] {}`},
		"NotUTF8":     {encoded(t, "a\xff"), `argument "arg": the string is not UTF-8; use []byte for bytes`},
		"NilArgument": {encoded[*addArgs](t, nil), `arguments: got a nil *bind_test.addArgs, want a value`},
		"Unmarshable": {encoded[any](t, func() {}), `argument "arg": encode JSON: json: unsupported type: func()`},
	} {
		if c.got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, c.got, c.want)
		}
	}
}

func TestEncodeOtherType(t *testing.T) {
	t.Parallel()
	for _, in := range []any{nil, 1, mixedArgs{}, &mixedArgs{}} {
		if _, _, err := planOf[addArgs](t).Encode(in); err == nil || !strings.Contains(err.Error(), "want bind_test.addArgs") {
			t.Errorf("%T: got %v, want an error that names the type wanted", in, err)
		}
	}
}

// TestEncodeBind holds that what Encode sends, Bind reads back.
func TestEncodeBind(t *testing.T) {
	t.Parallel()
	nine := 9
	p := planOf[mixedArgs](t)
	for _, in := range []mixedArgs{
		{},
		{X: -1, Y: 5, S: "ü\U0001F600\\", P: &nine, F: math.SmallestNonzeroFloat64},
		{X: math.MinInt64, T: time.Date(2026, 11, 21, 1, 2, 3, 4000, time.UTC), F: math.MaxFloat64},
		{Rest: []string{"", "a"}, K: true, More: map[string]any{"weird key": "v", "ü": []any{"x"}}},
	} {
		args, kwargs, err := p.Encode(in)
		if err != nil {
			t.Fatal(err)
		}
		var got mixedArgs
		if err := p.Bind("proj.mixed", args, kwargs, &got); err != nil {
			t.Fatalf("%s %s: %v", args, kwargs, err)
		}
		args2, kwargs2, err := p.Encode(got)
		if err != nil || string(args2) != string(args) || string(kwargs2) != string(kwargs) {
			t.Errorf("sent %s %s, read and sent again %s %s %v", args, kwargs, args2, kwargs2, err)
		}
		if got.X != in.X || got.Y != in.Y || got.S != in.S || got.F != in.F || got.K != in.K || !got.T.Equal(in.T) {
			t.Errorf("got %+v, want %+v", got, in)
		}
	}
}

var _ bind.RawArgs = raw{}

// plainCodec is encoding/json.
type plainCodec struct{}

func (plainCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (plainCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

func TestForCodec(t *testing.T) {
	t.Parallel()
	p, err := bind.ForCodec(reflect.TypeFor[time.Time](), plainCodec{})
	if err != nil {
		t.Fatal(err)
	}
	in := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	args, kwargs, err := p.Encode(in)
	if err != nil || string(args) != `["2026-11-21T00:00:00Z"]` {
		t.Fatalf("got %s, %v, want the codec's text", args, err)
	}
	var got time.Time
	if err := p.Bind("proj.f", args, kwargs, &got); err != nil || !got.Equal(in) {
		t.Errorf("got %s, %v, want %s", got, err, in)
	}
}
