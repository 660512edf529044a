package scheme

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// next is where another URL begins in a list. A semicolon alone may be part of
// a password.
var next = regexp.MustCompile(`;\s*[A-Za-z][A-Za-z0-9+.-]*://`)

// together are the schemes whose URLs, next to each other, name one thing.
var together = []string{"sentinel", "rediscluster", "redis+cluster", "rediss+cluster"}

// asked is a password in a query, where none belongs.
var asked = regexp.MustCompile(`\bpassword=[^&;#]*`)

// Split takes a list of URLs with ; between them apart, into those that can be
// used instead of one another. Several sentinels, or nodes of one cluster, stay
// together.
func Split(raw string) []string {
	var out []string
	for _, u := range each(raw) {
		scheme, _, _ := strings.Cut(u, "://")
		if n := len(out); n > 0 && slices.Contains(together, scheme) && strings.HasPrefix(out[n-1], scheme+"://") {
			out[n-1] += ";" + u
			continue
		}
		out = append(out, u)
	}
	return out
}

// each gives all URLs of a list.
func each(raw string) []string {
	var out []string
	for at := next.FindStringIndex(raw); at != nil; at = next.FindStringIndex(raw) {
		out = append(out, strings.TrimSpace(raw[:at[0]]))
		raw = raw[at[0]+1:]
	}
	return append(out, strings.TrimSpace(raw))
}

// Redact masks the passwords in broker or backend URLs, for logs and errors.
func Redact(raw string) string { return Mask(raw, "**") }

// Mask is Redact with other stars.
func Mask(raw, stars string) string {
	if !strings.Contains(raw, "://") {
		return raw
	}
	urls := each(raw)
	for i, u := range urls {
		urls[i] = asked.ReplaceAllLiteralString(mask(u, stars), "password="+stars)
	}
	return strings.Join(urls, ";")
}

func mask(raw, stars string) string {
	u, err := url.Parse(raw)
	if err != nil {
		if i := strings.LastIndex(raw, "@"); i >= 0 {
			if j := strings.Index(raw, "://"); j >= 0 && j < i {
				return raw[:j+3] + stars + raw[i:]
			}
		}
		return raw
	}
	if u.User != nil {
		if _, has := u.User.Password(); has {
			name := u.User.Username()
			u.User = nil
			s := u.String()
			return strings.Replace(s, "://", "://"+url.User(name).String()+":"+stars+"@", 1)
		}
	}
	return raw
}
