package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/goccy/go-yaml"
)

// maxFile bounds a configuration file; a larger one is surely something else.
const maxFile = 4 << 20

// ReadFile reads a YAML, JSON or TOML file, told apart by its extension.
func ReadFile(path string) (map[string]any, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open configuration file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration file %s: %w", path, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("configuration file %s is larger than %d MiB", path, maxFile>>20)
	}
	values, err := parse(filepath.Ext(path), data)
	if err != nil {
		return nil, fmt.Errorf("configuration file %s: %w", path, err)
	}
	return values, nil
}

func parse(ext string, data []byte) (values map[string]any, err error) {
	switch strings.ToLower(ext) {
	case ".yaml", ".yml":
		if err = yaml.Unmarshal(data, &values); err != nil {
			// Without the lines of the file, which may hold passwords.
			err = errors.New(yaml.FormatError(err, false, false))
		}
	case ".json":
		err = parseJSON(string(data), &values)
	case ".toml":
		err = toml.Unmarshal(data, &values)
	default:
		err = fmt.Errorf("extension %q is not known: use .yaml, .yml, .json or .toml", ext)
	}
	return values, err
}

func parseJSON(text string, out any) error {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	if err := d.Decode(out); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more text follows the JSON value")
	}
	return nil
}

// Args parses key=value words, as Celery's command line takes them after --.
func Args(words []string) (map[string]any, error) {
	values := make(map[string]any, len(words))
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("argument %q is no setting: write name=value, such as task_acks_late=false", w)
		}
		// Celery reads worker.concurrency as worker_concurrency.
		values[strings.ReplaceAll(key, ".", "_")] = value
	}
	return values, nil
}
