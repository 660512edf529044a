package embedded_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/embedded"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		app  string
		env  func(string) string
		want string
	}{
		"DataHome":         {"proj", env("XDG_DATA_HOME", "/data", "HOME", "/home/u"), "/data/lovage/proj.db"},
		"RelativeDataHome": {"proj", env("XDG_DATA_HOME", "data", "HOME", "/home/u"), "/home/u/.local/share/lovage/proj.db"},
		"Home":             {"proj", env("HOME", "/home/u"), "/home/u/.local/share/lovage/proj.db"},
		"Given":            {"proj", env("LOVAGE_EMBEDDED", "/x/y.db", "HOME", "/home/u"), "/x/y.db"},
		"NoTraversal":      {"../../etc/passwd", env("HOME", "/h"), "/h/.local/share/lovage/.._.._etc_passwd.db"},
		"NoName":           {"..", env("HOME", "/h"), "/h/.local/share/lovage/app.db"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := embedded.Path(c.app, c.env)
			if err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
	t.Run("RelativeGivenIsAbsolute", func(t *testing.T) {
		t.Parallel()
		if got, err := embedded.Path("proj", env("LOVAGE_EMBEDDED", "y.db")); err != nil || !filepath.IsAbs(got) {
			t.Errorf("got %q, %v; want an absolute path", got, err)
		}
	})
	for name, e := range map[string]func(string) string{"NoHome": env(), "Directory": env("LOVAGE_EMBEDDED", dir)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := embedded.Path("proj", e); err == nil || !strings.Contains(err.Error(), "LOVAGE_EMBEDDED") {
				t.Errorf("got %q, %v; want an error that names LOVAGE_EMBEDDED", got, err)
			}
		})
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/a/b.db": "sqlite:///a/b.db", "/a dir/50%?.db": "sqlite:///a%20dir/50%25%3F.db", "b.db": "sqlite:b.db",
	} {
		if got := embedded.URL(path); got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
}

// TestAppWithoutURLs uses the process's environment, so it does not run beside
// others.
func TestAppWithoutURLs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new dir", "50% of it?.db")
	t.Setenv("LOVAGE_EMBEDDED", path)
	ctx := t.Context()
	var log bytes.Buffer
	for range 2 {
		app := lovage.New("proj", lovage.Config{}, lovage.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		res, err := app.Send(ctx, "proj.add", lovage.Args{Positional: []any{1, 2}})
		if err != nil {
			t.Fatal(err)
		}
		if state, err := res.State(ctx); err != nil || state != lovage.Pending {
			t.Errorf("got state %s, %v; want PENDING from a result store", state, err)
		}
		if err := app.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got directory mode %v, %v; want 0700", info.Mode(), err)
	}
	if got := strings.Count(log.String(), "broker_url is not set"); got != 1 || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("the path was logged %d times, want once, as a warning: %s", got, log.String())
	}
}
