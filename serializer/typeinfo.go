package serializer

import (
	"cmp"
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// class says how values of a type are coded.
type class uint8

const (
	classPlain  class = iota // by encoding/json: nothing in it needs our care
	classActive              // in work: the type holds itself
	classTime
	classUUID
	classBytes
	classRaw
	classNumber
	classFloat
	classInterface
	classPointer
	classStruct
	classMap
	classSlice
	classArray
)

type typeKey struct {
	t      reflect.Type
	decode bool
}

type typeInfo struct {
	class  class
	fields []field
	byName map[string]int // index into fields
}

type field struct {
	name       string
	index      []int
	typ        reflect.Type
	tagged     bool
	omitEmpty  bool
	omitZero   bool
	isZero     bool // the type has an IsZero method
	quoted     bool // the option ",string"
	unexported bool // reached through an unexported embedded pointer
}

// info decides once per type and direction how it is coded.
func (c *jsonCodec) info(t reflect.Type, decode bool) *typeInfo {
	key := typeKey{t, decode}
	if i, ok := c.types.Load(key); ok {
		return i.(*typeInfo)
	}
	i := &typeInfo{class: classify(t, decode, map[reflect.Type]class{})}
	if i.class == classStruct {
		i.fields = fieldsOf(t)
		i.byName = make(map[string]int, len(i.fields))
		for n, f := range i.fields {
			i.byName[f.name] = n
		}
	}
	kept, _ := c.types.LoadOrStore(key, i)
	return kept.(*typeInfo)
}

// classify walks the type. A type that holds itself is taken as plain where it
// recurs: the rest of it decides.
func classify(t reflect.Type, decode bool, seen map[reflect.Type]class) class {
	if c, ok := seen[t]; ok {
		return c
	}
	seen[t] = classActive
	c := classOf(t, decode, seen)
	seen[t] = c
	return c
}

func classOf(t reflect.Type, decode bool, seen map[reflect.Type]class) class {
	switch t {
	case reflect.TypeFor[time.Time]():
		return classTime
	case reflect.TypeFor[uuid.UUID]():
		return classUUID
	case reflect.TypeFor[json.RawMessage]():
		return classRaw
	case reflect.TypeFor[Number]():
		return classNumber
	}
	inner := func(t reflect.Type, c class) class {
		if in := classify(t, decode, seen); in == classPlain || in == classActive {
			return classPlain
		}
		return c
	}
	if t.Kind() == reflect.Pointer {
		return inner(t.Elem(), classPointer)
	}
	if t.Kind() == reflect.Interface {
		return classInterface
	}
	if hasOwnText(t, decode) {
		return classPlain
	}
	switch t.Kind() {
	case reflect.Float32, reflect.Float64:
		return classFloat
	case reflect.Slice:
		if e := t.Elem(); e.Kind() == reflect.Uint8 && !hasOwnText(e, decode) {
			return classBytes
		}
		return inner(t.Elem(), classSlice)
	case reflect.Array:
		return inner(t.Elem(), classArray)
	case reflect.Map:
		return inner(t.Elem(), classMap)
	case reflect.Struct:
		for _, f := range fieldsOf(t) {
			if inner(f.typ, classStruct) == classStruct {
				return classStruct
			}
		}
	}
	return classPlain
}

func hasOwnText(t reflect.Type, decode bool) bool {
	p := reflect.PointerTo(t)
	if decode {
		return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
	}
	return p.Implements(reflect.TypeFor[json.Marshaler]()) || p.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

// fieldsOf lists the fields of a struct by encoding/json's rules: embedded
// structs without a name are part of the outer one, the shallowest field of a
// name wins, then the one with a tag, and a tie drops them all.
func fieldsOf(t reflect.Type) []field {
	type level struct {
		t          reflect.Type
		index      []int
		unexported bool
	}
	var all []field
	seen := map[reflect.Type]bool{}
	for next := []level{{t: t}}; len(next) > 0; {
		now := next
		next = nil
		for _, l := range now {
			if seen[l.t] {
				continue
			}
			for i := range l.t.NumField() {
				sf := l.t.Field(i)
				f, embedded, ok := readField(sf)
				if !ok {
					continue
				}
				f.index = append(slices.Clone(l.index), i)
				f.unexported = l.unexported
				if embedded != nil {
					hidden := l.unexported || (!sf.IsExported() && sf.Type.Kind() == reflect.Pointer)
					next = append(next, level{embedded, f.index, hidden})
					continue
				}
				all = append(all, f)
			}
		}
		for _, l := range now {
			seen[l.t] = true
		}
	}
	return dominant(all)
}

// readField reads the tag. It returns the type of an embedded struct that
// becomes part of the outer one.
func readField(sf reflect.StructField) (f field, embedded reflect.Type, ok bool) {
	tag := sf.Tag.Get("json")
	if tag == "-" {
		return f, nil, false
	}
	name, options, _ := strings.Cut(tag, ",")
	if sf.Anonymous {
		t := sf.Type
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if !sf.IsExported() && t.Kind() != reflect.Struct {
			return f, nil, false
		}
		if name == "" && t.Kind() == reflect.Struct {
			return f, t, true
		}
	}
	if !sf.IsExported() {
		return f, nil, false
	}
	f = field{name: name, typ: sf.Type, tagged: name != ""}
	if name == "" {
		f.name = sf.Name
	}
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitempty":
			f.omitEmpty = true
		case "omitzero":
			f.omitZero = true
			f.isZero = sf.Type.Implements(reflect.TypeFor[interface{ IsZero() bool }]())
		case "string":
			switch sf.Type.Kind() {
			case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
				reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
				reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
				f.quoted = true
			}
		}
	}
	return f, nil, true
}

func dominant(all []field) []field {
	byName := map[string][]field{}
	for _, f := range all {
		byName[f.name] = append(byName[f.name], f)
	}
	var out []field
	for _, rivals := range byName {
		slices.SortStableFunc(rivals, func(a, b field) int {
			return cmp.Or(cmp.Compare(len(a.index), len(b.index)), cmp.Compare(rank(a), rank(b)))
		})
		if len(rivals) > 1 && len(rivals[0].index) == len(rivals[1].index) && rank(rivals[0]) == rank(rivals[1]) {
			continue
		}
		out = append(out, rivals[0])
	}
	slices.SortFunc(out, func(a, b field) int { return slices.Compare(a.index, b.index) })
	return out
}

func rank(f field) int {
	if f.tagged {
		return 0
	}
	return 1
}
