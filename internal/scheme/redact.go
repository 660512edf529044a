package scheme

import (
	"net/url"
	"strings"
)

// Redact masks the password in a broker or backend URL, for logs and errors.
func Redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		if i := strings.LastIndex(raw, "@"); i >= 0 {
			if j := strings.Index(raw, "://"); j >= 0 && j < i {
				return raw[:j+3] + "**" + raw[i:]
			}
		}
		return raw
	}
	if u.User != nil {
		if _, has := u.User.Password(); has {
			name := u.User.Username()
			u.User = nil
			s := u.String()
			return strings.Replace(s, "://", "://"+url.User(name).String()+":**@", 1)
		}
	}
	return raw
}
