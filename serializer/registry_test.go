package serializer_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/serializer"
)

func TestRegistry(t *testing.T) {
	t.Parallel()
	r := serializer.NewRegistry()
	for _, name := range []string{"json", "JSON", "application/json"} {
		s, err := r.Lookup(name)
		if err != nil || s.Name() != "json" || s.Encoding() != "utf-8" {
			t.Errorf("%s: got %v, %v", name, s, err)
		}
	}
	for name, word := range map[string]string{
		"yaml": "no YAML serializer", "msgpack": "no msgpack serializer", "application/x-msgpack": "no msgpack serializer",
		"pickle": "never turned into code", "auth": "signed", "xml": "known are json",
	} {
		_, err := r.Lookup(name)
		if _, ok := errors.AsType[*serializer.UnknownError](err); !ok || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: got %v, want a word on %q", name, err, word)
		}
	}
}

func TestAccept(t *testing.T) {
	t.Parallel()
	var standard serializer.Accept
	if err := standard.Check("application/json", "utf-8"); err != nil {
		t.Error(err)
	}
	if err := standard.Check("Application/JSON; charset=utf-8", "UTF-8"); err != nil {
		t.Error(err)
	}
	for content, word := range map[string]string{
		"application/x-python-serialize": "never turned into code",
		"application/x-yaml":             `accept_content is ['json']; add "yaml" to accept_content`,
		"":                               "accept_content is ['json']",
	} {
		err := standard.Check(content, "utf-8")
		if !errors.Is(err, serializer.ErrNotAccepted) || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: got %v, want a word on %q", content, err, word)
		}
	}
	if err := standard.Check("application/json", "latin-1"); !errors.Is(err, serializer.ErrNotAccepted) {
		t.Errorf("latin-1: got %v", err)
	}
	a, err := serializer.ParseAccept([]string{"json", "application/x-yaml", "application/x-own"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := a.String(), "['json', 'application/x-own', 'yaml']"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := a.Check("application/x-own", "binary"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"pickle", "application/x-python-serialize", "jsn"} {
		if _, err := serializer.ParseAccept([]string{bad}); err == nil || !strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("%s: got %v, want an error that names it", bad, err)
		}
	}
	none, err := serializer.ParseAccept(nil)
	if err != nil || none.Check("application/json", "utf-8") == nil {
		t.Errorf("an empty list accepts nothing; got %v", err)
	}
}
