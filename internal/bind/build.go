package bind

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/lovage-go/lovage/internal/jsontext"
)

// addSingle makes the whole value the one positional parameter.
func (p *Plan) addSingle(c Codec) error {
	val, err := valueFor(p.typ, c)
	if err != nil {
		return &TypeError{Type: typeName(p.typ), Reason: err.Error()}
	}
	p.fields = []field{{Param: Param{Name: "arg", Required: true}, val: val}}
	p.npos, p.nreq = 1, 1
	return nil
}

// addStruct makes the fields of the struct parameters.
func (p *Plan) addStruct(c Codec) error {
	b := builder{typ: p.typ, codec: c, names: map[string]string{}}
	if err := b.walk(p.typ, nil, ""); err != nil {
		return err
	}
	if !b.any && p.typ.NumField() > 0 {
		return &TypeError{Type: typeName(p.typ), Reason: "has no exported fields, so its value would be lost; export them, or use struct{} for no arguments"}
	}
	var optional string
	for _, f := range b.positional {
		if f.Required && optional != "" {
			return &TypeError{Type: typeName(p.typ), Field: b.names[f.Name],
				Reason: fmt.Sprintf("required after the optional field %s, which Python does not allow; move it before, or make it kwonly or optional", optional)}
		}
		if f.Required {
			p.nreq++
		} else if optional == "" {
			optional = b.names[f.Name]
		}
	}
	p.fields = slices.Concat(b.positional, b.keyword)
	p.npos = len(b.positional)
	p.rest, p.extra = b.rest, b.extra
	return nil
}

// builder collects the parameters of a struct.
type builder struct {
	typ        reflect.Type
	codec      Codec
	names      map[string]string // parameter to Go field
	positional []field
	keyword    []field
	rest       *field
	extra      *field
	any        bool // a field was used, or left out on purpose
}

func (b *builder) walk(t reflect.Type, index []int, path string) error {
	for i := range t.NumField() {
		sf := t.Field(i)
		at := append(slices.Clone(index), i)
		tag, tagged := sf.Tag.Lookup("lovage")
		goName := path + sf.Name
		refuse := func(format string, args ...any) error {
			return &TypeError{Type: typeName(b.typ), Field: goName, Tag: tag, Reason: fmt.Sprintf(format, args...)}
		}
		switch {
		case tag == "-":
			b.any = true
			continue
		case sf.Anonymous && !tagged && isStruct(sf.Type):
			if err := b.walk(sf.Type, at, goName+"."); err != nil {
				return err
			}
			continue
		case sf.Anonymous && !tagged && sf.Type.Kind() == reflect.Pointer && isStruct(sf.Type.Elem()):
			return refuse("an embedded pointer to a struct; embed it by value, or give it a tag to make it one parameter")
		case !sf.IsExported() && tagged:
			return refuse("has a tag but is not exported")
		case !sf.IsExported():
			continue
		}
		b.any = true
		f, reason := b.parse(sf, tag)
		if reason != "" {
			return refuse("%s", reason)
		}
		f.index = at
		if other, ok := b.names[f.Name]; ok {
			return refuse("the parameter %q is also field %s", f.Name, other)
		}
		b.names[f.Name] = goName
		if reason := b.place(f); reason != "" {
			return refuse("%s", reason)
		}
	}
	return nil
}

// place puts f where its kind belongs.
func (b *builder) place(f field) (reason string) {
	switch f.Kind {
	case Rest:
		if b.rest != nil {
			return fmt.Sprintf("a second rest field besides %s", b.names[b.rest.Name])
		}
		b.rest = &f
	case Extra:
		if b.extra != nil {
			return fmt.Sprintf("a second extra field besides %s", b.names[b.extra.Name])
		}
		b.extra = &f
	case KeywordOnly:
		b.keyword = append(b.keyword, f)
	default:
		b.positional = append(b.positional, f)
	}
	return ""
}

// parse reads the tag of a field. A reason is returned for what is wrong with it.
func (b *builder) parse(sf reflect.StructField, tag string) (f field, reason string) {
	name, opts, _ := strings.Cut(tag, ",")
	if name == "" {
		name = snake(sf.Name)
	}
	if !identifier(name) {
		return f, fmt.Sprintf("the name %q is not a Python identifier", name)
	}
	f.Param = Param{Name: name, Required: true}
	var seen []string
	var hasDefault bool
	for opts != "" {
		var opt string
		if text, ok := strings.CutPrefix(opts, "default="); ok {
			f.defText, hasDefault, opts = bytes.TrimSpace([]byte(text)), true, ""
			opt = "default"
		} else {
			opt, opts, _ = strings.Cut(opts, ",")
		}
		switch {
		case slices.Contains(seen, opt):
			return f, fmt.Sprintf("the option %s is given twice", opt)
		case opt == "rest":
			f.Kind = Rest
		case opt == "extra":
			f.Kind = Extra
		case opt == "kwonly":
			f.Kind = KeywordOnly
		case opt != "default" && opt != "optional":
			return f, fmt.Sprintf("unknown option %q; there are optional, kwonly, rest, extra and, last, default=JSON", opt)
		}
		seen = append(seen, opt)
	}
	f.Required = !slices.Contains(seen, "optional") && !hasDefault && f.Kind != Rest && f.Kind != Extra
	switch {
	case (f.Kind == Rest || f.Kind == Extra) && len(seen) > 1:
		return f, fmt.Sprintf("%s goes with no other option", f.Kind)
	case len(seen) > 1 && hasDefault && slices.Contains(seen, "optional"):
		return f, "a field with a default is optional already; drop one of the two"
	case f.Kind == Positional && b.rest != nil:
		f.Kind = KeywordOnly
	}
	return f, b.setType(&f, sf.Type, hasDefault)
}

// setType finds how values of the field are written and read, and checks the default.
func (b *builder) setType(f *field, t reflect.Type, hasDefault bool) (reason string) {
	switch {
	case f.Kind == Rest && (t.Kind() != reflect.Slice || marshalsItself(t)):
		return "rest needs a slice, not " + typeName(t)
	case f.Kind == Extra && (t.Kind() != reflect.Map || t.Key().Kind() != reflect.String || marshalsItself(t) || marshalsItself(t.Key())):
		return "extra needs a map with string keys, not " + typeName(t)
	case f.Kind == Rest || f.Kind == Extra:
		t = t.Elem()
	}
	val, err := valueFor(t, b.codec)
	if err != nil {
		return err.Error()
	}
	f.val = val
	f.isZero = t.Implements(reflect.TypeFor[interface{ IsZero() bool }]())
	if !hasDefault {
		return ""
	}
	f.Default = string(f.defText)
	f.def = reflect.New(t).Elem()
	if err := jsontext.Valid(f.defText); err != nil {
		return "the default: " + err.Error()
	}
	if err := val.decode(f.def, f.defText); err != nil {
		return "the default: " + err.Error()
	}
	return ""
}
