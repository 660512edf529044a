package control

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Matchers of Request.Matcher.
const (
	Glob = "glob"
	PCRE = "pcre" // as far as Go's regexp package knows it
)

// addressed reports whether a request is for a node: one that it names, else
// one that its pattern matches from the start, else any.
func (r *Request) addressed(node string) (bool, error) {
	switch {
	case len(r.Destination) > 0:
		return slices.Contains(r.Destination, node), nil
	case r.Pattern == "" || r.Matcher == "":
		return true, nil
	}
	var text string
	switch r.Matcher {
	case Glob:
		text = `(?s)\A` + globText(r.Pattern) + `\z`
	case PCRE:
		text = `\A(?:` + r.Pattern + `)`
	default:
		return false, fmt.Errorf("matcher %q is not known: use %s or %s", r.Matcher, Glob, PCRE)
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return false, fmt.Errorf("pattern %q: %w", r.Pattern, err)
	}
	return re.MatchString(node), nil
}

// globText is the regular expression for a pattern of Python's fnmatch.
func globText(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteByte('.')
		case '[':
			end := i + 1
			if end < len(pattern) && pattern[end] == '!' {
				end++
			}
			if end < len(pattern) && pattern[end] == ']' {
				end++
			}
			n := strings.IndexByte(pattern[min(end, len(pattern)):], ']')
			if n < 0 {
				b.WriteString(`\[`)
				continue
			}
			set := pattern[i+1 : end+n]
			i = end + n
			b.WriteByte('[')
			if strings.HasPrefix(set, "!") {
				b.WriteByte('^')
				set = set[1:]
			}
			for _, r := range set {
				if strings.ContainsRune(`\]^[&~`, r) {
					b.WriteByte('\\')
				}
				b.WriteRune(r)
			}
			b.WriteByte(']')
		default:
			j := i + 1
			for j < len(pattern) && !strings.ContainsRune("*?[", rune(pattern[j])) {
				j++
			}
			b.WriteString(regexp.QuoteMeta(pattern[i:j]))
			i = j - 1
		}
	}
	return b.String()
}
