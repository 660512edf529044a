package lovage_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/proc"
)

var update = flag.Bool("update", false, "rewrite golden files")

func table(t *testing.T) map[string]lovage.Setting {
	t.Helper()
	rows := map[string]lovage.Setting{}
	for _, row := range (lovage.Config{}).Table(true) {
		if _, twice := rows[row.Name]; twice {
			t.Errorf("setting %s has two rows", row.Name)
		}
		rows[row.Name] = row
	}
	return rows
}

func TestSettingsHaveCelerysNamesTypesAndDefaults(t *testing.T) {
	t.Parallel()
	rows := table(t)
	f, err := os.Open("testdata/celery_settings.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		n++
		name, rest, _ := strings.Cut(lines.Text(), "\t")
		typ, def, _ := strings.Cut(rest, "\t")
		row, ok := rows[name]
		if !ok {
			t.Errorf("Celery's setting %s has no row", name)
			continue
		}
		delete(rows, name)
		if row.Type != typ {
			t.Errorf("%s has type %q, want Celery's %q", name, row.Type, typ)
		}
		got := row.Default
		if row.Celery != "" {
			got = row.Celery
			if row.Why == "" || row.Celery == row.Default {
				t.Errorf("%s: our default is %q, Celery's %q; want them to differ for a reason that the row gives", name, row.Default, row.Celery)
			}
		}
		if got != def {
			t.Errorf("%s has Celery's default as %q, want %q", name, got, def)
		}
		if row.Ours {
			t.Errorf("%s is Celery's, but its row says ours", name)
		}
	}
	if n != 198 {
		t.Errorf("compared %d settings, want Celery's 198", n)
	}
	for name, row := range rows { // what Celery does not declare
		if row.Ours && (row.Celery == "" || row.Why == "") {
			t.Errorf("%s is ours: want the value that makes Celery's behaviour, and the reason", name)
		}
	}
}

func TestEverySettingIsDescribed(t *testing.T) {
	t.Parallel()
	old := map[string]string{}
	for name, row := range table(t) {
		if row.Doc == "" || strings.HasSuffix(row.Doc, ".") {
			t.Errorf("%s: doc %q, want one line without a full stop", name, row.Doc)
		}
		fates := 0
		for _, fate := range []string{row.Since, row.Refused, row.Planned} {
			if fate != "" {
				fates++
			}
		}
		if fates != 1 {
			t.Errorf("%s is honoured since %q, refused because %q, planned for %q: want one of them", name, row.Since, row.Refused, row.Planned)
		}
		if (row.Field != "") != (row.Since != "") {
			t.Errorf("%s has field %q and is honoured since %q: want both or neither", name, row.Field, row.Since)
		}
		if row.Old != "" {
			if other := old[row.Old]; other != "" {
				t.Errorf("%s is the old name of both %s and %s", row.Old, name, other)
			}
			old[row.Old] = name
		}
	}
}

