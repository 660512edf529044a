package bind_test

import (
	"encoding/json"
	"errors"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/bind"
)

// planOf is the plan of T.
func planOf[T any](t testing.TB) *bind.Plan {
	t.Helper()
	p, err := bind.For(reflect.TypeFor[T]())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type base struct {
	UserID int
}

func TestParams(t *testing.T) {
	t.Parallel()
	type args struct {
		base
		HTTPServer string
		UserIDs    []int `lovage:",kwonly"`
		Title      string
		Hidden     int `lovage:"-"`
		secret     int
		Max        *int           `lovage:"limit,default=3"`
		Tags       []string       `lovage:",optional"`
		More       []any          `lovage:",rest"`
		Deep       []int          `lovage:",default=[1,2]"`
		Others     map[string]any `lovage:"others,extra"`
	}
	_ = args{}.secret
	want := []bind.Param{
		{Name: "user_id", Kind: bind.Positional, Required: true},
		{Name: "http_server", Kind: bind.Positional, Required: true},
		{Name: "title", Kind: bind.Positional, Required: true},
		{Name: "limit", Kind: bind.Positional, Default: "3"},
		{Name: "tags", Kind: bind.Positional},
		{Name: "more", Kind: bind.Rest},
		{Name: "user_ids", Kind: bind.KeywordOnly, Required: true},
		{Name: "deep", Kind: bind.KeywordOnly, Default: "[1,2]"},
		{Name: "others", Kind: bind.Extra},
	}
	if got := planOf[args](t).Params(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSnakeCase(t *testing.T) {
	t.Parallel()
	type args struct {
		ID, URLs, UserID, HTTPServer, X2, Sha256Sum, A, AB, Already_Snake, Größe int
	}
	want := []string{"id", "urls", "user_id", "http_server", "x2", "sha256_sum", "a", "ab", "already_snake", "größe"}
	for i, p := range planOf[args](t).Params() {
		if p.Name != want[i] {
			t.Errorf("got %q, want %q", p.Name, want[i])
		}
	}
}

func TestSingleParameter(t *testing.T) {
	t.Parallel()
	want := []bind.Param{{Name: "arg", Required: true}}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[int](), reflect.TypeFor[string](), reflect.TypeFor[[]byte](), reflect.TypeFor[*float64](),
		reflect.TypeFor[map[string]int](), reflect.TypeFor[[]base](), reflect.TypeFor[time.Time](),
		reflect.TypeFor[big.Int](), reflect.TypeFor[*big.Int](), reflect.TypeFor[any](),
	} {
		p, err := bind.For(typ)
		if err != nil {
			t.Errorf("%s: %v", typ, err)
			continue
		}
		if got := p.Params(); !reflect.DeepEqual(got, want) || !p.TakesPositional() {
			t.Errorf("%s: got %+v, positional %t, want the one parameter arg", typ, got, p.TakesPositional())
		}
	}
}

func TestTakesPositional(t *testing.T) {
	t.Parallel()
	type keyword struct {
		K int `lovage:",kwonly"`
	}
	type rest struct {
		R []int `lovage:",rest"`
	}
	for name, c := range map[string]struct{ got, want bool }{
		"none":    {planOf[struct{}](t).TakesPositional(), false},
		"keyword": {planOf[keyword](t).TakesPositional(), false},
		"rest":    {planOf[rest](t).TakesPositional(), true},
		"struct":  {planOf[base](t).TakesPositional(), true},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %t, want %t", name, c.got, c.want)
		}
	}
}

func TestBadTypes(t *testing.T) {
	t.Parallel()
	type unknown struct {
		Y int `lovage:"y,defualt=0"`
	}
	type badDefault struct {
		Y int `lovage:"y,default=no"`
	}
	type wrongDefault struct {
		Y int `lovage:"y,default=\"x\""`
	}
	type nullDefault struct {
		Y int `lovage:"y,default=null"`
	}
	type wideDefault struct {
		Y int8 `lovage:"y,default=300"`
	}
	type emptyDefault struct {
		Y string `lovage:"y,default="`
	}
	type forgotComma struct {
		Y int `lovage:"default=3"`
	}
	type dashed struct {
		Y int `lovage:"user-id"`
	}
	type order struct {
		A int `lovage:",optional"`
		B int
	}
	type twice struct {
		A int `lovage:"b"`
		B int
	}
	type outer struct {
		base
		UserId int
	}
	type both struct {
		A int `lovage:",optional,default=3"`
	}
	type repeated struct {
		A int `lovage:",kwonly,kwonly"`
	}
	type restInt struct {
		A int `lovage:",rest"`
	}
	type restOption struct {
		A []int `lovage:",rest,optional"`
	}
	type twoRests struct {
		A []int `lovage:",rest"`
		B []int `lovage:",rest"`
	}
	type extraSlice struct {
		A []int `lovage:",extra"`
	}
	type extraKeys struct {
		A map[int]int `lovage:",extra"`
	}
	type twoExtras struct {
		A map[string]int `lovage:",extra"`
		B map[string]int `lovage:",extra"`
	}
	type closed struct {
		a int
	}
	type closedTag struct {
		a int `lovage:"a"`
	}
	_, _ = closed{}.a, closedTag{}.a
	type embedded struct{ *base }
	type channel struct{ C chan int }
	type channels struct{ C map[string][]chan int }
	type stringer struct{ S interface{ String() string } }

	for _, c := range []struct {
		typ  reflect.Type
		want string // in the error, besides the type's name
	}{
		{reflect.TypeFor[unknown](), `field Y, tag "y,defualt=0": unknown option "defualt=0"`},
		{reflect.TypeFor[badDefault](), `field Y, tag "y,default=no": the default: not JSON at byte 0`},
		{reflect.TypeFor[wrongDefault](), `the default: got a string, want int`},
		{reflect.TypeFor[nullDefault](), `the default: got null, want int`},
		{reflect.TypeFor[wideDefault](), `the default: got 300, which overflows int8`},
		{reflect.TypeFor[emptyDefault](), `the default: not JSON at byte 0: the text ends`},
		{reflect.TypeFor[forgotComma](), `the name "default=3" is not a Python identifier`},
		{reflect.TypeFor[dashed](), `the name "user-id" is not a Python identifier`},
		{reflect.TypeFor[order](), `field B: required after the optional field A`},
		{reflect.TypeFor[twice](), `field B: the parameter "b" is also field A`},
		{reflect.TypeFor[outer](), `field UserId: the parameter "user_id" is also field base.UserID`},
		{reflect.TypeFor[both](), `is optional already`},
		{reflect.TypeFor[repeated](), `the option kwonly is given twice`},
		{reflect.TypeFor[restInt](), `rest needs a slice, not int`},
		{reflect.TypeFor[restOption](), `rest goes with no other option`},
		{reflect.TypeFor[twoRests](), `field B, tag ",rest": a second rest field besides A`},
		{reflect.TypeFor[extraSlice](), `extra needs a map with string keys, not []int`},
		{reflect.TypeFor[extraKeys](), `extra needs a map with string keys, not map[int]int`},
		{reflect.TypeFor[twoExtras](), `a second extra field besides A`},
		{reflect.TypeFor[closed](), `has no exported fields`},
		{reflect.TypeFor[closedTag](), `field a, tag "a": has a tag but is not exported`},
		{reflect.TypeFor[embedded](), `field base: an embedded pointer to a struct`},
		{reflect.TypeFor[channel](), `field C: values of type chan int cannot travel`},
		{reflect.TypeFor[channels](), `field C: values of type chan int cannot travel`},
		{reflect.TypeFor[stringer](), `cannot travel`},
		{reflect.TypeFor[func()](), `values of type func() cannot travel`},
		{nil, `no argument type`},
	} {
		_, err := bind.For(c.typ)
		te, ok := errors.AsType[*bind.TypeError](err)
		if !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %s", c.typ, err, c.want)
			continue
		}
		if c.typ != nil && te.Type != c.typ.String() {
			t.Errorf("%v: the error names the type %s", c.typ, te.Type)
		}
	}
}

