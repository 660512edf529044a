package main

import (
	"bytes"
	"testing"
)

func TestDefaultClass(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = `by constructor
  after return of count_fruit: SUCCESS, 3
  count_fruit counts 3, its class is *main.DatabaseTask
  own_class keeps its class, *main.Own
by name, in the configuration
  after return of count_fruit: SUCCESS, 3
  count_fruit counts 3, its class is *main.DatabaseTask
  own_class keeps its class, *main.Own
by name, in the environment: CELERY_TASK_CLS=proj.DatabaseTask
  after return of count_fruit: SUCCESS, 3
  count_fruit counts 3, its class is *main.DatabaseTask
  own_class keeps its class, *main.Own
by name, in the environment: LOVAGE_TASK_CLS=proj.DatabaseTask
  after return of count_fruit: SUCCESS, 3
  count_fruit counts 3, its class is *main.DatabaseTask
  own_class keeps its class, *main.Own
by a name that nobody registered
  task_cls "proj.DatabseTask" names no registered base class: call app.RegisterBase with that name (registered: [proj.DatabaseTask])
`
	if got := out.String(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}
