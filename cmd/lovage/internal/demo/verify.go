package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFiles bounds the job: their parts are merged in one message.
const maxFiles = 100_000

var errTooMany = errors.New("too many files")

// list finds the regular files below dir whose names end in .go, as find does,
// in the order of their paths. Paths are relative to dir, with slashes.
func list(ctx context.Context, dir string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !d.Type().IsRegular() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		if len(out) == maxFiles {
			return errTooMany
		}
		rel, err := filepath.Rel(dir, path)
		out = append(out, filepath.ToSlash(rel))
		return err
	})
	switch {
	case errors.Is(err, errTooMany):
		return nil, fmt.Errorf("more than %d .go files below %s: name a smaller directory", maxFiles, dir)
	case err != nil:
		return nil, fmt.Errorf("look for .go files: %w", err)
	case len(out) == 0:
		return nil, fmt.Errorf("no .go files below %s: name a directory that holds Go sources", dir)
	}
	slices.Sort(out)
	return out, nil
}

// recount counts the tree again, one file after the other, in this process and
// with none of the tasks' code: the witness that the outcome is checked against.
func recount(ctx context.Context, dir string) (Total, error) {
	paths, err := list(ctx, dir)
	if err != nil {
		return Total{}, err
	}
	total := Total{Files: len(paths)}
	var sums bytes.Buffer
	for _, path := range paths {
		if ctx.Err() != nil {
			return Total{}, context.Cause(ctx)
		}
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			return Total{}, fmt.Errorf("count again: %w", err)
		}
		total.Lines += bytes.Count(text, []byte{'\n'})
		total.Bytes += len(text)
		fmt.Fprintf(&sums, "%x  ./%s\n", sha256.Sum256(text), path)
	}
	total.Digest = fmt.Sprintf("%x", sha256.Sum256(sums.Bytes()))
	return total, nil
}

// compare says how two totals differ, or nothing. Words are not compared.
func compare(workers, witness Total) error {
	workers.Words, witness.Words = nil, nil
	var diffs []string
	differ := func(what string, a, b any) {
		if a != b {
			diffs = append(diffs, fmt.Sprintf("%s %v, counted again %v", what, a, b))
		}
	}
	differ("files", workers.Files, witness.Files)
	differ("lines", workers.Lines, witness.Lines)
	differ("bytes", workers.Bytes, witness.Bytes)
	differ("digest", workers.Digest, witness.Digest)
	if diffs == nil {
		return nil
	}
	return fmt.Errorf("the outcome is wrong: %s (did a file change meanwhile?)", strings.Join(diffs, "; "))
}