func TestEveryFieldHasOneRow(t *testing.T) {
	t.Parallel()
	owner := map[string]string{}
	for name, row := range table(t) {
		if row.Field == "" {
			continue
		}
		if other := owner[row.Field]; other != "" {
			t.Errorf("field %s belongs to both %s and %s", row.Field, name, other)
		}
		owner[row.Field] = name
	}
	typ := reflect.TypeFor[lovage.Config]()
	for f := range typ.Fields() {
		if !f.IsExported() {
			continue
		}
		if owner[f.Name] == "" {
			t.Errorf("field %s has no row", f.Name)
		}
		delete(owner, f.Name)
	}
	for field, name := range owner {
		t.Errorf("%s names the field %s, which Config has not", name, field)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	rows := table(t)
	for name, want := range map[string]any{
		"task_acks_late": true, "result_expires": 24 * time.Hour, "broker_publish_timeout": 5 * time.Second,
		"accept_content": []string{"json"}, "task_time_limit": time.Duration(lovage.NoLimit),
		"task_default_queue": "celery", "worker_prefetch_multiplier": 4, "task_max_worker_losses": 3,
		"task_publish_retry_policy": lovage.RetryPolicy{MaxRetries: 3, IntervalStep: 200 * time.Millisecond, IntervalMax: time.Second},
	} {
		if got := rows[name]; !reflect.DeepEqual(got.Value, want) || got.Source != "default" {
			t.Errorf("%s is %#v from %q, want %#v from default", name, got.Value, got.Source, want)
		}
	}
	celery := lovage.CeleryDefaults()
	for name, got := range map[string]*bool{"TaskAcksLate": celery.TaskAcksLate, "TaskRejectOnWorkerLost": celery.TaskRejectOnWorkerLost} {
		if got == nil || *got {
			t.Errorf("CeleryDefaults().%s = %v, want false", name, got)
		}
	}
	if got := celery.BrokerPublishTimeout; got != lovage.NoLimit {
		t.Errorf("CeleryDefaults().BrokerPublishTimeout = %v, want NoLimit", got)
	}
	for _, row := range celery.Table(false) {
		if row.Celery == "" {
			t.Errorf("CeleryDefaults sets %s, whose default is Celery's already", row.Name)
		}
	}
}

func TestSourcesConvert(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		value any
		want  any
	}{
		{"task_acks_late", "no", false}, {"task_acks_late", 1, true}, {"task_acks_late", "True", true},
		{"result_expires", 90, 90 * time.Second}, {"result_expires", "1h30m", 90 * time.Minute},
		{"result_expires", 0.5, 500 * time.Millisecond}, {"result_expires", json.Number("60"), time.Minute},
		{"result_expires", nil, time.Duration(lovage.NoLimit)}, {"result_expires", 0, time.Duration(lovage.NoLimit)},
		{"result_expires", "none", time.Duration(lovage.NoLimit)},
		{"worker_concurrency", "8", 8}, {"worker_concurrency", uint64(8), 8}, {"worker_concurrency", 8.0, 8},
		{"worker_prefetch_multiplier", 0, lovage.NoLimit},
		{"accept_content", "json, yaml", []string{"json", "yaml"}}, {"accept_content", []any{"json"}, []string{"json"}},
		{"broker_transport_options", `{"visibility_timeout": 60}`, map[string]any{"visibility_timeout": 60}},
		{"broker_transport_options", map[any]any{"a": uint64(1)}, map[string]any{"a": 1}},
		{"broker_url", []any{"redis://a", "redis://b"}, "redis://a;redis://b"},
		{"broker_use_ssl", "yes", true}, {"broker_use_ssl", true, true},
		{"broker_use_ssl", `{"ca_certs": "/ca.pem", "cert_reqs": 2, "keyfile": "/key.pem"}`, map[string]any{"ca_certs": "/ca.pem", "cert_reqs": 2, "keyfile": "********"}},
		{"broker_heartbeat", 0, time.Duration(lovage.NoLimit)}, {"redis_port", "6380", 6380}, {"control_queue_ttl", nil, time.Duration(lovage.NoLimit)},
		{"task_default_delivery_mode", "1", 1}, {"task_default_priority", 0, 0},
		{"CELERY_ACKS_LATE", false, false}, {"CELERYD_CONCURRENCY", 3, 3}, {"BROKER_URL", "memory://", "memory://"},
		{"CELERY_TASK_SERIALIZER", "yaml", "yaml"}, {"TASK_SERIALIZER", "yaml", "yaml"},
		{"task_queues", "a, b", []broker.Queue{broker.Named("a"), broker.Named("b")}},
		{"task_queues", map[string]any{"x": nil, "y": map[string]any{"exchange": "ex", "exchange_type": "topic", "binding_key": "y.#", "queue_arguments": map[string]any{"x-queue-type": "quorum"}}},
			[]broker.Queue{broker.Named("x"), {Name: "y", Exchange: broker.Exchange{Name: "ex", Type: "topic"}, RoutingKey: "y.#", Type: "quorum", Arguments: map[string]any{"x-queue-type": "quorum"}}}},
		{"task_routes", map[string]any{"proj.*": "slow", "proj.images.*": "images", "proj.add": map[string]any{"queue": "fast", "priority": 3, "serializer": "yaml"}},
			[]lovage.Route{{Pattern: "proj.add", Queue: "fast", Priority: new(3), Options: map[string]any{"serializer": "yaml"}}, {Pattern: "proj.images.*", Queue: "images"}, {Pattern: "proj.*", Queue: "slow"}}},
		{"task_routes", `[["b.*", "q1"], {"a": "q2"}]`, []lovage.Route{{Pattern: "b.*", Queue: "q1"}, {Pattern: "a", Queue: "q2"}}},
		{"task_annotations", []any{map[string]any{"a": map[string]any{"x": 1}}, map[string]any{"a": map[string]any{"x": 2, "y": 3}}},
			map[string]any{"a": map[string]any{"x": 1, "y": 3}}},
		{"task_publish_retry_policy", map[string]any{"max_retries": nil, "interval_max": 2.5},
			lovage.RetryPolicy{MaxRetries: lovage.NoLimit, IntervalStep: 200 * time.Millisecond, IntervalMax: 2500 * time.Millisecond}},
	} {
		t.Run(fmt.Sprintf("%s=%v", c.name, c.value), func(t *testing.T) {
			t.Parallel()
			var cfg lovage.Config
			if _, err := cfg.Apply(map[string]any{c.name: c.value}); err != nil {
				t.Fatal(err)
			}
			set := cfg.Table(false)
			if len(set) != 1 || !reflect.DeepEqual(set[0].Value, c.want) || set[0].Source != "code" {
				t.Errorf("got %#v, want one setting with %#v", set, c.want)
			}
		})
	}
}

func TestWrongValuesAreErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"task_acks_late", "maybe", `code: setting task_acks_late: got "maybe", want true or false`},
		{"worker_concurrency", 2.5, "got the number 2.5, want a whole number"},
		{"worker_concurrency", -2, "got -2, want at least 0"},
		{"result_expires", "soon", `got "soon", want seconds as a number, or a duration such as "1h30m"`},
		{"result_expires", 1e30, "want seconds"}, {"result_expires", -5, "want at least 0, or none for no limit"},
		{"task_max_worker_losses", 0, "got 0, want at least 1, or none for no limit"},
		{"worker_pool", "prefrok", `got "prefrok", want one of goroutine, prefork, solo, threads, gevent, eventlet, processes; did you mean prefork?`},
		{"task_protocol", 3, `got "3", want one of 1, 2`},
		{"accept_content", map[string]any{}, "got a map, want a list of texts"},
		{"broker_transport_options", "a=1", "got a text, want a map, as a JSON object"},
		{"broker_use_ssl", "maybe", "want true, false, or a map of keyfile"},
		{"redis_password", map[string]any{"x": "hunter2"}, "got a map, want a text"},
		{"task_default_queue_type", "quorom", `got "quorom", want one of classic, quorum; did you mean quorum?`},
		{"task_queues", []any{map[string]any{"nmae": "x"}}, `queue 1: there is no option "nmae"`},
		{"task_queues", []any{map[string]any{"name": "x", "max_priority": -1}}, "max_priority: got the number -1, want a number that is not negative"},
		{"task_routes", []any{"proj.routers.Router"}, "give the app a function (lovage.WithRouter)"},
		{"task_routes", map[string]any{"a": 3}, `route of "a"`},
		{"task_publish_retry_policy", map[string]any{"tries": 3}, `there is no option "tries"`},
	} {
		t.Run(fmt.Sprintf("%s=%v", c.name, c.value), func(t *testing.T) {
			t.Parallel()
			cfg := lovage.Config{TaskDefaultQueue: "mine"}
			_, err := cfg.Apply(map[string]any{c.name: c.value, "task_default_queue": "other"})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
			if cfg.TaskDefaultQueue != "mine" {
				t.Error("a refused configuration was applied in part")
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, want string }{
		{"task_ack_late", "code: setting task_ack_late: there is no such setting; did you mean task_acks_late?"},
		{"zzzzzz", "there is no such setting"},
		{"imports", "it has no effect here: Go links packages"},
		{"beat_scheduler", "it has no effect in this version, which lacks what it is for: beat"},
		{"CELERY_ACKS_LATE", "CELERY_ACKS_LATE is its old name; rename it to task_acks_late"},
		{"task_acks_on_failure_or_timeout", "deprecated: use task_acks_on_failure and task_acks_on_timeout"},
		{"task_acks_late", ""}, {"CELERY_TASK_ACKS_LATE", ""}, {"worker_pool_putlocks", ""},
	} {
		var cfg lovage.Config
		ws, err := cfg.Apply(map[string]any{c.name: "true"})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(ws) == 0 && c.want == "" {
			continue
		}
		if len(ws) != 1 || c.want == "" || !strings.Contains(ws[0].String(), c.want) {
			t.Errorf("%s: got warnings %v, want %q", c.name, ws, c.want)
		}
	}
}

// A file that writes defaults out is a Celery user's too.
func TestADefaultThatHasNoEffectIsNotWarnedOf(t *testing.T) {
	t.Parallel()
	for name, row := range table(t) {
		if row.Since != "" {
			continue
		}
		var cfg lovage.Config
		if ws, err := cfg.Apply(map[string]any{name: row.Default}); err != nil || len(ws) > 0 {
			t.Errorf("%s=%s: %v, %v", name, row.Default, ws, err)
		}
	}
	var cfg lovage.Config
	if ws, err := cfg.Apply(map[string]any{"imports": []any{}, "broker_pool_limit": 10, "worker_lost_wait": 10, "beat_schedule": map[string]any{}, "worker_timer": nil}); err != nil || len(ws) > 0 {
		t.Error(ws, err)
	}
}

func TestOldAndNewNameTogetherAreAnError(t *testing.T) {
	t.Parallel()
	var cfg lovage.Config
	_, err := cfg.Apply(map[string]any{"CELERY_ACKS_LATE": true, "task_acks_late": true})
	want := "code: CELERY_ACKS_LATE and task_acks_late are the same setting: keep task_acks_late and delete the other"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestFilesAndPrecedence(t *testing.T) {
	t.Parallel()
	for ext, text := range map[string]string{
		".yaml": "task_default_queue: file\nresult_expires: 60\nbroker_url: memory://file\ntask_routes:\n  - [\"a.*\", {queue: q, priority: 2}]\n",
		".json": `{"task_default_queue": "file", "result_expires": 60, "broker_url": "memory://file", "task_routes": [["a.*", {"queue": "q", "priority": 2}]]}`,
		".toml": "task_default_queue = \"file\"\nresult_expires = 60\nbroker_url = \"memory://file\"\ntask_routes = [[\"a.*\", {queue = \"q\", priority = 2}]]\n",
	} {
		t.Run(ext, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "lovage"+ext)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := lovage.Config{TaskDefaultQueue: "literal", TaskSerializer: "yaml", BrokerURL: "memory://literal"}
			copied := cfg
			if ws, err := cfg.LoadFile(path); err != nil || len(ws) > 0 {
				t.Fatal(ws, err)
			}
			env := []string{
				"CELERY_BROKER_URL=memory://celery", "LOVAGE_BROKER_URL=memory://env", "LOVAGE_RESULT_BACKEND=",
				`CELERY_BROKER_TRANSPORT_OPTIONS={"visibility_timeout": 60, "sentinel_kwargs": {"password": "p"}}`,
				"CELERY_CONFIG_MODULE=proj.celeryconfig", "CELERY_WORKER_CONCURENCY=2", "PATH=/bin",
			}
			ws, err := cfg.LoadEnv(env)
			if err != nil || len(ws) != 1 || !strings.Contains(ws[0].String(), "environment: setting CELERY_WORKER_CONCURENCY: there is no such setting; did you mean worker_concurrency?") {
				t.Fatal(ws, err)
			}
			if _, err := cfg.LoadArgs([]string{"worker.concurrency=3"}); err != nil {
				t.Fatal(err)
			}
			got := []string{}
			for _, s := range cfg.Table(false) {
				got = append(got, fmt.Sprint(s.Name, " ", s.Source))
			}
			want := []string{"broker_transport_options environment", "broker_url environment", "result_expires " + path, "task_default_queue " + path, "task_routes " + path, "task_serializer code", "worker_concurrency command line"}
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if kw, _ := cfg.BrokerTransportOptions["sentinel_kwargs"].(map[string]any); kw["password"] != "p" || cfg.BrokerTransportOptions["visibility_timeout"] != 60 {
				t.Errorf("a nested value of the environment: %v", cfg.BrokerTransportOptions)
			}
			if cfg.BrokerURL != "memory://env" || cfg.TaskDefaultQueue != "file" || cfg.ResultExpires != time.Minute || cfg.WorkerConcurrency != 3 {
				t.Errorf("got %+v", cfg)
			}
			if want := []lovage.Route{{Pattern: "a.*", Queue: "q", Priority: new(2)}}; !reflect.DeepEqual(cfg.TaskRoutes, want) {
				t.Errorf("routes %+v, want %+v", cfg.TaskRoutes, want)
			}
			if len(copied.Table(false)) != 3 || copied.TaskDefaultQueue != "literal" {
				t.Errorf("the copy changed with the original: %+v", copied)
			}
		})
	}
}

func TestUnreadableFilesAreErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"a.ini": "x", "a.yaml": "broker_url: [redis://:hunter2@h", "a.json": `{"a": 1} x`, "a.toml": "= 1"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var cfg lovage.Config
		if _, err := cfg.LoadFile(path); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got error %v, want one that names the file and shows nothing of it", name, err)
		}
	}
	var cfg lovage.Config
	if _, err := cfg.LoadFile(filepath.Join(dir, "none.yaml")); err == nil {
		t.Error("a file that does not exist was read")
	}
	ws, err := cfg.LoadArgs([]string{"celeryd_prefetch_multiplier=3", "CELERY_ACKS_LATE=false"})
	if err != nil || len(ws) != 2 || !strings.Contains(ws[1].String(), "celeryd_prefetch_multiplier is its old name; rename it to worker_prefetch_multiplier") ||
		cfg.WorkerPrefetchMultiplier != 3 || *cfg.TaskAcksLate {
		t.Errorf("old names on the command line: got %v, %v", ws, err)
	}
	if _, err := cfg.LoadArgs([]string{"worker_concurrency"}); err == nil {
		t.Error("an argument without = was taken")
	}
}

