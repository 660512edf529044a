package lovage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// fromPython publishes a message with what follows it, as Celery's client does.
func (w *world) fromPython(task, id, args, kwargs, embed string) {
	w.t.Helper()
	m := &protocol.Message{Queue: "celery", RoutingKey: "celery", Body: []byte("[" + args + ", " + kwargs + ", " + embed + "]"),
		Headers:    protocol.Headers{Lang: "py", Task: task, ID: id, RootID: id},
		Properties: protocol.Properties{ContentType: "application/json", ContentEncoding: "utf-8", CorrelationID: id, DeliveryMode: 2}}
	if err := w.app.PublishMessages(w.ctx(), m); err != nil {
		w.t.Fatal(err)
	}
}

// pyTask writes a signature as Celery does.
func pyTask(name string, options ...string) string {
	return fmt.Sprintf(`{"task": %q, "args": [], "kwargs": {}, "options": {%s}, "subtask_type": null, "immutable": false}`, name, strings.Join(options, ", "))
}

func pyMany(kind, options string, tasks ...string) string {
	return fmt.Sprintf(`{"task": "celery.%s", "args": [], "kwargs": {"tasks": [%s]}, "options": {%s}, "subtask_type": %q, "immutable": false}`, kind, strings.Join(tasks, ", "), options, kind)
}

func pyChord(options, body string, header ...string) string {
	return fmt.Sprintf(`{"task": "celery.chord", "args": [], "kwargs": {"kwargs": {}, "header": %s, "body": %s}, "options": {%s}, "subtask_type": "chord", "immutable": false}`,
		pyMany("group", "", header...), body, options)
}

// sends runs t.add(1, 1) with an embed, and tells what is sent: the task, its
// arguments, its group's members alike, and what follows it.
func sends(t *testing.T, embed string) (lines []string) {
	t.Helper()
	w := newWorld(t, lovage.Config{})
	lovage.Func(w.app, "t.add", add)
	w.finished = func(e *lovage.Effects) {
		groups := map[string]string{}
		for _, m := range e.Publish {
			body := must[protocol.Body](t)(protocol.ParseBody(m.Body))
			line := m.Headers.Task + " " + string(body.Args)
			if m.Headers.Task == "celery.chord_unlock" {
				line = m.Headers.Task
			}
			if g := m.Headers.Group; g != "" {
				if groups[g] == "" {
					groups[g] = string(rune('A' + len(groups)))
				}
				line += " group " + groups[g]
				if i := m.Headers.GroupIndex; i != nil {
					line += fmt.Sprint(*i)
				}
			}
			if m.Headers.RootID != "id" || m.Headers.ParentID != "id" {
				line += fmt.Sprintf(" root %s parent %s", m.Headers.RootID, m.Headers.ParentID)
			}
			name := func(kind string, list []protocol.Signature) {
				for _, s := range list {
					line += " " + kind + " " + s.Task
					if raw := s.Options["link"]; len(raw) > 2 {
						line += fmt.Sprintf("(link %s)", firstTask(t, raw))
					}
				}
			}
			name("link", body.Embed.Callbacks)
			name("err", body.Embed.Errbacks)
			name("chain", body.Embed.Chain)
			if c := body.Embed.Chord; c != nil {
				line += " chord " + c.Task
				for _, k := range []string{"link", "link_error", "chain"} {
					if raw := c.Options[k]; len(raw) > 2 {
						line += fmt.Sprintf("(%s %s)", k, firstTask(t, raw))
					}
				}
			}
			lines = append(lines, line)
		}
	}
	w.fromPython("t.add", "id", "[1, 1]", "{}", embed)
	if out := w.run(); out.State != lovage.Success {
		t.Fatalf("ended as %+v", out.Info)
	}
	return lines
}

func firstTask(t *testing.T, raw json.RawMessage) string {
	return must[[]protocol.Signature](t)(protocol.ParseSignatures(raw))[0].Task
}

