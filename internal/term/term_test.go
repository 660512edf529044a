package term_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage/internal/term"
)

func TestPlainWhereNobodyReads(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	o := term.New(&b, nil, false)
	if o.Terminal() || o.Colour() || o.Width() != 80 || o.Paint("x", term.Red) != "x" {
		t.Errorf("a buffer is taken for a terminal: %+v", o)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if term.New(null, nil, false).Terminal() {
		t.Error("the null device is taken for a terminal")
	}
}

func TestPaint(t *testing.T) {
	t.Parallel()
	o := term.Fixed(new(bytes.Buffer), 80, true)
	if got, want := o.Paint("x", term.Red, term.Bold), "\x1b[31;1mx\x1b[0m"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := o.Paint("x"); got != "x" {
		t.Errorf("got %q, want x: there is no style", got)
	}
}

func TestProgressInPlainLines(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	p := term.New(&b, nil, false).Progress("files", 40)
	for i := range 41 {
		p.Set(i, "")
	}
	p.Say("a word")
	p.End()
	p.Set(3, "late")
	p.End()
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 11 || lines[0] != "files 4/40 (10%)" || lines[9] != "a word" || lines[10] != "files 40/40 (100%)" {
		t.Errorf("got %q, want a line for each tenth, the word, and the end", lines)
	}
}

func TestProgressNeverWraps(t *testing.T) {
	t.Parallel()
	colours := regexp.MustCompile(`\x1b\[[0-9;]*[mK]`)
	for _, width := range []int{5, 20, 40, 80, 200} {
		synctest.Test(t, func(t *testing.T) {
			var b bytes.Buffer
			p := term.Fixed(&b, width, true).Progress("counting files", 3)
			for i := range 4 {
				time.Sleep(time.Second)
				p.Set(i, "1234 lines/s")
			}
			p.End()
			drawn := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\r")
			for _, d := range drawn {
				if n := len(colours.ReplaceAllString(d, "")); n >= width {
					t.Errorf("width %d: %q has %d columns", width, d, n)
				}
			}
			if width >= 80 && !strings.Contains(drawn[len(drawn)-1], "3/3 100%") {
				t.Errorf("width %d: the last drawing is %q, want 3/3 100%%", width, drawn[len(drawn)-1])
			}
		})
	}
}

func TestProgressIsNotRedrawnForEachStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		p := term.Fixed(&b, 80, false).Progress("files", 100_000)
		for i := range 100_000 {
			p.Set(i, "")
		}
		if n := strings.Count(b.String(), "\r"); n > 2 {
			t.Errorf("drawn %d times in no time, want 2 at most", n)
		}
	})
}

func TestNothingToDo(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	p := term.New(&b, nil, false).Progress("files", 0)
	p.Set(5, "")
	p.End()
	if got, want := b.String(), "files 0/0 (100%)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
