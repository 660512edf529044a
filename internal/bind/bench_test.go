package bind_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/lovage-go/lovage/internal/bind"
)

type addArgs struct {
	X int `lovage:"x"`
	Y int `lovage:"y"`
}

func BenchmarkEncode(b *testing.B) {
	p, err := bind.For(reflect.TypeFor[addArgs]())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := p.Encode(addArgs{2, 3}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBind(b *testing.B) {
	p, err := bind.For(reflect.TypeFor[addArgs]())
	if err != nil {
		b.Fatal(err)
	}
	args, kwargs := json.RawMessage(`[2,3]`), json.RawMessage(`{}`)
	b.ReportAllocs()
	for b.Loop() {
		var in addArgs
		if err := p.Bind("proj.add", args, kwargs, &in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	p, err := bind.For(reflect.TypeFor[addArgs]())
	if err != nil {
		b.Fatal(err)
	}
	args, kwargs := json.RawMessage(`[2]`), json.RawMessage(`{"y":3}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Check("proj.add", args, kwargs); err != nil {
			b.Fatal(err)
		}
	}
}
