package bind_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/bind"
	"github.com/lovage-go/lovage/serializer"
)

// bound is the value that Bind makes of args, or the error's text.
func bound[T any](t *testing.T, args string) any {
	t.Helper()
	var v T
	if err := planOf[T](t).Bind("proj.f", json.RawMessage(args), nil, &v); err != nil {
		if _, ok := errors.AsType[*bind.ArgumentError](err); !ok {
			t.Errorf("%s: got a %T, want an *ArgumentError", args, err)
		}
		return err.Error()
	}
	return v
}

func TestBindValues(t *testing.T) {
	t.Parallel()
	three := 3
	large, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	for _, c := range []struct{ got, want any }{
		{bound[int](t, `[3]`), 3},
		{bound[int](t, ` [ 3.0 ] `), 3},
		{bound[int](t, `[-1e3]`), -1000},
		{bound[int](t, `[9223372036854775807]`), math.MaxInt64},
		{bound[int8](t, `[-128]`), int8(-128)},
		{bound[uint64](t, `[18446744073709551615]`), uint64(math.MaxUint64)},
		{bound[uint](t, `[1e3]`), uint(1000)},
		{bound[time.Duration](t, `[1000]`), time.Microsecond},
		{bound[float64](t, `[3]`), 3.0},
		{bound[float64](t, `[-Infinity]`), math.Inf(-1)},
		{bound[float32](t, `[0.1]`), float32(0.1)},
		{bound[bool](t, `[true]`), true},
		{bound[bool](t, `[false]`), false},
		{bound[string](t, `["a\"\\\/\b\f\n\r\t\u00fc\ud83d\ude00\ud83d"]`), "a\"\\/\b\f\n\r\tü\U0001F600\uFFFD"},
		{bound[[]int](t, `[[1, 2.0]]`), []int{1, 2}},
		{bound[[]int](t, `[[]]`), []int{}},
		{bound[[]int](t, `[null]`), []int(nil)},
		{bound[[]string](t, `[["a"]]`), []string{"a"}},
		{bound[map[string]int](t, `[{"a":1}]`), map[string]int{"a": 1}},
		{bound[map[string]int](t, `[null]`), map[string]int(nil)},
		{bound[*int](t, `[3]`), &three},
		{bound[*int](t, `[null]`), (*int)(nil)},
		{bound[any](t, `[null]`), nil},
		{bound[any](t, `["x"]`), "x"},
		{bound[*big.Int](t, `[123456789012345678901234567890]`), large},
		{bound[big.Int](t, `[123456789012345678901234567890]`), *large},
		{bound[time.Time](t, `["2026-11-21T00:00:00Z"]`), time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)},
		{bound[time.Time](t, `[{"__type__":"datetime","__value__":"2026-11-21T01:00:00+01:00"}]`).(time.Time).UTC(), time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)},
		{bound[any](t, `[12345678901234567890]`), serializer.Number("12345678901234567890")},
		{bound[[]byte](t, `[{"__type__":"base64","__value__":"/w=="}]`), []byte{0xff}},
		{bound[json.RawMessage](t, `[{"a": NaN}]`), json.RawMessage(`{"a": NaN}`)},
		{bound[*addArgs](t, `[1,2]`), &addArgs{1, 2}},
		{bound[[][]int](t, `[[[1],[2]]]`), [][]int{{1}, {2}}},

		{bound[int](t, `["3"]`), `proj.f: argument "arg": got a string, want int`},
		{bound[int](t, `[3.5]`), `proj.f: argument "arg": got 3.5, want int`},
		{bound[int](t, `[NaN]`), `proj.f: argument "arg": got NaN, want int`},
		{bound[int](t, `[Infinity]`), `proj.f: argument "arg": got Infinity, want int`},
		{bound[int](t, `[null]`), `proj.f: argument "arg": got null, want int`},
		{bound[int](t, `[true]`), `proj.f: argument "arg": got a boolean, want int`},
		{bound[int](t, `[9223372036854775808]`), `proj.f: argument "arg": got 9223372036854775808, which overflows int`},
		{bound[int](t, `[1e400]`), `proj.f: argument "arg": got 1e400, which overflows int`},
		{bound[int8](t, `[128]`), `proj.f: argument "arg": got 128, which overflows int8`},
		{bound[uint](t, `[-1]`), `proj.f: argument "arg": got -1, which overflows uint`},
		{bound[uint64](t, `[18446744073709551616]`), `proj.f: argument "arg": got 18446744073709551616, which overflows uint64`},
		{bound[uint8](t, `[256]`), `proj.f: argument "arg": got 256, which overflows uint8`},
		{bound[float32](t, `[1e300]`), `proj.f: argument "arg": got 1e300, which overflows float32`},
		{bound[float64](t, `["1"]`), `proj.f: argument "arg": got a string, want float64`},
		{bound[bool](t, `[1]`), `proj.f: argument "arg": got a number, want bool`},
		{bound[string](t, `[{"a":1}]`), `proj.f: argument "arg": got an object, want string`},
		{bound[string](t, `[null]`), `proj.f: argument "arg": got null, want string`},
		{bound[time.Time](t, `[null]`), `proj.f: argument "arg": got null, want time.Time`},
		{bound[[]int](t, `[[1,"a"]]`), `proj.f: argument "arg": element 1: got a string, want int`},
		{bound[[]int](t, `[1]`), `proj.f: argument "arg": got a number, want []int`},
		{bound[int](t, `[`+strings.Repeat("9", 100)+`]`), `proj.f: argument "arg": got ` + strings.Repeat("9", 40) + `..., which overflows int`},
		{bound[addArgs](t, `[1,[]]`), `proj.f: argument "y": got an array, want int`},
		{bound[int](t, `{}`), `proj.f: args: not JSON at byte 0: got an object, want an array`},
		{bound[int](t, `[1`), `proj.f: args: not JSON at byte 2: want a comma or the end of an array`},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("got %#v, want %#v", c.got, c.want)
		}
	}
}

