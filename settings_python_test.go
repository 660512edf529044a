package lovage_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
)

const settingsPy = `
import json
from celery.app.defaults import NAMESPACES, Option

def walk(space, prefix=''):
    for key, o in space.items():
        if isinstance(o, Option):
            old = [p.format(key) for p in sorted(o.old or ())]
            yield [prefix + key, (prefix + key).upper()] + [name.upper() for name in old]
        else:
            yield from walk(o, prefix + key + '_')

print(json.dumps(list(walk(NAMESPACES))))
`

// Every name that Python's Celery knows, new or old, is one here.
func TestPythonsSettingsAreKnown(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var celery [][]string
	if err := json.Unmarshal(testenv.Python(t, ctx, nil, settingsPy), &celery); err != nil {
		t.Fatal(err)
	}
	if len(celery) < 150 {
		t.Fatalf("Python's Celery names %d settings, want more than 150", len(celery))
	}
	for _, names := range celery {
		for _, name := range names {
			var cfg lovage.Config
			ws, _ := cfg.Apply(map[string]any{name: nil})
			for _, w := range ws {
				if strings.Contains(w.Message, "there is no such setting") || w.Setting != names[0] {
					t.Errorf("%s, a name of Celery's %s: %v", name, names[0], w)
				}
			}
		}
	}
}
