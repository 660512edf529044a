package golden

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// Python is the interpreter that has the distribution's Celery.
const Python = "/usr/bin/python3"

// Case is what Python judges: what Celery wrote beside what we made of it.
type Case struct {
	File     string `json:"file"`
	Kind     string `json:"kind"` // see internal/tools/judge/judge.py
	Original any    `json:"original"`
	Ours     any    `json:"ours"`
}

// Verdict is the answer to a case.
type Verdict struct {
	File        string   `json:"file"`
	Compared    int      `json:"compared"` // fields
	Differences []string `json:"differences"`
}

// Judge has the script compare cases, and returns a verdict for each.
func Judge(ctx context.Context, script string, cases []Case) ([]Verdict, error) {
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, c := range cases {
		if err := enc.Encode(c); err != nil {
			return nil, fmt.Errorf("%s: %w", c.File, err)
		}
	}
	cmd := exec.CommandContext(ctx, Python, script)
	cmd.Stdin = &in
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("judge (`make test` installs the Celery that it needs): %w: %s", err, stderr.String())
	}
	var list []Verdict
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var v Verdict
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if len(list) != len(cases) {
		return nil, fmt.Errorf("judge: %d verdicts on %d cases", len(list), len(cases))
	}
	return list, nil
}
