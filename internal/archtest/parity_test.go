package archtest_test

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	parityRow = regexp.MustCompile(`^\| ([A-Z][0-9]{2}) \|`)
	quoted    = regexp.MustCompile("`([^`]+)`")
	testName  = regexp.MustCompile(`^(Test|Example|Fuzz|Benchmark)\w*`)
	testDecl  = regexp.MustCompile(`(?m)^func ((?:Test|Example|Fuzz|Benchmark)\w*)\(`)
)

// TestParityIsCompleteAndTrue compares docs/parity.md with the list of Celery's
// features, and looks for the tests and files that its rows name.
func TestParityIsCompleteAndTrue(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{}
	page := ""
	walk(t, func(path string, text []byte) {
		if path == "docs/parity.md" {
			page = string(text)
		}
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "broker/brokertest/") || strings.HasPrefix(path, "backend/backendtest/") {
			for _, m := range testDecl.FindAllStringSubmatch(string(text), -1) {
				tests[m[1]] = true
			}
		}
	})
	rows := map[string]bool{}
	for line := range strings.Lines(page) {
		m := parityRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if rows[m[1]] {
			t.Errorf("%s has two rows", m[1])
		}
		rows[m[1]] = true
		if why := judgeParity(line, tests); why != "" {
			t.Errorf("%s: %s", m[1], why)
		}
	}
	f, err := os.Open("testdata/checklist_ids.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for ids := bufio.NewScanner(f); ids.Scan(); n++ {
		if !rows[ids.Text()] {
			t.Errorf("docs/parity.md has no row for %s", ids.Text())
		}
		delete(rows, ids.Text())
	}
	if n != 287 {
		t.Errorf("the list has %d features, want 287", n)
	}
	for id := range rows {
		t.Errorf("docs/parity.md has a row for %s, which is no feature of the list", id)
	}
}

// judgeParity returns what is wrong with a row.
func judgeParity(line string, tests map[string]bool) string {
	cells := strings.Split(strings.ReplaceAll(strings.Trim(strings.TrimSpace(line), "|"), `\|`, "/"), "|")
	if len(cells) != 5 {
		return "want five cells: id, feature, criterion, state, test or reason"
	}
	state, proof := strings.TrimSpace(cells[3]), strings.TrimSpace(cells[4])
	switch {
	case proof == "":
		return "it gives no test and no reason"
	case state == "not yet":
		return ""
	case state != "works" && state != "differs":
		return "state " + state + ", want works, differs or not yet"
	}
	found := 0
	for _, m := range quoted.FindAllStringSubmatch(proof, -1) {
		name := m[1]
		if decl := testName.FindString(name); decl != "" {
			if !tests[decl] {
				return "there is no test " + decl
			}
			found++
		} else if strings.ContainsAny(name, "/.") && !strings.ContainsAny(name, " ():") {
			if _, err := os.Stat(filepath.Join(root, name)); err == nil {
				found++
			}
		}
	}
	if found == 0 {
		return "it says " + state + " and names no test or file that exists, in backquotes"
	}
	return ""
}

func TestParityRowsAreJudged(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{"TestX": true}
	for line, ok := range map[string]bool{
		"| A01 | f | c | not yet | later |":                  true,
		"| A01 | f | c | not yet |  |":                       false,
		"| A01 | f | c | works | `TestX` |":                  true,
		"| A01 | f | c | works | `TestX/Sub`, more |":        true,
		"| A01 | f | c | works | `TestY` |":                  false,
		"| A01 | f | c | works | `TestX` and `TestY` |":      false,
		"| A01 | f | c | works | yes |":                      false,
		"| A01 | f | c | differs | see `docs/settings.md` |": true,
		"| A01 | f | c | differs | see `docs/nowhere.md` |":  false,
		"| A01 | f | c | nearly | `TestX` |":                 false,
		"| A01 | f | c | works |":                            false,
	} {
		if why := judgeParity(line, tests); (why == "") != ok {
			t.Errorf("%s: got %q, want fine %t", line, why, ok)
		}
	}
}
