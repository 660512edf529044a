package redisconn_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/lovage-go/lovage/internal/transport"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url            string
		addrs          []string
		db             int
		user, password string
		tls            bool
	}{
		{"redis://", []string{"localhost:6379"}, 0, "", "", false},
		{"redis://h/", []string{"h:6379"}, 0, "", "", false},
		{"redis://h//", []string{"h:6379"}, 0, "", "", false},
		{"redis://h:1/7", []string{"h:1"}, 7, "", "", false},
		{"redis://:p%40ss@h", []string{"h:6379"}, 0, "", "p@ss", false},
		{"redis://u:p@[::1]:5/2", []string{"[::1]:5"}, 2, "u", "p", false},
		{"redis://h?virtual_host=4", []string{"h:6379"}, 4, "", "", false},
		{"rediss://h/1?ssl_cert_reqs=CERT_REQUIRED", []string{"h:6379"}, 1, "", "", true},
		{"redis+socket:///run/redis.sock?virtual_host=3", []string{"/run/redis.sock"}, 3, "", "", false},
		{"socket:///run/redis.sock", []string{"/run/redis.sock"}, 0, "", "", false},
		{"rediscluster://u:p@a:1;b:2;rediscluster://c", []string{"a:1", "b:2", "c:6379"}, 0, "u", "p", false},
		{"redis+cluster://a/0", []string{"a:6379"}, 0, "", "", false},
		{"rediss+cluster://a;b", []string{"a:6379", "b:6379"}, 0, "", "", true},
		{"sentinel://:p@a:1/5;sentinel://b", []string{"a:1", "b:26379"}, 5, "", "p", false},
	} {
		t.Run(c.url, func(t *testing.T) {
			t.Parallel()
			opt, id, err := redisconn.ParseURL(c.url, transport.Read(map[string]any{"master_name": "main"}))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(opt.InitAddress, c.addrs) || opt.SelectDB != c.db || opt.Username != c.user || opt.Password != c.password || (opt.TLSConfig != nil) != c.tls {
				t.Errorf("got addresses %v, db %d, user %q, password %q, TLS %v", opt.InitAddress, opt.SelectDB, opt.Username, opt.Password, opt.TLSConfig != nil)
			}
			if c.password != "" && strings.Contains(id, c.password) {
				t.Errorf("the id %q has the password", id)
			}
			if (opt.Sentinel.MasterSet == "main") != strings.HasPrefix(c.url, "sentinel:") {
				t.Errorf("got master set %q", opt.Sentinel.MasterSet)
			}
		})
	}
}

func TestParseURLRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ url, says string }{
		{"redis://h/db1", "number of a database"},
		{"redis://u:geheim@h:x", "invalid port"},
		{"redis://a;redis://b", "sentinel://"},
		{"http://h", "none of Redis"},
		{"rediscluster://h/3", "only database 0"},
		{"sentinel://h", "master_name"},
		{"rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"},
		{"rediss://h?ssl_ca_certs=/nowhere.pem", "ssl_ca_certs"},
	} {
		t.Run(c.url, func(t *testing.T) {
			t.Parallel()
			_, _, err := redisconn.ParseURL(c.url, nil)
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "geheim") {
				t.Errorf("got %v, want an error that says %q and no password", err, c.says)
			}
		})
	}
}

// What a URL does not say the settings of Celery's Redis backend say.
func TestOptionsFillTheURL(t *testing.T) {
	t.Parallel()
	o := map[string]any{"host": "h", "port": 7, "db": "3", "username": "u", "password": "p", "ssl": map[string]any{"ssl_cert_reqs": 0}}
	for url, want := range map[string]string{"redis://": "h:7 3 u p true", "redis://i:8/0": "i:8 0 u p true", "redis://v:w@/1": "h:7 1 v w true"} {
		opt, _, err := redisconn.ParseURL(url, transport.Read(o))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s %d %s %s %t", opt.InitAddress[0], opt.SelectDB, opt.Username, opt.Password, opt.TLSConfig != nil); got != want {
			t.Errorf("%s gives %s, want %s", url, got, want)
		}
	}
	for says, o := range map[string]map[string]any{
		"transport option port: want a whole number, got a value of type string": {"port": "x"},
		`there is no TLS option "ciphers" here`:                                  {"ssl": map[string]any{"ciphers": "x"}},
		"use true, or a map":                                                     {"ssl": 3},
	} {
		if _, _, err := redisconn.ParseURL("redis://", transport.Read(o)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: got %v, want an error that says %q", o, err, says)
		}
	}
}

func TestMarkedStates(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"status": "SUCCESS", "result": 1}`: "SUCCESS", `{"status":"FAILURE"}`: "FAILURE",
		`{"result": {"status": "SUCCESS"}}`: "", `"status"`: "", ``: "", `{"status": 1}`: "", `{"status": "SUC`: "",
	} {
		if got := redisconn.StateOf([]byte(text)); string(got) != want {
			t.Errorf("StateOf(%s) = %q, want %q", text, got, want)
		}
	}
}
