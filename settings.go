package lovage

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/lovage-go/lovage/internal/scheme"
	"github.com/lovage-go/lovage/internal/settings"
)

// Setting is a row of the table of settings: what a setting is and, in what
// [Config.Table] returns, what it is set to.
type Setting struct {
	Name       string // Celery's name, or ours in its style
	Old        string // Celery's name before version 4; "" if it had none
	Field      string // field of [Config]; "" if it has none
	Type       string // Celery's word: string, int, float, bool, list, dict, any ...
	Unit       string // of a number: s, ms, bytes, KiB; else ""
	Default    string // ours, as it would be written in the environment
	Celery     string // Celery's default where ours differs; else ""
	Why        string // why ours differs
	Doc        string // one line
	Since      string // version that first honours it; "" if none does yet
	Refused    string // why it can have no meaning here, and what to do instead
	Planned    string // the feature to come that will honour it
	Deprecated string // what replaces it
	Ours       bool   // Celery does not know it
	Secret     bool   // Value is masked

	Value  any    // secrets masked; nil if the setting has no field
	Source string // "default", "code", a file's path, "environment", "command line"

	limit   bool     // zero and None mean NoLimit
	least   int      // smallest number taken, where that is not 0
	choices []string // texts taken; any if empty
}

// Warning is something in a configuration that does not do what its writer may
// expect. The configuration is used all the same.
type Warning struct {
	Setting string
	Source  string
	Message string
}

func (w Warning) String() string { return w.Source + ": setting " + w.Setting + ": " + w.Message }

// LoadFile reads settings from a YAML, JSON or TOML file, told apart by the
// extension. Names are Celery's, new or old; what does not fit is an error that
// names all such settings, and then c is unchanged.
func (c *Config) LoadFile(path string) ([]Warning, error) {
	values, err := settings.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return c.apply(path, values)
}

// LoadEnv reads settings from an environment as [os.Environ] gives it: the name
// in upper case after CELERY_ or, stronger, LOVAGE_. Lists may be words with
// commas between them, maps are JSON. Empty variables count as unset.
func (c *Config) LoadEnv(environ []string) ([]Warning, error) {
	next, warnings := *c, []Warning(nil)
	for _, prefix := range []string{"CELERY_", "LOVAGE_"} {
		values := map[string]any{}
		for _, kv := range environ {
			name, value, _ := strings.Cut(kv, "=")
			if strings.HasPrefix(name, prefix) && value != "" && !switches[name] && !strings.HasPrefix(name, "LOVAGE_CHILD") {
				values[name] = value
			}
		}
		ws, err := next.apply("environment", values)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, ws...)
	}
	*c = next
	return warnings, nil
}

// LoadArgs reads settings from name=value words, as Celery takes them at the
// end of a command line.
func (c *Config) LoadArgs(words []string) ([]Warning, error) {
	values, err := settings.Args(words)
	if err != nil {
		return nil, err
	}
	return c.apply("command line", values)
}

// Apply sets settings by name, from values such as a decoded file holds.
func (c *Config) Apply(values map[string]any) ([]Warning, error) { return c.apply("code", values) }