func TestSelfContainingTypesEnd(t *testing.T) {
	t.Parallel()
	type tree []tree
	if got := planOf[tree](t).Params(); len(got) != 1 {
		t.Errorf("got %v, want one parameter", got)
	}
}

// raw takes a call as it is.
type raw struct {
	args, kwargs json.RawMessage
}

func (r raw) RawArgs() (args, kwargs json.RawMessage, err error) { return r.args, r.kwargs, nil }

func (r *raw) BindRaw(args, kwargs json.RawMessage) error {
	r.args, r.kwargs = args, kwargs
	return nil
}

func TestRaw(t *testing.T) {
	t.Parallel()
	p := planOf[raw](t)
	want := []bind.Param{{Name: "args", Kind: bind.Rest}, {Name: "kwargs", Kind: bind.Extra}}
	if got := p.Params(); !reflect.DeepEqual(got, want) || !p.TakesPositional() {
		t.Errorf("got %v, positional %t, want %v", got, p.TakesPositional(), want)
	}
	var got raw
	if err := p.Bind("proj.raw", json.RawMessage(`[1, NaN]`), nil, &got); err != nil {
		t.Fatal(err)
	}
	if string(got.args) != `[1, NaN]` || string(got.kwargs) != `{}` {
		t.Errorf("got %s %s, want the texts as sent", got.args, got.kwargs)
	}
	for _, in := range []any{got, &got} {
		args, kwargs, err := p.Encode(in)
		if err != nil || string(args) != `[1, NaN]` || string(kwargs) != `{}` {
			t.Errorf("Encode(%T): got %s %s %v", in, args, kwargs, err)
		}
	}
	if _, _, err := p.Encode(raw{args: json.RawMessage(`{}`)}); err == nil {
		t.Error("args that are no array were encoded")
	}
	if err := p.Check("proj.raw", nil, json.RawMessage(`[]`)); err == nil || !strings.Contains(err.Error(), "proj.raw: kwargs: ") {
		t.Errorf("got %v, want an error that names kwargs", err)
	}
}
