package earshot_test

import (
	"testing"

	"github.com/lovage-go/lovage/internal/earshot"
)

func TestBuffer(t *testing.T) {
	t.Parallel()
	b := earshot.New[int]()
	if v, ok := b.Take(); ok {
		t.Errorf("an empty buffer gives %d", v)
	}
	const more = 3*earshot.Most + 7
	for i := range more {
		b.Put(i)
	}
	select {
	case <-b.Bell():
	default:
		t.Error("the bell did not ring")
	}
	if n := b.Missed(); n != more-earshot.Most {
		t.Errorf("missed %d, want %d", n, more-earshot.Most)
	}
	want := more - earshot.Most
	for v, ok := b.Take(); ok; v, ok = b.Take() {
		if v != want {
			t.Fatalf("got %d, want %d", v, want)
		}
		want++
	}
	if want != more {
		t.Errorf("the last was %d, want %d", want-1, more-1)
	}
	b.Put(1)
	if v, ok := b.Take(); !ok || v != 1 {
		t.Errorf("after it was emptied: %d, %t", v, ok)
	}
}
