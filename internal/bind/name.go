package bind

import "unicode"

// snake is a Go name in snake case: UserID is user_id, HTTPServer http_server and
// UserIDs user_ids.
func snake(name string) string {
	rs := []rune(name)
	out := make([]rune, 0, len(rs)+4)
	for i, r := range rs {
		if unicode.IsUpper(r) && i > 0 && rs[i-1] != '_' {
			next := rune(0)
			if i+1 < len(rs) {
				next = rs[i+1]
			}
			if !unicode.IsUpper(rs[i-1]) || unicode.IsLower(next) && !pluralAt(rs, i+1) {
				out = append(out, '_')
			}
		}
		out = append(out, unicode.ToLower(r))
	}
	return string(out)
}

// pluralAt reports whether rs[i] is the s of an acronym's plural, as in IDs.
func pluralAt(rs []rune, i int) bool {
	return rs[i] == 's' && (i+1 == len(rs) || unicode.IsUpper(rs[i+1]))
}

// identifier reports whether Python takes name as a name.
func identifier(name string) bool {
	for i, r := range name {
		if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r)) {
			return false
		}
	}
	return name != ""
}
