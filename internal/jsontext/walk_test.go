package jsontext_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lovage-go/lovage/internal/jsontext"
	"github.com/lovage-go/lovage/internal/pyjson"
)

func TestScanArray(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`[]`:      ``,
		" [ ] \n": ``,
		`[1]`:     `1`,
		` [ 1 , "a,]" ,[2,{}],{"k":[null]} , -1.5e+3,NaN,-Infinity ]`: `1|"a,]"|[2,{}]|{"k":[null]}|-1.5e+3|NaN|-Infinity`,
	} {
		var got []string
		err := jsontext.ScanArray([]byte(text), func(i int, elem []byte) error {
			if i != len(got) {
				t.Errorf("%s: got index %d, want %d", text, i, len(got))
			}
			got = append(got, string(elem))
			return nil
		})
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestScanObject(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`: ``,
		` { "a" : 1 , "b\u00fc\"" : {"a":2} , "a":3,"":[]} `: `a=1|bü"={"a":2}|a=3|=[]`,
	} {
		var got []string
		err := jsontext.ScanObject([]byte(text), func(key, value []byte) error {
			got = append(got, string(key)+"="+string(value))
			return nil
		})
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestScanStopsAtTheFirstError(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	n := 0
	err := jsontext.ScanArray([]byte(`[1,2,3]`), func(int, []byte) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("array: got %v after %d elements, want stop after 1", err, n)
	}
	n = 0
	err = jsontext.ScanObject([]byte(`{"a":1,"b":2}`), func(_, _ []byte) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("object: got %v after %d members, want stop after 1", err, n)
	}
}

func TestBadTexts(t *testing.T) {
	t.Parallel()
	ignore := func(int, []byte) error { return nil }
	for text, offset := range map[string]int{
		``: 0, `{}`: 0, `1`: 0, `[`: 1, `[1,]`: 3, `[1 2]`: 3, `[1]]`: 3, `[01]`: 2, `[nul]`: 1, `["a]`: 4, "[\"\xff\"]": 2, `[{"a":1]]`: 7,
	} {
		err := jsontext.ScanArray([]byte(text), ignore)
		if se, ok := errors.AsType[*pyjson.SyntaxError](err); !ok || se.Offset != offset {
			t.Errorf("array %q: got %v, want an error at byte %d", text, err, offset)
		}
	}
	for text, offset := range map[string]int{
		``: 0, `[]`: 0, `{a:1}`: 1, `{"a" 1}`: 5, `{"a":1,}`: 7, `{"a":}`: 5, `{"a":1} x`: 8, `{"\u12":1}`: 3, "{\"\xff\":1}": 2,
	} {
		err := jsontext.ScanObject([]byte(text), func(_, _ []byte) error { return nil })
		if se, ok := errors.AsType[*pyjson.SyntaxError](err); !ok || se.Offset != offset {
			t.Errorf("object %q: got %v, want an error at byte %d", text, err, offset)
		}
	}
}

func TestDepthIsBounded(t *testing.T) {
	t.Parallel()
	text := []byte(strings.Repeat("[", 1_000_000))
	_, ok := errors.AsType[*pyjson.LimitError](jsontext.ScanArray(text, func(int, []byte) error { return nil }))
	if _, valid := errors.AsType[*pyjson.LimitError](jsontext.Valid(text)); !ok || !valid {
		t.Error("a million open arrays were not refused for their depth")
	}
}

func TestWalkerStaysAtTheEnd(t *testing.T) {
	t.Parallel()
	w := jsontext.Array([]byte(`[1 x`))
	for range 3 {
		w.Next()
	}
	if w.Next() || w.Err() == nil {
		t.Errorf("got more or no error after a bad text: %v", w.Err())
	}
}

// FuzzScan holds that Valid and encoding/json accept the same texts, but for Python's
// words and the depth, and that a walk accepts what Valid does and hands out all of it.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,2.5e-3,null,true,"\ud83d\ude00\u00fc"]}`, `[]`, `NaN`, `"\ud800"`, `[1, "x" ,{}]`, `-0.0`, ` {"a":1,"a":2} `, "[\"\x7f\"]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		err := jsontext.Valid(text)
		theirs := json.Valid(text) && utf8.Valid(text)
		words := strings.Contains(string(text), "NaN") || strings.Contains(string(text), "Infinity")
		_, deep := errors.AsType[*pyjson.LimitError](err)
		if (err == nil) != theirs && !words && !deep {
			t.Fatalf("%q: ours %v, encoding/json %t", text, err, theirs)
		}
		again := []byte("[")
		walked := jsontext.ScanArray(text, func(i int, elem []byte) error {
			if i > 0 {
				again = append(again, ',')
			}
			again = append(again, elem...)
			return nil
		})
		if strings.HasPrefix(strings.TrimSpace(string(text)), "[") && (walked == nil) != (err == nil) {
			t.Fatalf("%q: Valid says %v, ScanArray says %v", text, err, walked)
		}
		if walked == nil && theirs {
			var want, got []any
			if json.Unmarshal(text, &want) != nil || json.Unmarshal(append(again, ']'), &got) != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%q was handed out as %q", text, again)
			}
		}
	})
}
