package prefork

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
)

// fill gives every exported field in reach a value that is not zero.
func fill(rnd *rand.Rand, v reflect.Value) {
	if v.Type() == requestType || v.Type() == outcomeType {
		return
	}
	if t, ok := v.Addr().Interface().(*time.Time); ok {
		*t = time.Unix(1+rnd.Int64N(1<<31), rnd.Int64N(1e9)).UTC()
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(rnd.Int64N(100) - 101)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1 + rnd.Uint64N(100))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(rnd.Float64() + 1)
	case reflect.String:
		v.SetString(fmt.Sprint("text ", rnd.Int()))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(rnd, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(rnd, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(rnd, key)
			fill(rnd, elem)
			v.SetMapIndex(key, elem)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(rnd, v.Field(i))
			}
		}
	default:
		panic("fill: " + v.Type().String())
	}
}

func trip[T any](t *testing.T, v T) []byte {
	t.Helper()
	b := appendFlat(nil, &v)
	got, err := readFlat[T](b)
	if err != nil {
		t.Fatalf("%T: %v", v, err)
	}
	if !reflect.DeepEqual(got, v) {
		t.Errorf("%T: got %+v, want %+v", v, got, v)
	}
	return b
}

func filled[T any](seed uint64) (v T) {
	fill(rand.New(rand.NewPCG(seed, 1)), reflect.ValueOf(&v).Elem())
	return v
}

// TestFrames sends every exported field of all that parent and child tell each
// other, so that a field added to Effects, or to what is in it, is one that
// travels, or fails here.
func TestFrames(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		whole := trip(t, filled[ended](seed))
		trip(t, filled[delivery](seed))
		trip(t, filled[conclusion](seed))
		trip(t, filled[greeting](seed))
		trip(t, filled[settings](seed))
		trip(t, filled[record](seed))
		trip(t, filled[reply](seed))
		trip(t, filled[cancelled](seed))
		for i := 0; i < len(whole) && seed == 0; i += 3 { // a frame that is cut off is an error, never a panic
			if _, err := readFlat[ended](whole[:i]); err == nil {
				t.Fatalf("the first %d of %d bytes: no error", i, len(whole))
			}
		}
	}
	trip(t, ended{})
	trip(t, delivery{Body: []byte{}, Headers: nil})
}

// TestOutcomes holds outcome and info against the types they stand for.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]reflect.Type{
		{reflect.TypeFor[lovage.Outcome](), reflect.TypeFor[outcome]()}, {reflect.TypeFor[lovage.ErrorInfo](), reflect.TypeFor[info]()},
	} {
		for i := range pair[0].NumField() {
			if f := pair[0].Field(i); f.IsExported() && f.Name != "Later" { // a child waits for its answers
				if _, ok := pair[1].FieldByName(f.Name); !ok {
					t.Errorf("%v.%s is not sent", pair[0], f.Name)
				}
			}
		}
	}
	in := lovage.Outcome{
		State: lovage.Failure, Runtime: 3, Delay: 4, Requeue: true, Timeout: true, Lost: true, Unbound: true, Cancelled: true, Fenced: lovage.ErrLeaseLost,
		Info: &lovage.ErrorInfo{Err: lovage.ErrTimeLimit, Type: "T", Module: "m", Args: []any{"a", true, nil}, Traceback: "tb", Expected: true},
	}
	w := outcomeOf(&in, true)
	if got := w.outcome(); !reflect.DeepEqual(got, in) {
		t.Errorf("got %+v %+v, want %+v %+v", got, got.Info, in, in.Info)
	}
	ok := outcomeOf(&lovage.Outcome{State: lovage.Success, Result: map[string]any{"a": 1}}, true)
	if got := ok.outcome(); got.Repr() != "{'a': 1}" {
		t.Errorf("repr: got %s", got.Repr())
	}
}

func FuzzFrames(f *testing.F) {
	v := filled[ended](1)
	f.Add(appendFlat(nil, &v))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := readFlat[ended](b); err == nil {
			if _, err := json.Marshal(v.Effects.Store); err != nil {
				t.Error(err)
			}
		}
	})
}
