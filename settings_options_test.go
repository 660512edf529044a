package lovage_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
)

// told is what an App says of its configuration at its first use.
func told(t *testing.T, c lovage.Config, change func(*lovage.Config) ([]lovage.Warning, error)) string {
	t.Helper()
	var log bytes.Buffer
	app := lovage.New("options", c, lovage.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	if change != nil {
		if err := app.Configure(change); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := app.Freeze(); err != nil {
			t.Fatal(err)
		}
	}
	return log.String()
}

// TestOptionsWithoutEffectAreTold: a transport option that the driver does not
// heed is told of, once, by the name that was meant or with the reason.
func TestOptionsWithoutEffectAreTold(t *testing.T) {
	t.Parallel()
	type options = map[string]any
	for name, c := range map[string]struct {
		url, results       string
		options, ofResults options
		says               []string // each in a line of its own
	}{
		"Misspelt": {url: "redis://h", options: options{"visibilty_timeout": 5}, says: []string{
			`code: setting broker_transport_options: there is no option \"visibilty_timeout\"; did you mean visibility_timeout? Those of redis: client_name, db, `}},
		"NothingLikeIt":  {url: "sqlite:x.db", options: options{"zz": 1}, says: []string{`there is no option \"zz\". Those of sqlite: lease, lock_timeout, max_pages, queue_order_strategy, synchronous`}},
		"Kombus":         {url: "amqp://h", options: options{"confirm_publish": false, "max_retries": 3}, says: []string{"confirm_publish has no effect here: every publish is confirmed", "max_retries has no effect here: use broker_connection_max_retries"}},
		"AskingNothing":  {url: "redis://h", options: options{"confirm_publish": "True", "polling_interval": nil, "socket_keepalive": true}},
		"AnotherDrivers": {url: "amqp://h", options: options{"visibility_timeout": 3600}, says: []string{"visibility_timeout has no effect with amqp: it is an option of redis"}},
		"OneOfSeveral":   {url: "amqp://h;redis://h", options: options{"visibility_timeout": 3600, "heartbeat": 3}},
		"Memory":         {url: "memory://", options: options{"visibility_timeout": 3600, "confirm_publish": false, "passiv": 1}, says: []string{`there is no option \"passiv\"; did you mean passive?`}},
		"OwnDriver":      {url: "acme://h", options: options{"anything": 1}},
		"OwnAmongOthers": {url: "redis://h;acme://h", options: options{"anything": 1}},
		"Results":        {url: "redis://h", results: "redis://h", ofResults: options{"visibility_timeout": 3600, "retry_polcy": options{}}, says: []string{"result_backend_transport_options: there is no option", "visibility_timeout has no effect here: it is for messages: set it in broker_transport_options"}},
		"ResultsByReply": {url: "amqp://h", results: "rpc://", ofResults: options{"global_keyprefix": "x"}, says: []string{"global_keyprefix has no effect with rpc: it is an option of redis"}},
		"NoResults":      {url: "amqp://h", ofResults: options{"global_keyprefx": "x"}},
		"InTheURL": {url: "redis://h?visibility_timeout=60&ssl_ca_cert=/x&password=hunter2;amqp://h?heartbeat=3&visibility_timeout=60", results: "redis://h?socket_timeout=3&lease=5", says: []string{
			`broker_url: there is no option \"ssl_ca_cert\"; did you mean ssl_ca_certs?`, "broker_url: password has no effect here: write it before the @", "broker_url: visibility_timeout has no effect with amqp", "result_backend: lease has no effect with redis"}},
		"ValuesAreSecret": {url: "amqp://h", options: options{"passwort": "hunter2"}, says: []string{`\"passwort\"; did you mean password?`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := told(t, lovage.Config{BrokerURL: c.url, ResultBackend: c.results, BrokerTransportOptions: c.options, ResultBackendTransportOptions: c.ofResults}, nil)
			if n := strings.Count(log, "level=WARN"); n != len(c.says) {
				t.Errorf("%d warnings, want %d:\n%s", n, len(c.says), log)
			}
			for _, text := range c.says {
				if !strings.Contains(log, text) {
					t.Errorf("the log lacks %q:\n%s", text, log)
				}
			}
			if strings.Contains(log, "hunter2") {
				t.Errorf("the log shows a value:\n%s", log)
			}
		})
	}
	t.Run("BySource", func(t *testing.T) {
		t.Parallel()
		log := told(t, lovage.Config{BrokerURL: "redis://h"}, func(c *lovage.Config) ([]lovage.Warning, error) {
			return c.LoadEnv([]string{`CELERY_BROKER_TRANSPORT_OPTIONS={"lase": 3}`})
		})
		if want := "environment: setting broker_transport_options: there is no option"; !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	})
}

// TestOptionsAreWhatDriversRead holds the tables against the code of the drivers,
// both ways.
func TestOptionsAreWhatDriversRead(t *testing.T) {
	t.Parallel()
	var ( // by transport.Options, by a table of functions, or by a constant
		read     = regexp.MustCompile(`\.(?:Text|Flag|Seconds|Positive|Whole|Wholes|Sub|Value)\("([a-z_]+)"`)
		entry    = regexp.MustCompile(`(?m)^\t"([a-z_]+)": +func\(c \*Config`)
		constant = regexp.MustCompile(`orderOption = "([a-z_]+)"`)
		own      = regexp.MustCompile(`kind\+"(_[a-z_]+)"`)
	)
	reads := func(patterns ...string) (names []string) {
		for _, pattern := range patterns {
			files, err := filepath.Glob(filepath.FromSlash(pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("%s: %d files, %v", pattern, len(files), err)
			}
			for _, file := range files {
				if strings.HasSuffix(file, "_test.go") {
					continue
				}
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				for _, pattern := range []*regexp.Regexp{read, entry, constant} {
					for _, m := range pattern.FindAllSubmatch(text, -1) {
						names = append(names, string(m[1]))
					}
				}
				for _, m := range own.FindAllSubmatch(text, -1) {
					names = append(names, "event"+string(m[1]), "control"+string(m[1]))
				}
			}
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	const order = "worker/order.go"
	for driver, c := range map[string]struct{ broker, results []string }{
		"redis":  {reads("broker/redisbroker/*.go", "internal/redisconn/*.go", order), reads("backend/redisbackend/*.go", "internal/redisconn/*.go")},
		"amqp":   {reads("broker/amqpbroker/*.go", order), nil},
		"sqlite": {reads("internal/sqlstore/*.go", order), reads("internal/sqlstore/*.go")},
	} {
		var broker, results []string
		for _, r := range lovage.BrokerOptions {
			if slices.Contains(strings.Fields(r.Of), driver) {
				broker = append(broker, r.Name)
			}
		}
		for _, r := range lovage.ResultOptions {
			if slices.Contains(strings.Fields(r.Of), driver) && c.results != nil { // rpc:// reads the broker's
				results = append(results, r.Name)
			}
		}
		slices.Sort(broker)
		slices.Sort(results)
		if !slices.Equal(broker, c.broker) {
			t.Errorf("broker_transport_options of %s: the table has\n%q, the driver reads\n%q", driver, broker, c.broker)
		}
		if !slices.Equal(results, c.results) {
			t.Errorf("result_backend_transport_options of %s: the table has\n%q, the driver reads\n%q", driver, results, c.results)
		}
	}
	for _, r := range slices.Concat(lovage.BrokerOptions, lovage.ResultOptions, lovage.URLParameters) {
		if (r.Of == "") == (r.Refused == "") || (r.Doc == "") != (r.Of == "") {
			t.Errorf("%s is heeded by %q, with the doc %q, and refused because %q: want one of them", r.Name, r.Of, r.Doc, r.Refused)
		}
	}
}
