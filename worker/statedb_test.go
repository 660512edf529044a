package worker_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// TestStateDB: what was revoked, and the clock, are there after a restart. There
// is no result store and no other worker that would know.
func TestStateDB(t *testing.T) {
	t.Parallel()
	var quick, nap *lovage.Handle[lovage.Args, any]
	var ran []string
	on := func(path string) setup {
		return setup{nowhere: true, cfg: worker.Config{Hostname: "w1@box", StateDB: path, WithoutMingle: true}, tasks: quickAndNap(&quick, &nap, &ran)}
	}
	t.Run("OverARestart", func(t *testing.T) {
		dir := t.TempDir()
		in(t, on(dir+"/%n.state"), func(x *world) {
			replies, err := x.app.Control().Revoke(context.Background(), []string{"a", "b"}, one)
			want(x, ask(x, replies, err), "tasks {'a', 'b'} flagged as revoked")
			if text, err := os.ReadFile(dir + "/w1.state"); err != nil || !strings.Contains(string(text), `"a":`) {
				t.Errorf("when the reply is there: got %s, %v; want the file to have a, should the worker be killed now", text, err)
			}
			replies, err = x.app.Control().RevokeStamped(context.Background(), map[string]any{"order": "o1"}, false, one)
			ask(x, replies, err)
			x.app.Clock().Adjust(7000)
		})
		ran = nil
		in(t, on(dir+"/w1.state"), func(x *world) {
			if got := x.app.Clock().Value(); got < 7000 {
				t.Errorf("clock: got %d, want it past 7000", got)
			}
			for _, id := range []string{"a", "b", "c"} {
				delay(x, quick, lovage.Args{}, lovage.TaskID(id))
			}
			stamped(x, `{"lang": "py", "task": "quick", "id": "d", "root_id": "d", "stamps": {"order": ["o1"]}}`)
			pause(time.Second)
			if len(ran) != 1 || ran[0] != "c" || x.w.Stats().Revoked != 3 {
				t.Errorf("ran %q, %d revoked; want c, and a, b and d revoked", ran, x.w.Stats().Revoked)
			}
			pause(3 * time.Hour)
		})
		ran = nil
		in(t, on(dir+"/w1.state"), func(x *world) { // whose time begins before theirs
			pause(3*time.Hour + time.Minute)
			delay(x, quick, lovage.Args{}, lovage.TaskID("a"))
			pause(time.Second)
			if len(ran) != 1 {
				t.Errorf("ran %q, want a: its revoke is forgotten", ran)
			}
		})
		if list, _ := filepath.Glob(dir + "/*"); len(list) != 1 {
			t.Errorf("files: got %q, want one", list)
		}
	})
	for name, text := range map[string]string{"Rubbish": "{\"version\":1,\"revoked\":{\"a\":", "OfAnotherVersion": `{"version":99}`, "Empty": ""} {
		t.Run(name+"IsSetAside", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			in(t, on(path), func(x *world) {
				x.wantLog(1, "The state file is set aside")
				if got, err := os.ReadFile(path + ".corrupt"); err != nil || string(got) != text {
					t.Errorf("aside: got %q, %v; want %q", got, err, text)
				}
				replies, err := x.app.Control().Revoke(context.Background(), []string{"a"}, one)
				ask(x, replies, err)
				if got, err := os.ReadFile(path); err != nil || !strings.Contains(string(got), `"a":`) {
					t.Errorf("the new file: got %q, %v", got, err)
				}
			})
		})
	}
	t.Run("CelerysIsSetAside", func(t *testing.T) {
		dir := t.TempDir()
		testenv.Python(t, t.Context(), nil, `
import sys
from celery.worker import state
class S: revoked = state.revoked
S.revoked.add("a")
state.Persistent(S, sys.argv[1]).save()
`, dir+"/state")
		files, _ := filepath.Glob(dir + "/*")
		in(t, on(files[0]), func(x *world) { x.wantLog(1, "a Python shelf, cannot be read") })
	})
	t.Run("WhereNothingCanBeWrittenIsAnError", func(t *testing.T) {
		fails(t, on(t.TempDir()+"/nowhere/state"), "worker_state_db: open ")
	})
}

// TestRevokesSettings: the bounds are settings, and Celery's environment
// variables.
func TestRevokesSettings(t *testing.T) {
	t.Parallel()
	var quick, nap *lovage.Handle[lovage.Args, any]
	var ran []string
	var conf lovage.Config
	if warnings, err := conf.LoadEnv([]string{"CELERY_WORKER_REVOKES_MAX=3", "CELERY_WORKER_REVOKE_EXPIRES=60"}); err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	in(t, setup{conf: conf, nowhere: true, tasks: quickAndNap(&quick, &nap, &ran)}, func(x *world) {
		x.w.Revoke(false, "a", "b", "c", "d")
		for _, id := range []string{"a", "b"} {
			delay(x, quick, lovage.Args{}, lovage.TaskID(id))
		}
		pause(time.Minute)
		delay(x, quick, lovage.Args{}, lovage.TaskID("c"))
		pause(time.Second)
		if strings.Join(ran, " ") != "a c" {
			t.Errorf("ran %q, want a, which made room, and c, which is forgotten", ran)
		}
	})
}