// apply is the one reader behind all sources. It changes c only if it returns
// no error.
func (c *Config) apply(source string, values map[string]any) ([]Warning, error) {
	var (
		next     = *c
		warnings []Warning
		errs     []error
		said     = map[string]string{} // setting -> the name it was given by
	)
	next.origin = maps.Clone(c.origin)
	if next.origin == nil {
		next.origin = map[string]string{}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		row := settingByName(key)
		if row == nil {
			warnings = append(warnings, Warning{key, source, unknownSetting(key)})
			continue
		}
		if first, twice := said[row.Name]; twice {
			errs = append(errs, fmt.Errorf("%s: %s and %s are the same setting: keep %s and delete the other", source, first, key, row.Name))
			continue
		}
		said[row.Name] = key
		for _, text := range row.remarks(key, values[key]) {
			warnings = append(warnings, Warning{row.Name, source, text})
		}
		if row.Field == "" {
			continue
		}
		if err := row.set(&next, values[key]); err != nil {
			errs = append(errs, fmt.Errorf("%s: setting %s: %w", source, key, row.quoted(err, values[key])))
			continue
		}
		next.origin[row.Name] = source
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	*c = next
	return warnings, nil
}

// quoted puts a text that is of the wrong type into the error, unless it may be a
// secret.
func (row *Setting) quoted(err error, value any) error {
	text, ok := value.(string)
	wrong, is := err.(*settings.WantError)
	if !ok || !is || row.Secret || len(text) > 60 || strings.Contains(text, "://") || typeOf(row.Type) == "map" {
		return err
	}
	return &settings.WantError{Got: strconv.Quote(text), Want: wrong.Want}
}

// remarks says what the writer of a setting, given by the name key, should know.
// What has no effect is not worth a word where it asks for nothing.
func (row *Setting) remarks(key string, value any) (texts []string) {
	if strings.EqualFold(key, row.Old) && !strings.EqualFold(strings.TrimPrefix(key, "CELERY_"), row.Name) {
		texts = append(texts, key+" is its old name; rename it to "+row.Name)
	}
	switch {
	case row.Since == "" && row.isDefault(value):
	case row.Refused != "":
		texts = append(texts, "it has no effect here: "+row.Refused)
	case row.Planned != "":
		texts = append(texts, "it has no effect in this version, which lacks what it is for: "+row.Planned)
	case row.Since == "":
		texts = append(texts, "this version knows it but does not honour it yet; it has no effect")
	case row.Deprecated != "":
		texts = append(texts, "it is deprecated: "+row.Deprecated)
	}
	return texts
}

// isDefault reports whether a value is the default, of a setting that no field
// holds.
func (row *Setting) isDefault(value any) bool {
	if settings.None(value) || settings.None(row.Default) {
		return settings.None(value) && settings.None(row.Default)
	}
	switch typeOf(row.Type) {
	case "bool":
		got, err := settings.Bool(value)
		return err == nil && strconv.FormatBool(got) == row.Default
	case "number":
		got, err := settings.Duration(value)
		def, _ := settings.Duration(row.Default)
		return err == nil && got == def
	case "list":
		got, err := settings.Strings(value)
		def, _ := settings.Strings(row.Default)
		return err == nil && slices.Equal(got, def)
	case "map":
		got, err := settings.Map(value)
		def, _ := settings.Map(row.Default)
		return err == nil && reflect.DeepEqual(got, def)
	}
	got, err := settings.String(value)
	return err == nil && got == row.Default
}

// typeOf is the Go kind behind Celery's word for a type.
func typeOf(celery string) string {
	switch celery {
	case "int", "float":
		return "number"
	case "tuple", "list":
		return "list"
	case "dict", "any":
		return "map"
	case "bool":
		return celery
	}
	return "text"
}

// CeleryDefaults returns a Config in which each setting whose default is ours
// has Celery's value.
func CeleryDefaults() Config {
	var c Config
	for i := range settingRows {
		if row := &settingRows[i]; row.Field != "" && row.Celery != "" {
			if err := row.set(&c, row.Celery); err != nil {
				panic("lovage: table of settings, Celery's default of " + row.Name + ": " + err.Error())
			}
			// Celery reads None as false; here nil would be our default.
			if flag, ok := reflect.ValueOf(&c).Elem().FieldByName(row.Field).Addr().Interface().(**bool); ok && *flag == nil {
				*flag = new(false)
			}
		}
	}
	return c
}

// Table lists the settings in the order of their names: all that exist, with
// their defaults, or only those that are set. Secrets are masked as Celery masks
// them, by name, and passwords in URLs.
func (c Config) Table(withDefaults bool) []Setting {
	full := reflect.ValueOf(c.withDefaults())
	given := reflect.ValueOf(c)
	var out []Setting
	for _, row := range settingRows {
		row.Source = "default"
		if row.Field != "" {
			row.Value = row.shown(full.FieldByName(row.Field))
			if !given.FieldByName(row.Field).IsZero() {
				row.Source = cmp.Or(c.origin[row.Name], "code")
			}
		}
		if withDefaults || row.Source != "default" {
			out = append(out, row)
		}
	}
	slices.SortFunc(out, func(a, b Setting) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// shown returns the value of a field without its secrets.
func (row *Setting) shown(v reflect.Value) any {
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if row.Type == "bool" && v.Kind() == reflect.Map && v.Len() == 0 { // broker_use_ssl
		return !v.IsNil()
	}
	if v.Kind() != reflect.Bool && v.IsZero() {
		if v.Kind() == reflect.Pointer {
			return nil
		}
		return v.Interface()
	}
	switch {
	case row.Secret:
		return settings.Masked
	case v.Kind() == reflect.Map:
		m, _ := settings.Map(v.Interface())
		return settings.Mask(m, masked)
	}
	return settings.Mask(v.Interface(), masked)
}

// masked hides the password of a URL as Celery does in a list of settings, with
// the stars of every other secret.
func masked(url string) string { return scheme.Mask(url, settings.Masked) }

// settingIndex finds rows by every name they have: new, old, and the new name
// in upper case with and without a prefix.
var settingIndex = sync.OnceValue(func() map[string]*Setting {
	index := make(map[string]*Setting, 4*len(settingRows))
	for i := range settingRows {
		row := &settingRows[i]
		upper := strings.ToUpper(row.Name)
		for _, name := range []string{row.Name, upper, "CELERY_" + upper, "LOVAGE_" + upper} {
			index[name] = row
		}
	}
	// Old names last and never over a new one: CELERY_TASK_SERIALIZER is both.
	for i := range settingRows {
		if row := &settingRows[i]; row.Old != "" && index[row.Old] == nil {
			index[row.Old] = row
		}
	}
	return index
})

// settingByName also knows an old name in lower case, as it comes from a command line.
func settingByName(name string) *Setting {
	if row := settingIndex()[name]; row != nil {
		return row
	}
	return settingIndex()[strings.ToUpper(name)]
}

// unknownSetting is the warning for a name that is no setting.
func unknownSetting(name string) string {
	bare := strings.ToLower(name)
	for _, prefix := range []string{"celery_", "lovage_"} {
		bare = strings.TrimPrefix(bare, prefix)
	}
	names := make([]string, len(settingRows))
	for i := range settingRows {
		names[i] = settingRows[i].Name
	}
	if near := settings.Closest(bare, names); near != "" {
		return "there is no such setting; did you mean " + near + "?"
	}
	return "there is no such setting"
}

// switches are variables with our prefixes that are not settings: they belong to
// Celery's command line, or to ours.
var switches = map[string]bool{
	"CELERY_APP": true, "CELERY_BIN": true, "CELERY_BROKER": true, "CELERY_CONFIG_MODULE": true,
	"CELERY_CUSTOM_WORKER_POOL": true, "CELERY_LOADER": true, "CELERY_LOG_FILE": true,
	"CELERY_LOG_LEVEL": true, "CELERY_LOG_REDIRECT": true, "CELERY_LOG_REDIRECT_LEVEL": true,
	"CELERY_RDBSIG": true, "CELERY_RDB_HOST": true, "CELERY_RDB_PORT": true,
	"CELERY_SKIP_CHECKS":               true,
	"CELERY_WORKER_SUCCESSFUL_EXPIRES": true, "CELERY_WORKER_SUCCESSFUL_MAX": true,
	"LOVAGE_APP": true, "LOVAGE_CONFIG": true, "LOVAGE_EMBEDDED": true,
}
