package demo

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage"
)

// Tree is a base class: whoever embeds it has a directory that is opened at
// first need, once per process, and kept open for all its runs.
type Tree struct {
	lovage.Task
	Dir string // set before the task is registered

	root   lovage.Lazy[*os.Root]
	opened atomic.Int64
}

// Root is the open directory.
func (t *Tree) Root(ctx context.Context) (*os.Root, error) {
	return t.root.Get(ctx, func(context.Context) (*os.Root, error) {
		t.opened.Add(1)
		return os.OpenRoot(t.Dir)
	})
}

// CountFile is a task class: one object per process, shared by all runs there.
type CountFile struct {
	Tree
	// Pause is how long a run lasts at least: a short job can be watched, too.
	Pause time.Duration
}

// FileArgs are the task's arguments: def run(self, path) in Python.
type FileArgs struct {
	Path string
}

// File is what one file comes to.
type File struct {
	Path   string `json:"path"`
	Lines  int    `json:"lines"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
	Words  []Word `json:"words"` // the most frequent identifiers, at most topWords
}

// Word is an identifier and how often it occurs.
type Word struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// Counted is the result of one run: the file, and who counted it how.
type Counted struct {
	File
	Worker string `json:"worker"`
	Losses int    `json:"losses"` // workers that died with the message in their hands
	Opened int64  `json:"opened"` // how often this process has opened the directory
}

// topWords is how many identifiers of a file are kept.
const topWords = 20

// Run counts one file.
func (t *CountFile) Run(ctx context.Context, in FileArgs) (Counted, error) {
	root, err := t.Root(ctx)
	if err != nil {
		return Counted{}, err
	}
	text, err := fs.ReadFile(root.FS(), in.Path)
	if err != nil {
		return Counted{}, err
	}
	if t.Pause > 0 {
		select {
		case <-time.After(t.Pause):
		case <-ctx.Done():
			return Counted{}, context.Cause(ctx)
		}
	}
	r := lovage.RequestFrom(ctx)
	return Counted{count(in.Path, text), r.Hostname, r.Delivery.Losses, t.opened.Load()}, nil
}

func count(path string, text []byte) File {
	f := File{Path: path, Bytes: len(text)}
	for _, b := range text {
		if b == '\n' {
			f.Lines++
		}
	}
	sum := sha256.Sum256(text)
	f.SHA256 = hex.EncodeToString(sum[:])
	f.Words = top(identifiers(text), topWords)
	return f
}

// identifiers counts the identifiers of a Go source; keywords, comments and
// literals are none. Files that do not compile are counted as far as they can
// be read.
func identifiers(src []byte) map[string]int {
	words := map[string]int{}
	var s scanner.Scanner
	set := token.NewFileSet()
	s.Init(set.AddFile("", set.Base(), len(src)), src, func(token.Position, string) {}, 0)
	for {
		_, tok, name := s.Scan()
		switch tok {
		case token.EOF:
			return words
		case token.IDENT:
			words[name]++
		}
	}
}

// top returns the n most frequent words, the alphabet deciding between equals.
func top(words map[string]int, n int) []Word {
	names := slices.SortedFunc(maps.Keys(words), func(a, b string) int {
		return cmp.Or(cmp.Compare(words[b], words[a]), cmp.Compare(a, b))
	})
	out := make([]Word, 0, n)
	for _, name := range names[:min(n, len(names))] {
		out = append(out, Word{name, words[name]})
	}
	return out
}

// MergeArgs are the parts that make a whole.
type MergeArgs struct {
	Files []File
}

// Total is the whole.
type Total struct {
	Files  int    `json:"files"`
	Lines  int    `json:"lines"`
	Bytes  int    `json:"bytes"`
	Digest string `json:"digest"` // of the list that sha256sum would print, in the order of the paths
	Words  []Word `json:"words,omitempty"`
}

// merge is a plain function as a task.
func merge(_ context.Context, in MergeArgs) (Total, error) {
	slices.SortFunc(in.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	total, words, list := Total{Files: len(in.Files)}, map[string]int{}, sha256.New()
	for _, f := range in.Files {
		total.Lines += f.Lines
		total.Bytes += f.Bytes
		list.Write([]byte(f.SHA256 + "  ./" + f.Path + "\n"))
		for _, w := range f.Words {
			words[w.Name] += w.Count
		}
	}
	total.Digest = hex.EncodeToString(list.Sum(nil))
	total.Words = top(words, topWords)
	return total, nil
}
