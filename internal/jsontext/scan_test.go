package jsontext_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lovage-go/lovage/internal/jsontext"
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

func TestBadTextsSayWhere(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                                       `byte 0: the text ends, want a value`,
		`[1,]`:                                   `byte 3: got ']', want a value`,
		`[1 2]`:                                  `byte 3: got '2', want ',' or ']'`,
		`{"a":1,}`:                               `byte 7: got '}', want a key in double quotes`,
		`{a:1}`:                                  `byte 1: got 'a', want a key in double quotes`,
		`{"a" 1}`:                                `byte 5: got '1', want ':'`,
		`{"a":1]`:                                `byte 6: got ']', want ',' or '}'`,
		`01`:                                     `byte 1: got '1', want the end`,
		`-`:                                      `byte 1: the text ends, want a digit`,
		`1.`:                                     `byte 2: the text ends, want a digit`,
		`1e+`:                                    `byte 3: the text ends, want a digit`,
		`+1`:                                     `byte 0: got '+', want a value`,
		`nul`:                                    `byte 0: got 'n', want a value`,
		`-Inf`:                                   `byte 1: got 'I', want a value`,
		`"a`:                                     `byte 2: the text ends, want a closing '"'`,
		`"\x"`:                                   `byte 2: got 'x', want an escape`,
		`"\u12g4"`:                               `byte 5: got 'g', want a hexadecimal digit`,
		"\"a\nb\"":                               `byte 2: control character '\n' in a string`,
		"\"\xff\"":                               `byte 0: a string that is not UTF-8`,
		`[] x`:                                   `byte 3: got 'x', want the end`,
		strings.Repeat("[", jsontext.MaxDepth+1): `byte 1000: nested deeper than 1000`,
	} {
		if err := jsontext.Valid([]byte(text)); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%.40s: got %v, want %s", text, err, want)
		}
	}
	if err := jsontext.ScanArray([]byte(`{}`), nil); err == nil || err.Error() != `invalid JSON at byte 0: got '{', want an array` {
		t.Errorf("got %v", err)
	}
	if err := jsontext.ScanObject([]byte(`{"a":1} x`), func(_, _ []byte) error { return nil }); err == nil || !strings.HasSuffix(err.Error(), "want the end") {
		t.Errorf("got %v", err)
	}
}

func TestDepthIsTheSameForAll(t *testing.T) {
	t.Parallel()
	nested := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	count := func(int, []byte) error { return nil }
	if err := errors.Join(jsontext.Valid(nested(jsontext.MaxDepth)), jsontext.ScanArray(nested(jsontext.MaxDepth), count)); err != nil {
		t.Error(err)
	}
	if jsontext.Valid(nested(jsontext.MaxDepth+1)) == nil || jsontext.ScanArray(nested(jsontext.MaxDepth+1), count) == nil {
		t.Error("one level too much was read")
	}
}

func TestKindOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`null`: "null", `true`: "a boolean", `1`: "a number", `NaN`: "a number", `-1`: "a number",
		`""`: "a string", `[]`: "a list", `{}`: "an object", ``: "no JSON value", `x`: "no JSON value",
	} {
		if got := jsontext.KindOf([]byte(text)).String(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

// FuzzValid holds that this package and encoding/json accept the same texts, but for
// what is said to differ, and that they read the same strings.
func FuzzValid(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,2.5e-3,null,true,"\ud83d\ude00\u00fc"]}`, `[]`, `NaN`, `"\ud800"`, `"\ud800\u0061"`, `-0.0`, ` 1 `, "\"\x7f\"",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		err := jsontext.Valid(text)
		ours, theirs := err == nil, json.Valid(text) && utf8.Valid(text)
		words := strings.Contains(string(text), "NaN") || strings.Contains(string(text), "Infinity")
		deep := err != nil && strings.Contains(err.Error(), "nested deeper")
		if ours != theirs && !words && !deep {
			t.Fatalf("%q: ours %v, encoding/json %t", text, err, theirs)
		}
		trimmed := []byte(strings.TrimSpace(string(text)))
		if ours && jsontext.KindOf(trimmed) == jsontext.String {
			var want string
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			got := jsontext.Unquote(trimmed)
			if got != want {
				t.Fatalf("%q: got %q, want %q", text, got, want)
			}
			var back string
			if err := json.Unmarshal(jsontext.AppendQuoted(nil, got), &back); err != nil || back != got {
				t.Fatalf("%q quoted and read is %q, %v", got, back, err)
			}
		}
	})
}
