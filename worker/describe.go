package worker

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/proc"
)

// Registered describes the tasks, without the framework's own, as Celery does.
func (n remote) Registered() (list []control.TaskType) {
	for name, s := range n.w.strategies {
		if builtinTask(name) {
			continue
		}
		info := map[string]string{
			"acks_late": python(s.set.AcksLate), "ignore_result": python(s.set.IgnoreResult), "send_events": python(s.set.SendEvents),
			"store_errors_even_if_ignored": python(s.set.StoreErrorsEvenIfIgnored), "track_started": python(s.set.TrackStarted),
			"default_retry_delay": seconds(s.set.DefaultRetryDelay), "name": name,
		}
		add := func(name, text string, there bool) {
			if there {
				info[name] = text
			}
		}
		rate, soft, hard := *s.rate.Load(), time.Duration(s.soft.Load()), time.Duration(s.hard.Load())
		add("rate_limit", rate, rate != "")
		add("max_retries", strconv.Itoa(s.set.MaxRetries), s.set.MaxRetries >= 0)
		add("soft_time_limit", seconds(soft), soft > 0)
		add("time_limit", seconds(hard), hard > 0)
		list = append(list, control.TaskType{Name: name, Info: info})
	}
	return list
}

func python(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// Stats has those of Celery's keys that mean something here.
func (n remote) Stats() map[string]any {
	w := n.w
	s := w.Stats()
	total := map[string]int64{}
	for name, count := range s.ByTask {
		if count > 0 && name != "" {
			total[name] = count
		}
	}
	size, _, _ := w.pool.Counts()
	stats := map[string]any{
		"total": total, "pid": proc.PID(), "clock": fmt.Sprint(w.app.Clock().Value()),
		"uptime": int64(time.Since(w.since).Seconds()), "prefetch_count": size + w.window.size(),
		"pool": map[string]any{
			"implementation": "lovage:" + w.cfg.Pool, "max-concurrency": size, "processes": w.processes(),
			"max-tasks-per-child": perChild(w.cfg.MaxTasksPerChild), "put-guarded-by-semaphore": false,
			"stuck":    w.count.stuck.Load(),
			"timeouts": [2]float64{max(w.conf.TaskSoftTimeLimit, 0).Seconds(), max(w.conf.TaskTimeLimit, 0).Seconds()},
		},
		"broker": n.broker(), "rusage": proc.Rusage(),
	}
	if w.scaler != nil {
		stats["autoscaler"] = w.scaler.info()
	}
	return stats
}

// broker is the connection in kombu's words, without its password.
func (n remote) broker() map[string]any {
	w := n.w
	text, _ := w.app.URLs()
	text, alternates, _ := strings.Cut(text, ";")
	info := map[string]any{
		"hostname": nil, "userid": nil, "virtual_host": nil, "port": nil, "insist": false, "ssl": false,
		"transport": text, "connect_timeout": w.conf.BrokerConnectionTimeout.Seconds(), "transport_options": map[string]any{},
		"login_method": nil, "uri_prefix": nil, "heartbeat": 0, "failover_strategy": "round-robin", "alternates": []string{},
	}
	if alternates != "" {
		info["alternates"] = strings.Split(alternates, ";")
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return info
	}
	info["transport"], info["ssl"] = u.Scheme, u.Scheme == "rediss" || u.Scheme == "amqps"
	for key, value := range map[string]string{"hostname": u.Hostname(), "userid": u.User.Username(), "virtual_host": strings.TrimPrefix(u.Path, "/")} {
		if value != "" {
			info[key] = value
		}
	}
	if port, err := strconv.Atoi(u.Port()); err == nil {
		info["port"] = port
	}
	return info
}

// Settings are those that Celery knows by the same names, and ours. Durations
// are in their setting's unit, as in Python.
func (n remote) Settings(all bool) map[string]any {
	conf := n.w.app.Config()
	out := map[string]any{}
	for _, row := range conf.Table(all) {
		if row.Field == "" {
			continue
		}
		switch v := row.Value.(type) {
		case time.Duration:
			unit := time.Second
			if row.Unit == "ms" {
				unit = time.Millisecond
			}
			out[row.Name] = float64(v) / float64(unit)
			if v < 0 {
				out[row.Name] = nil // no limit
			}
		case int:
			out[row.Name] = v
			if v == lovage.NoLimit {
				out[row.Name] = nil
			}
		case lovage.RetryPolicy:
			out[row.Name] = map[string]any{
				"max_retries": v.MaxRetries, "interval_start": v.IntervalStart.Seconds(),
				"interval_step": v.IntervalStep.Seconds(), "interval_max": v.IntervalMax.Seconds(),
			}
		case []broker.Queue:
			names := make([]string, len(v))
			for i := range v {
				names[i] = v[i].Name
			}
			out[row.Name] = names
		default:
			out[row.Name] = v
			if _, err := json.Marshal(v); err != nil {
				out[row.Name] = fmt.Sprint(v)
			}
		}
	}
	return out
}

// Report is the text of the command report.
func (n remote) Report() string { return n.w.app.Report(false) }

// processes are those that run tasks.
func (w *Worker) processes() []int {
	var list []int
	if w.cfg.Pool != poolPrefork {
		list = append(list, proc.PID())
	}
	if w.children != nil {
		list = append(list, w.children.PIDs()...)
	}
	return list
}

func perChild(n int) any {
	if n == 0 {
		return "N/A"
	}
	return n
}