func TestWhatFollowsIsSentAsCeleryDoes(t *testing.T) {
	t.Parallel()
	a, b, c := pyTask("a"), pyTask("b"), pyTask("c")
	link, linkError := `"link": [`+pyTask("l")+`]`, `"link_error": [`+pyTask("e")+`]`
	for name, k := range map[string]struct {
		embed string
		want  []string
	}{
		"OneCallbackIsAlone":           {`{"callbacks": [` + a + `]}`, []string{"a [2]"}},
		"SeveralCallbacksAreAGroup":    {`{"callbacks": [` + a + `, ` + b + `]}`, []string{"a [2] group A0", "b [2] group A1"}},
		"GroupsAmongThemGoFirst":       {`{"callbacks": [` + a + `, ` + pyMany("group", "", b, c) + `]}`, []string{"b [2] group A0", "c [2] group A1", "a [2] group B0"}},
		"ThenTheChain":                 {`{"callbacks": [` + a + `], "chain": [` + c + `, ` + b + `]}`, []string{"a [2]", "b [2] chain c"}},
		"AChainIsACallbackToo":         {`{"callbacks": [` + pyMany("chain", "", a, b, c) + `]}`, []string{"a [2] chain c chain b"}},
		"ChainsAreFlattened":           {`{"chain": [` + pyMany("chain", "", a, pyMany("chain", "", b, c)) + `]}`, []string{"a [2] chain c chain b"}},
		"TheRestComesAfterIt":          {`{"chain": [` + c + `, ` + pyMany("chain", "", a, b) + `]}`, []string{"a [2] chain c chain b"}},
		"GroupsAreFlattened":           {`{"chain": [` + pyMany("group", "", a, pyMany("group", "", b, c)) + `]}`, []string{"a [2] group A0", "b [2] group A1", "c [2] group A2"}},
		"AnEmptyGroupIsNothing":        {`{"chain": [` + pyMany("group", "") + `]}`, nil},
		"AGroupOfOneInAChainIsItsTask": {`{"chain": [` + pyMany("chain", "", pyMany("group", "", a), b) + `]}`, []string{"a [2] chain b"}},
		"AGroupAndATaskAreAChord": {`{"chain": [` + pyMany("chain", "", pyMany("group", "", a, b), c) + `]}`,
			[]string{"celery.chord_unlock", "a [2] group A0 chord c", "b [2] group A1 chord c"}},
		"TheRestFollowsTheBody": {`{"chain": [` + c + `, ` + pyChord("", b, a) + `]}`,
			[]string{"celery.chord_unlock", "a [2] group A0 chord b(chain c)"}},
		"AHeaderThatCountsForNothing": {`{"chain": [` + pyChord("", b, pyMany("chain", "")) + `]}`, []string{"b [[]] group A"}},
		"LinksOfAGroupAreItsTasks": {`{"callbacks": [` + pyMany("group", link+", "+linkError, a, b) + `]}`,
			[]string{"a [2] group A0 link l err e", "b [2] group A1 err e"}},
		"AnEmptyHeader":         {`{"chain": [` + pyChord("", b) + `]}`, []string{"b [[]] group A"}},
		"LinkOfAChainIsItsLast": {`{"chain": [` + pyMany("chain", link, a, b) + `]}`, []string{"a [2] chain b(link l)"}},
		"ErrbacksOfAChainGoToAll": {`{"chain": [` + pyMany("chain", linkError, a, b) + `]}`,
			[]string{"a [2] err e chain b"}},
		"LinksOfAChordAreItsBodys": {`{"chain": [` + pyChord(link+", "+linkError, b, a) + `]}`,
			[]string{"celery.chord_unlock", "a [2] group A0 chord b(link l)(link_error e)"}},
		"AChainInAHeaderCountsByItsLast": {`{"chain": [` + pyChord("", c, pyMany("chain", "", a, b)) + `]}`,
			[]string{"celery.chord_unlock", "a [2] chain b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			equalLines(t, sends(t, k.embed), k.want)
		})
	}
}

func TestChildrenOfGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	lovage.Func(w.app, "t.add", add)
	w.fromPython("t.add", "id", "[1, 1]", "{}", `{"callbacks": [`+pyMany("group", `"task_id": "g"`, pyTask("a", `"task_id": "a"`), pyTask("b", `"task_id": "b"`))+`], "chain": [`+pyTask("c", `"task_id": "c"`)+`]}`)
	w.run()
	equal(t, "children", strings.Join(must[[]string](t)(w.app.Result("id").Children(w.ctx())), " "), "a b c")
	m := must[*lovage.Meta](t)(w.app.Result("id").Meta(w.ctx()))
	equal(t, "as Celery stores them", strings.ReplaceAll(string(m.Children), " ", ""), `[[["g",null],[[["a",null],null],[["b",null],null]]],[["c",null],null]]`)
}

func TestErrback(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (*world, *diary) {
		d := &diary{}
		w := newWorld(t, lovage.Config{ResultExtended: new(true)})
		lovage.Func(w.app, "t.fail", func(context.Context, AddArgs) (int, error) { return 0, errNegative })
		lovage.Errback(w.app, "t.errback", func(ctx context.Context, r *lovage.Request, info *lovage.ErrorInfo) error {
			state, err := w.app.Result(r.ID).State(ctx)
			own := ""
			if me := lovage.RequestFrom(ctx); me != nil {
				own = string(me.Args)
			}
			d.write("%s %s %s args %s, state %s %v, own %s", r.Task, r.ID, info.Repr(), r.Args, state, err, own)
			return nil
		})
		lovage.Errback(w.app, "t.panics", func(context.Context, *lovage.Request, *lovage.ErrorInfo) error { panic("oh") })
		return w, d
	}
	t.Run("IsCalledHereOnceTheFailureIsStored", func(t *testing.T) {
		t.Parallel()
		w, d := setup(t)
		embed := strings.ReplaceAll(`{"errbacks": [`+pyTask("t.panics")+`, `+pyTask("t.errback")+`, `+pyTask("t.task")+`]}`, `"t.errback", "args": []`, `"t.errback", "args": [7]`)
		w.fromPython("t.fail", "id", "[1]", "{}", embed)
		if out := w.run(); out.State != lovage.Failure {
			t.Errorf("ended as %+v", out)
		}
		equalLines(t, d.read(), []string{"t.fail id Error('negative') args [1], state FAILURE <nil>, own [7]"})
		contains(t, strings.Join(w.log.read(), "\n"), "INTERNAL ERROR in link_error t.panics: panic: oh")
		equal(t, "messages", w.waiting("celery"), 1) // t.task alone
	})
	t.Run("RunsAsATaskWhereAnotherWorkerSendsIt", func(t *testing.T) {
		t.Parallel()
		w, d := setup(t)
		w.fromPython("t.fail", "id", "[1]", "{}", "{}")
		w.run()
		w.fromPython("t.errback", "eb", `["id"]`, "{}", "{}")
		if out := w.run(); out.State != lovage.Success {
			t.Errorf("ended as %+v", out.Info)
		}
		equalLines(t, d.read(), []string{`t.fail id Error('negative') args [1], state FAILURE <nil>, own ["id"]`})
	})
}

