package scheme_test

import (
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
