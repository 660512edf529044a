// Package embedded gives Apps that configure no broker a store that needs no
// server: one SQLite file, shared by all processes of this user that run the
// same app. It is for a main to import:
//
//	import _ "github.com/lovage-go/lovage/embedded"
//
// The file is the one that LOVAGE_EMBEDDED names, or lovage/<app>.db in the
// user's data directory (XDG_DATA_HOME, ~/.local/share, or what the system has
// in its place), which is made with access for the user alone. Its path is
// logged once by each process, as a warning by the one that makes the file, so
// that nobody wonders where messages went. Broker and results share the file, so that a result and
// its acknowledgement are one transaction.
//
// An App with a broker_url is left alone; the URL schemes sqlite are available
// to it all the same.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/sqlbackend" // the scheme sqlite
	_ "github.com/lovage-go/lovage/broker/sqlbroker"   // the scheme sqlite
	"github.com/lovage-go/lovage/internal/proc"
)

func init() { lovage.SetDefaultURLs(new(said).urls) }

// said remembers which paths were logged.
type said struct {
	mu    sync.Mutex // guards paths
	paths map[string]bool
}

// urls is the store of an app, as broker and as backend.
func (s *said) urls(app string, log *slog.Logger) (broker, backend string, err error) {
	path, err := Path(app, proc.Getenv)
	if err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", "", fmt.Errorf("embedded store: %w: set LOVAGE_EMBEDDED to a file in a directory that can be written, or configure broker_url", err)
	}
	s.mu.Lock()
	first := !s.paths[path]
	if first {
		if s.paths == nil {
			s.paths = map[string]bool{}
		}
		s.paths[path] = true
	}
	s.mu.Unlock()
	if first {
		level := slog.LevelInfo
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "broker_url is not set: messages and results are kept in "+path, "path", path)
	}
	u := URL(path)
	return u, u, nil
}

// URL is the broker and backend URL of a file.
func URL(path string) string {
	path = filepath.ToSlash(path)
	escaped := (&url.URL{Path: path}).EscapedPath()
	if strings.HasPrefix(path, "/") {
		return "sqlite://" + escaped
	}
	return "sqlite:" + escaped
}

// Path is the file of an app's store, absolute. getenv is the environment.
func Path(app string, getenv func(string) string) (string, error) {
	if given := getenv("LOVAGE_EMBEDDED"); given != "" {
		path, err := filepath.Abs(given)
		if err != nil {
			return "", fmt.Errorf("LOVAGE_EMBEDDED=%s: %w", given, err)
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return "", fmt.Errorf("LOVAGE_EMBEDDED=%s is a directory: name a file in it, such as %s", given, filepath.Join(given, fileName(app)))
		}
		return path, nil
	}
	dir, err := dataDir(getenv)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "lovage", fileName(app)), nil
}

// dataDir is where the system wants a user's data.
func dataDir(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) { // a relative one is to be ignored
		return dir, nil
	}
	home := getenv("HOME")
	switch runtime.GOOS {
	case "windows":
		if dir := getenv("LocalAppData"); dir != "" {
			return dir, nil
		}
	case "darwin":
		if home != "" {
			return filepath.Join(home, "Library", "Application Support"), nil
		}
	default:
		if home != "" {
			return filepath.Join(home, ".local", "share"), nil
		}
	}
	return "", errors.New("embedded store: there is no home directory for its file: set LOVAGE_EMBEDDED to a path such as /var/lib/app/lovage.db, or configure broker_url")
}

// fileName makes a file name of an app's name.
func fileName(app string) string {
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, app)
	if strings.Trim(name, "._") == "" {
		name = "app"
	}
	return name + ".db"
}