func TestBuiltinTasks(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) *world {
		w := newWorld(t, lovage.Config{})
		lovage.Func(w.app, "t.add", add)
		lovage.Func(w.app, "t.double", func(_ context.Context, n int) (int, error) {
			if n < 0 {
				return 0, errNegative
			}
			return 2 * n, nil
		})
		return w
	}
	result := func(w *world, task, args, kwargs string) string {
		w.t.Helper()
		w.fromPython(task, "id", args, kwargs, "{}")
		out := w.run()
		if out.State != lovage.Success {
			return string(out.State) + " " + out.Info.Repr()
		}
		return string(must[*lovage.Meta](w.t)(w.app.Result("id").Meta(w.ctx())).Result)
	}
	task := `{"task": %s, "it": %s}`
	for name, c := range map[string]struct{ task, args, kwargs, want string }{
		"Map":             {"celery.map", "[]", fmt.Sprintf(task, pyTask("t.double"), "[1, 2, 3]"), "[2, 4, 6]"},
		"Starmap":         {"celery.starmap", "[]", fmt.Sprintf(task, pyTask("t.add"), "[[1, 2], [3]]"), "[3, 3]"},
		"MapOfNothing":    {"celery.map", "[]", fmt.Sprintf(task, pyTask("t.double"), "[]"), "[]"},
		"MapFails":        {"celery.map", "[]", fmt.Sprintf(task, pyTask("t.double"), "[1, -1]"), "FAILURE Error('negative')"},
		"MapUnknown":      {"celery.map", "[]", fmt.Sprintf(task, pyTask("t.none"), "[1]"), `FAILURE NotRegistered('task is not registered: "t.none"')`},
		"MapNothing":      {"celery.map", "[]", "{}", `FAILURE TypeError('missing argument "task"')`},
		"Accumulate":      {"celery.accumulate", "[1, [2]]", "{}", "[1, [2]]"},
		"AccumulateIndex": {"celery.accumulate", "[1, [2]]", `{"index": -1}`, "[2]"},
		"AccumulateRange": {"celery.accumulate", "[1]", `{"index": 1}`, "FAILURE IndexError('tuple index out of range')"},
		"Chain":           {"celery.chain", "[]", "{}", "FAILURE NotImplementedError('chain is not a real task')"},
		"BackendCleanup":  {"celery.backend_cleanup", "[]", "{}", "null"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			equal(t, "result", result(setup(t), c.task, c.args, c.kwargs), c.want)
		})
	}
	sent := func(t *testing.T, w *world) (lines []string) {
		for w.waiting("celery") > 0 {
			d := w.claim()
			r := w.receive(d)
			lines = append(lines, r.Task+" "+string(r.Args)+string(r.Kwargs))
			if err := w.cons.Settle(w.ctx(), broker.Settlement{Delivery: d, Action: broker.Ack}); err != nil {
				t.Fatal(err)
			}
		}
		return lines
	}
	t.Run("Chunks", func(t *testing.T) {
		t.Parallel()
		w := setup(t)
		result(w, "celery.chunks", "[]", `{"task": `+pyTask("t.add")+`, "it": [[1, 2], [3, 4], [5, 6]], "n": 2}`)
		equalLines(t, sent(t, w), []string{
			`celery.starmap []{"task": ` + pyTask("t.add") + `, "it": [[1, 2], [3, 4]]}`,
			`celery.starmap []{"task": ` + pyTask("t.add") + `, "it": [[5, 6]]}`})
	})
	t.Run("Group", func(t *testing.T) {
		t.Parallel()
		w := setup(t)
		result(w, "celery.group", "[]", `{"tasks": [`+pyTask("a")+`, `+pyTask("b")+`], "result": [["g", null], []], "group_id": "g", "partial_args": [1]}`)
		equalLines(t, sent(t, w), []string{"a [1]{}", "b [1]{}"})
	})
	t.Run("AreNotListed", func(t *testing.T) {
		t.Parallel()
		w := setup(t)
		equal(t, "names", strings.Join(w.app.TaskNames(), " "), "t.add t.double")
		equal(t, "built-in ones", len(w.app.Builtins()), 9)
	})
	t.Run("AProgramMayHaveItsOwn", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		lovage.Func(w.app, "celery.map", func(context.Context, lovage.Args) (string, error) { return "mine", nil })
		equal(t, "result", result(w, "celery.map", "[]", "{}"), `"mine"`)
	})
}

func TestAFollowUpThatCannotBeMadeFailsTheTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	lovage.Func(w.app, "t.add", add)
	w.fromPython("t.add", "id", "[1]", "{}", `{"callbacks": [`+pyMany("group", "", pyTask("a"), pyTask("b", `"time_limit": 1, "soft_time_limit": 2`))+`]}`)
	out := w.run()
	if out.State != lovage.Failure || !strings.Contains(out.Info.Repr(), "soft time limit") {
		t.Errorf("ended as %+v", out)
	}
	equal(t, "messages", w.waiting("celery"), 0) // not half of the group
	if ids := must[[]string](t)(w.app.Result("id").Children(w.ctx())); len(ids) != 0 {
		t.Errorf("children %v", ids)
	}
	_, err := w.app.Result("id").Get(w.ctx())
	if _, ok := errors.AsType[*lovage.TaskError](err); !ok {
		t.Errorf("got %v", err)
	}
}
