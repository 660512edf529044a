package broker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
)

func TestMatchTopic(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, key string
		want         bool
	}{
		{"#", "", true},
		{"#", "a.b.c", true},
		{"", "", true},
		{"", "a", false},
		{"*", "", false},
		{"*", "a", true},
		{"*", "a.b", false},
		{"a.b", "a.b", true},
		{"a.b", "a.b.c", false},
		{"a.*", "a", false},
		{"a.*", "a.b", true},
		{"a.#", "a", true},
		{"a.#", "a.b.c", true},
		{"a.#", "ab", false},
		{"#.c", "c", true},
		{"#.c", "a.b.c", true},
		{"#.c", "a.c.b", false},
		{"a.#.c", "a.c", true},
		{"a.#.c", "a.b.b.c", true},
		{"a.#.c.#.e", "a.c.d.c.x.e", true},
		{"*.#", "", false},
		{"#.*", "a", true},
		{"*.*.#", "a.b", true},
		{"#.#", "", true},
		{"a*", "ab", false}, // a star is a whole word
		{"a..b", "a..b", true},
		{"a.*.b", "a..b", true},
	} {
		if got := broker.MatchTopic(c.pattern, c.key); got != c.want {
			t.Errorf("MatchTopic(%q, %q) = %v, want %v", c.pattern, c.key, got, c.want)
		}
	}
}

func TestMatchTopicIsNeverExponential(t *testing.T) {
	t.Parallel()
	pattern := strings.Repeat("#.a.", 60) + "b"
	key := strings.Repeat("a.", 2000) + "c"
	start := time.Now()
	if broker.MatchTopic(pattern, key) {
		t.Error("the pattern matches a key that does not end in b")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("one match took %v", took)
	}
}