func TestSecretsAreMasked(t *testing.T) {
	t.Parallel()
	cfg := lovage.Config{
		BrokerURL:              "amqp://u:hunter2@h1;amqp://u:hunter2@h2",
		ResultBackend:          "redis://:hunter2@h/0",
		BrokerTransportOptions: map[string]any{"master_name": "m", "sentinel_kwargs": map[string]any{"password": "hunter2"}, "url": "x://u:hunter2@h"},
	}
	text := fmt.Sprint(cfg.Table(true))
	if strings.Contains(text, "hunter2") {
		t.Errorf("a password is shown: %s", text)
	}
	for _, want := range []string{"amqp://u:********@h1", "amqp://u:********@h2", "master_name:m"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not shown: %s", want, text)
		}
	}
	for name, row := range table(t) {
		named := slices.ContainsFunc([]string{"api", "token", "key", "secret", "pass", "signature", "database"}, func(w string) bool { return strings.Contains(name, w) })
		if named != row.Secret && name != "task_default_routing_key" {
			t.Errorf("%s: secret is %t, want %t", name, row.Secret, named)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	r, err := lovage.Resolve(lovage.Config{TaskDefaultQueue: "q", BrokerURL: "memory://", TaskAcksOnFailureOrTimeout: new(false), TaskAcksOnTimeout: new(true), TaskDefaultPriority: new(0), Timezone: "Europe/Prague"})
	if err != nil {
		t.Fatal(err)
	}
	if r.BrokerReadURL != "memory://" || r.TaskDefaultExchange != "q" || r.TaskDefaultRoutingKey != "q" {
		t.Errorf("URLs and names do not follow: %+v", r)
	}
	if r.TaskAcksOnFailure || !r.TaskAcksOnTimeout || !r.TaskAcksLate || !r.BrokerConnectionRetryOnStartup {
		t.Errorf("booleans do not follow: %+v", r)
	}
	if r.TaskDefaultPriority == nil || *r.TaskDefaultPriority != 0 || r.WorkerConcurrency != proc.CPUs() || !slices.Equal(r.ResultAcceptContent, []string{"json"}) {
		t.Errorf("got %+v", r)
	}
	if r.TaskTimeLimit >= 1 || r.ResultExpires != 24*time.Hour || r.TaskPublishRetryPolicy.MaxRetries != 3 || r.Location.String() != "Europe/Prague" {
		t.Errorf("got %+v", r)
	}
	for want, c := range map[string]lovage.Config{
		"task_protocol (Config.TaskProtocol)":              {TaskProtocol: 3},
		"worker_concurrency":                               {WorkerConcurrency: -1},
		"make the soft limit the shorter one":              {TaskTimeLimit: time.Second, TaskSoftTimeLimit: time.Minute},
		`"Europe/Atlantis" is no time zone known here`:     {Timezone: "Europe/Atlantis"},
		`got "fork", want one of goroutine, prefork, solo`: {WorkerPool: "fork"},
	} {
		if _, err := lovage.Resolve(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
}

// TestSettingsReachTheDrivers: as transport options, which win where they say so.
func TestSettingsReachTheDrivers(t *testing.T) {
	t.Parallel()
	tls := map[string]any{"ca_certs": "/ca.pem"}
	r, err := lovage.Resolve(lovage.Config{
		BrokerUseSSL: tls, RedisBackendUseSSL: map[string]any{}, BrokerHeartbeat: lovage.NoLimit, TaskQueueMaxPriority: 9, EventQueueTTL: time.Minute,
		BrokerTransportOptions: map[string]any{"event_queue_ttl": 7, "visibility_timeout": 60}, RedisSocketConnectTimeout: lovage.NoLimit, RedisPassword: "p",
		ResultBackendTransportOptions: map[string]any{"global_keyprefix": "x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"ssl": tls, "heartbeat": time.Duration(0), "max_priority": 9, "event_queue_ttl": 7, "visibility_timeout": 60,
		"control_queue_ttl": 5 * time.Minute, "delayed_queue_type": "quorum", "login_method": nil,
	} {
		if got := r.BrokerTransportOptions[name]; !reflect.DeepEqual(got, want) {
			t.Errorf("the broker's option %s is %#v, want %#v", name, got, want)
		}
	}
	for name, want := range map[string]any{"ssl": map[string]any{}, "password": "p", "port": nil, "global_keyprefix": "x", "socket_timeout": 10 * time.Second, "socket_connect_timeout": 24 * time.Hour} {
		if got := r.ResultBackendTransportOptions[name]; !reflect.DeepEqual(got, want) {
			t.Errorf("the result store's option %s is %#v, want %#v", name, got, want)
		}
	}
	_, err = lovage.Resolve(lovage.Config{ControlQueueDurable: new(true)})
	if err == nil || !strings.Contains(err.Error(), "control_queue_durable and control_queue_exclusive are both true") {
		t.Errorf("a queue that is durable and exclusive: got %v", err)
	}
}

func TestRetryPolicyInterval(t *testing.T) {
	t.Parallel()
	p := lovage.RetryPolicy{MaxRetries: lovage.NoLimit, IntervalStep: 200 * time.Millisecond, IntervalMax: time.Second}
	for n, want := range map[int]time.Duration{0: 0, 1: 200 * time.Millisecond, 5: time.Second, 6: time.Second, 1 << 62: time.Second} {
		if got := p.Interval(n); got != want {
			t.Errorf("Interval(%d) = %v, want %v", n, got, want)
		}
	}
	if got := (lovage.RetryPolicy{}).Interval(3); got != 0 {
		t.Errorf("Interval of the zero policy = %v, want 0", got)
	}
}

func TestSettingsPage(t *testing.T) {
	t.Parallel()
	page := settingsPage()
	const path = "docs/settings.md"
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page {
		t.Errorf("%s does not match the table of settings; run go test -run TestSettingsPage . -update", path)
	}
}