func TestBindNestedMismatchNamesThePlace(t *testing.T) {
	t.Parallel()
	type inner struct {
		A struct{ B int }
	}
	type args struct{ In inner }
	got := bound[args](t, `[{"A":{"B":"x"}}]`)
	if s, _ := got.(string); !strings.HasPrefix(s, `proj.f: argument "in": `) || !strings.Contains(s, "A.B") {
		t.Errorf("got %v, want an error that names in and A.B", got)
	}
	got = bound[map[string]int](t, `["x"]`)
	if s, _ := got.(string); !strings.HasPrefix(s, `proj.f: argument "arg": got a string, want map[string]int`) {
		t.Errorf("got %v, want got and want", got)
	}
}

func TestBindDefaults(t *testing.T) {
	t.Parallel()
	p := planOf[mixedArgs](t)
	seven := 7
	want := mixedArgs{X: 1, Y: 5, P: &seven, L: []int{1, 2}, F: 0.5}
	dirty := mixedArgs{S: "old", T: time.Now(), Rest: []string{"old"}, More: map[string]any{"old": 1}}
	var first []int
	for range 2 {
		got := dirty
		if err := p.Bind("proj.f", json.RawMessage(`[1]`), json.RawMessage(`{"k":false}`), &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		first = got.L
		first[0] = 99 // the next call's default must not see it
	}
}

func TestBindRestAndExtraErrors(t *testing.T) {
	t.Parallel()
	type args struct {
		Rest []int          `lovage:",rest"`
		More map[string]int `lovage:",extra"`
	}
	p := planOf[args](t)
	for _, c := range []struct{ args, kwargs, want string }{
		{`[1,"a"]`, `{}`, `proj.f: argument "*rest[1]": got a string, want int`},
		{`[]`, `{"a":null}`, `proj.f: argument "a": got null, want int`},
		{`[]`, `[]`, `proj.f: kwargs: not JSON at byte 0: got an array, want an object`},
	} {
		var v args
		err := p.Bind("proj.f", json.RawMessage(c.args), json.RawMessage(c.kwargs), &v)
		if err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestBindTwiceTheSameKeyTakesTheLast(t *testing.T) {
	t.Parallel()
	var got addArgs
	err := planOf[addArgs](t).Bind("proj.add", nil, json.RawMessage(`{"x":1,"y":2,"\u0078":3}`), &got)
	if err != nil || got != (addArgs{3, 2}) {
		t.Errorf("got %v, %v, want {3 2} as Python's json reads it", got, err)
	}
}

func TestBindNullTextsAreNoArguments(t *testing.T) {
	t.Parallel()
	var in struct{}
	if err := planOf[struct{}](t).Bind("proj.none", json.RawMessage(`null`), json.RawMessage(`null`), &in); err != nil {
		t.Error(err)
	}
}

func TestBindManyParameters(t *testing.T) {
	t.Parallel()
	type args struct{ A, B, C, D, E, F, G, H, I, J int }
	var got args
	err := planOf[args](t).Bind("proj.many", json.RawMessage(`[1,2,3,4,5,6,7,8,9]`), json.RawMessage(`{"j":10}`), &got)
	if want := (args{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestBindIntoOtherType(t *testing.T) {
	t.Parallel()
	for _, into := range []any{nil, addArgs{}, (*addArgs)(nil), new(int)} {
		err := planOf[addArgs](t).Bind("proj.add", json.RawMessage(`[1,2]`), nil, into)
		if err == nil || !strings.Contains(err.Error(), "want a pointer to bind_test.addArgs") {
			t.Errorf("%T: got %v, want an error that names the type wanted", into, err)
		}
	}
}

// FuzzBind holds that no text makes Bind panic, that Check agrees with Bind about the
// call, and that what was bound can be sent and bound again.
func FuzzBind(f *testing.F) {
	for _, s := range [][2]string{
		{`[1,2]`, `{"k":true}`}, {`[]`, `{}`}, {`null`, `null`}, {``, ``}, {`[NaN,{"a":[1]}]`, `{"\ud800":1}`},
		{`[1,5,"",7,[1,2],"0001-01-01T00:00:00Z","r"]`, `{"k":false,"f":1e5}`}, {`[1`, `{"x":}`},
	} {
		f.Add([]byte(s[0]), []byte(s[1]))
	}
	plan := planOf[mixedArgs](f)
	f.Fuzz(func(t *testing.T, args, kwargs []byte) {
		var in mixedArgs
		bindErr := plan.Bind("proj.f", args, kwargs, &in)
		checkErr := plan.Check("proj.f", args, kwargs)
		if checkErr != nil && (bindErr == nil || bindErr.Error() != checkErr.Error()) {
			t.Fatalf("Check says %v, Bind says %v", checkErr, bindErr)
		}
		if bindErr != nil {
			return
		}
		again, kw, err := plan.Encode(in)
		if err != nil {
			t.Fatalf("%s %s was bound and cannot be sent: %v", args, kwargs, err)
		}
		var second mixedArgs
		if err := plan.Bind("proj.f", again, kw, &second); err != nil {
			t.Fatalf("%s %s became %s %s: %v", args, kwargs, again, kw, err)
		}
	})
}
