package scheme_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/internal/scheme"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	table := scheme.Table[string]{Kind: "broker", Setting: "broker_url", Import: map[string]string{"redis": "example.org/redis"}}
	table.Register("S", "sqlite")
	if open, err := table.Lookup("sqlite:///x", ""); open != "S" || err != nil {
		t.Fatalf("got %q, %v", open, err)
	}
	for url, want := range map[string]string{
		"nonsense":        `broker_url "***" has no scheme`,
		"redis://h":       `add import _ "example.org/redis"`,
		"amqp://h":        `"amqp" (RabbitMQ) is not in this version; this program has: sqlite`,
		"gopher://h":      `"gopher" is not known; this program has: sqlite`,
		"db+sqlite:///x":  "Celery's own tables",
		"postgresql://db": "PostgreSQL",
	} {
		if _, err := table.Lookup(url, "***"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", url, err, want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a scheme registered twice: no panic")
		}
	}()
	table.Register("T", "sqlite")
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string][]string{
		"":                         {""},
		"redis://a":                {"redis://a"},
		"redis://a; amqp://b//":    {"redis://a", "amqp://b//"},
		"redis://:x;y@a;redis://b": {"redis://:x;y@a", "redis://b"},
		"sentinel://a;sentinel://b;redis://c;sentinel://d": {"sentinel://a;sentinel://b", "redis://c", "sentinel://d"},
		"rediscluster://a:1;b:2;rediscluster://c":          {"rediscluster://a:1;b:2;rediscluster://c"},
		"rediss+cluster://a;redis+cluster://b":             {"rediss+cluster://a", "redis+cluster://b"},
	} {
		if got := scheme.Split(raw); !slices.Equal(got, want) {
			t.Errorf("Split(%q) = %q, want %q", raw, got, want)
		}
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"redis://h/1":                             "redis://h/1",
		"/tmp/x@y":                                "/tmp/x@y",
		"redis://u:hush@h/1":                      "redis://u:**@h/1",
		"redis://u:hush@h?password=hu&x=1":        "redis://u:**@h?password=**&x=1",
		"redis://u:hush@h;amqp://:hush@g":         "redis://u:**@h;amqp://:**@g",
		"redis://u:hu;sh@h:x;redis://v:hush@g":    "redis://**@h:x;redis://v:**@g",
		"rediscluster://u:hush@h:1;g:2":           "rediscluster://u:**@h:1;g:2",
		"sentinel://:hush@h:1;sentinel://:hush@g": "sentinel://:**@h:1;sentinel://:**@g",
	} {
		got := scheme.Redact(raw)
		if got != want {
			t.Errorf("Redact(%q) = %q, want %q", raw, got, want)
		}
	}
}
