package demo_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cmd/lovage/internal/demo"
)

const source = "package p\n\n// err err err\nfunc f() error {\n\terr := g(\"err\")\n\treturn err\n}\n"

func TestCount(t *testing.T) {
	t.Parallel()
	f := demo.Count("p/p.go", []byte(source))
	if f.Lines != 7 || f.Bytes != len(source) || f.Path != "p/p.go" {
		t.Errorf("got %+v", f)
	}
	if want := "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"; demo.Count("x", []byte("x")).SHA256 != want {
		t.Errorf("got %s, want %s", demo.Count("x", []byte("x")).SHA256, want)
	}
	if len(f.Words) == 0 || f.Words[0] != (demo.Word{Name: "err", Count: 2}) {
		t.Errorf("got %v, want err twice at first", f.Words)
	}
}

func TestIdentifiers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		src  string
		want map[string]int
	}{
		"NeitherCommentsNorStrings": {source, map[string]int{"p": 1, "f": 1, "error": 1, "err": 2, "g": 1}},
		"Empty":                     {"", map[string]int{}},
		"NotGo":                     {"\x00 @@ a `b", map[string]int{"a": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := demo.Identifiers([]byte(c.src)); !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestTopOrdersByCountThenName(t *testing.T) {
	t.Parallel()
	got := demo.Top(map[string]int{"b": 2, "a": 2, "c": 3, "d": 1}, 3)
	if want := []demo.Word{{"c", 3}, {"a", 2}, {"b", 2}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := demo.Top(nil, 3); len(got) != 0 {
		t.Errorf("got %v of nothing", got)
	}
}

// TestTaskAndWitnessAgree counts one tree by the tasks' code and by that which
// checks them.
func TestTaskAndWitnessAgree(t *testing.T) {
	t.Parallel()
	dir := tree(t, 7)
	paths, err := demo.List(t.Context(), dir)
	if err != nil || len(paths) != 7 {
		t.Fatalf("got %d paths and %v, want 7", len(paths), err)
	}
	var files []demo.File
	for _, path := range slices.Backward(paths) { // the order of the parts does not matter
		text, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, demo.Count(path, text))
	}
	witness, err := demo.Recount(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	total, _ := demo.Merge(t.Context(), demo.MergeArgs{Files: files})
	if err := demo.Compare(total, witness); err != nil {
		t.Error(err)
	}

	t.Run("OneFileTwiceIsSeen", func(t *testing.T) {
		twice, _ := demo.Merge(t.Context(), demo.MergeArgs{Files: append(slices.Clone(files), files[0])})
		if err := demo.Compare(twice, witness); err == nil || !strings.Contains(err.Error(), "files 8, counted again 7") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("OneFileForAnotherIsSeen", func(t *testing.T) {
		wrong := slices.Clone(files)
		wrong[0].SHA256 = wrong[1].SHA256
		other, _ := demo.Merge(t.Context(), demo.MergeArgs{Files: wrong})
		if err := demo.Compare(other, witness); err == nil || !strings.Contains(err.Error(), "digest") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOnce(t *testing.T) {
	t.Parallel()
	a, b := demo.Counted{File: demo.File{Path: "a"}}, demo.Counted{File: demo.File{Path: "b"}}
	for name, c := range map[string]struct {
		counted []demo.Counted
		want    string
	}{
		"Each":    {[]demo.Counted{b, a}, ""},
		"Twice":   {[]demo.Counted{a, b, a}, "a was counted 2 times"},
		"Missing": {[]demo.Counted{a}, "b was counted 0 times"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := demo.Once([]string{"a", "b"}, c.counted)
			if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestRoman(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"MMXXVI": 2026, "XIV": 14, "MCMXC": 1990, "": 0} {
		if got, err := demo.ParseRoman(text); got != want || err != nil {
			t.Errorf("%q: got %d and %v, want %d", text, got, err, want)
		}
	}
	_, err := demo.ParseRoman("MY")
	if bad, ok := errors.AsType[*demo.NumeralError](err); !ok || bad.Letter != "Y" {
		t.Errorf("got %v, want a NumeralError of Y", err)
	}
}

// TestTasksRunEagerly runs tasks as a unit test of user code would: without
// broker, store and worker.
func TestTasksRunEagerly(t *testing.T) {
	t.Parallel()
	app := lovage.New("eager", lovage.Config{})
	tasks := demo.Declare(app, tree(t, 2), 0)
	for range 2 {
		res, err := tasks.Count.Apply(t.Context(), demo.FileArgs{Path: "d0/f0.go"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := res.Get(t.Context())
		if err != nil || got.Opened != 1 || got.Lines == 0 {
			t.Errorf("got %+v and %v, want lines, and the directory opened once", got, err)
		}
	}
	res, err := tasks.Count.Apply(t.Context(), demo.FileArgs{Path: "../outside.go"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := res.Get(t.Context()); err == nil {
		t.Error("a path that leads out of the directory was counted")
	}
	if err := app.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNumbersForPeople(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ got, want string }{
		{demo.Number(0), "0"}, {demo.Number(999), "999"}, {demo.Number(1000), "1,000"}, {demo.Number(1234567), "1,234,567"},
		{demo.Rate(5, 0), "-"}, {demo.Rate(10, 4*time.Second), "3"}, {demo.Rate(123456, 10*time.Second), "12,300"},
		{demo.Span(1499 * time.Microsecond), "1 ms"}, {demo.Span(1500 * time.Millisecond), "1.5 s"},
		{demo.Size(512), "0.5 KiB"}, {demo.Size(3 << 20), "3.0 MiB"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

// tree is a directory of n Go files, and some that are none.
func tree(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		write(t, filepath.Join(dir, fmt.Sprintf("d%d", i%3), fmt.Sprintf("f%d.go", i)),
			strings.Repeat(fmt.Sprintf("package p%d\n\nvar x, err = y, y\n", i), i+1))
	}
	write(t, filepath.Join(dir, "README.md"), "not counted\n")
	if err := os.Symlink("README.md", filepath.Join(dir, "link.go")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}
