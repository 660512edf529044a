package sqlstore

import (
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Config is what a store is opened with.
type Config struct {
	// Path is the database file. It is created when missing, its directory is not.
	Path string
	// Synchronous is "full" (default: a confirmed write survives kill -9 and
	// power loss) or "normal" (it survives kill -9; power loss may take the
	// last moments, the file stays whole).
	Synchronous string
	// Lease is how long a worker's claims outlive its last sign of life. Default 30 s.
	Lease time.Duration
	// LockTimeout bounds the wait for other processes' transactions. Default 10 s.
	LockTimeout time.Duration
	// MaxPages caps the file at that many pages (4 KiB each), at least its
	// present size; 0 leaves it to the disk.
	MaxPages int
	// Logger is where what nobody else can be told is said. Default slog.Default().
	Logger *slog.Logger
	// Private keeps this DB apart from others of the same file in this process,
	// as if it were another process.
	Private bool
	// StepHook, if set, is called before each step of a writing transaction
	// with the step's name. For tests that end the process there.
	StepHook func(step string)
}

// DefaultLease is the lease of a worker that asks for none.
const DefaultLease = 30 * time.Second

const defaultLockTimeout = 10 * time.Second

func (c *Config) fill() error {
	if c.Path == "" {
		return fmt.Errorf("sqlite: the URL names no file: write it like sqlite:///path/to/file.db")
	}
	if strings.HasPrefix(filepath.Base(c.Path), ":memory:") {
		return fmt.Errorf("sqlite %s: an SQLite store in memory cannot be shared: use memory:// instead", c.Path)
	}
	switch c.Synchronous = strings.ToLower(c.Synchronous); c.Synchronous {
	case "":
		c.Synchronous = "full"
	case "full", "normal":
	default:
		return fmt.Errorf("sqlite %s: synchronous=%s is not known: use full or normal", c.Path, c.Synchronous)
	}
	if c.Lease < 0 || c.LockTimeout < 0 || c.MaxPages < 0 {
		return fmt.Errorf("sqlite %s: lease, lock_timeout and max_pages cannot be negative", c.Path)
	}
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	if c.LockTimeout == 0 {
		c.LockTimeout = defaultLockTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	path, err := resolve(c.Path)
	if err != nil {
		return err
	}
	c.Path = path
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("sqlite %s: it is a %s and no file: name a file, such as %s", path, kindOf(info.Mode()), filepath.Join(path, "lovage.db"))
	}
	return nil
}

func kindOf(m os.FileMode) string {
	if m.IsDir() {
		return "directory"
	}
	return "device or pipe"
}

// resolve gives the one absolute name of a file that may not exist yet.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("sqlite %s: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		if os.IsNotExist(err) {
			return "", fmt.Errorf("sqlite %s: directory %s does not exist: create it, or choose another path", path, filepath.Dir(abs))
		}
		return "", fmt.Errorf("sqlite %s: %w", path, err)
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// ParseURL reads sqlite:///abs/path.db, sqlite://rel.db and sqlite:rel.db, with
// the options synchronous, lease, lock_timeout and max_pages in the query or
// under the same names in opts (the query wins). Durations are seconds, or Go's
// form such as 500ms.
func ParseURL(raw string, opts map[string]any) (Config, error) {
	var c Config
	rest, ok := strings.CutPrefix(raw, "sqlite:")
	if !ok {
		return c, fmt.Errorf("sqlite: %q is not a URL of this scheme: write it like sqlite:///path/to/file.db", raw)
	}
	rest, query, _ := strings.Cut(rest, "?")
	rest = strings.TrimPrefix(rest, "//")
	path, err := url.PathUnescape(rest)
	if err != nil {
		return c, fmt.Errorf("sqlite: the path in %q: %w", raw, err)
	}
	c.Path = path
	values, err := url.ParseQuery(query)
	if err != nil {
		return c, fmt.Errorf("sqlite: the options in %q: %w", raw, err)
	}
	for name, set := range options {
		v, have := opts[name]
		if values.Has(name) {
			v, have = values.Get(name), true
			values.Del(name)
		}
		if !have {
			continue
		}
		if err := set(&c, v); err != nil {
			return c, fmt.Errorf("sqlite %s: option %s: %w", c.Path, name, err)
		}
	}
	for name := range values {
		return c, fmt.Errorf("sqlite %s: option %q is not known: there are %s", c.Path, name, strings.Join(optionNames(), ", "))
	}
	return c, nil
}

var options = map[string]func(*Config, any) error{
	"synchronous":  func(c *Config, v any) error { c.Synchronous = fmt.Sprint(v); return nil },
	"lease":        func(c *Config, v any) (err error) { c.Lease, err = seconds(v); return },
	"lock_timeout": func(c *Config, v any) (err error) { c.LockTimeout, err = seconds(v); return },
	"max_pages": func(c *Config, v any) (err error) {
		c.MaxPages, err = strconv.Atoi(fmt.Sprint(v))
		return
	},
}

func optionNames() []string {
	names := make([]string, 0, len(options))
	for n := range options {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func seconds(v any) (time.Duration, error) {
	if d, ok := v.(time.Duration); ok {
		return d, nil
	}
	text := fmt.Sprint(v)
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		if math.IsNaN(f) || f < 0 || f > 1e9 {
			return 0, fmt.Errorf("%s is not a number of seconds", text)
		}
		return time.Duration(f * float64(time.Second)), nil
	}
	return time.ParseDuration(text)
}
