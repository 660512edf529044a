// Package golden loads the messages and results recorded from real Celery
// processes (see protocol/testdata/golden). It serves tests only.
package golden

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lovage-go/lovage/internal/pyjson"
	"github.com/lovage-go/lovage/serializer"
)

// Message is one recorded message.
type Message struct {
	File        string // under the folder loaded, with its number
	Headers     json.RawMessage
	ContentType string
	Encoding    string
	Compression string          // MIME type, or empty
	Body        []byte          // as on the wire, without the transport's base64
	Decoded     json.RawMessage // the body as Python read it
}

// JSON reports whether the body is JSON under its compression.
func (m *Message) JSON() bool { return m.ContentType == "application/json" }

type messageFile struct {
	Messages []struct {
		Raw        string          `json:"raw"`
		Typed      json.RawMessage `json:"headers_typed"`
		Properties struct {
			ContentType     string `json:"content_type"`
			ContentEncoding string `json:"content_encoding"`
		} `json:"properties"`
		BodyB64 string          `json:"body_b64"`
		Decoded json.RawMessage `json:"body_decoded"`
	} `json:"messages"`
}

type envelope struct {
	Body        string          `json:"body"`
	ContentType string          `json:"content-type"`
	Encoding    string          `json:"content-encoding"`
	Headers     json.RawMessage `json:"headers"`
}

// Messages loads all message files under dir, and tells how many there are.
func Messages(dir string) (list []Message, files int, err error) {
	err = each(dir, func(name string, data []byte) error {
		files++
		var f messageFile
		if err := serializer.JSON.Unmarshal(data, &f); err != nil {
			return err
		}
		for i, r := range f.Messages {
			m := Message{File: fmt.Sprintf("%s#%d", name, i), Decoded: r.Decoded}
			body := r.BodyB64
			if r.Raw != "" {
				var e envelope
				if err := serializer.JSON.Unmarshal([]byte(r.Raw), &e); err != nil {
					return err
				}
				body, m.ContentType, m.Encoding, m.Headers = e.Body, e.ContentType, e.Encoding, e.Headers
			} else {
				m.ContentType, m.Encoding = r.Properties.ContentType, r.Properties.ContentEncoding
				if m.Headers, err = table(r.Typed); err != nil {
					return err
				}
			}
			if m.Body, err = base64.StdEncoding.DecodeString(body); err != nil {
				return err
			}
			var c struct {
				Compression string `json:"compression"`
			}
			if err := serializer.JSON.Unmarshal(m.Headers, &c); err != nil {
				return err
			}
			m.Compression = c.Compression
			list = append(list, m)
		}
		return nil
	})
	return list, files, err
}

// table turns an AMQP header table, {"name": {"t": type, "v": value}}, into JSON.
func table(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 {
		return json.RawMessage("{}"), nil
	}
	s := pyjson.Scanner{Data: raw}
	out := []byte("{")
	more, err := s.Enter('{')
	for more && err == nil {
		key, err := s.Key()
		if err != nil {
			return nil, err
		}
		cell, err := s.Raw()
		if err != nil {
			return nil, err
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(pyjson.AppendString(out, string(key)), ':')
		if out, err = appendCell(out, cell); err != nil {
			return nil, err
		}
		if more, err = s.More('{'); err != nil {
			return nil, err
		}
	}
	return append(out, '}'), err
}

func appendCell(out, cell []byte) ([]byte, error) {
	var c struct {
		T string          `json:"t"`
		V json.RawMessage `json:"v"`
	}
	if err := serializer.JSON.Unmarshal(cell, &c); err != nil {
		return nil, err
	}
	switch c.T {
	case "F":
		inner, err := table(c.V)
		return append(out, inner...), err
	case "A":
		var list []json.RawMessage
		if err := serializer.JSON.Unmarshal(c.V, &list); err != nil {
			return nil, err
		}
		out = append(out, '[')
		for i, cell := range list {
			if i > 0 {
				out = append(out, ',')
			}
			var err error
			if out, err = appendCell(out, cell); err != nil {
				return nil, err
			}
		}
		return append(out, ']'), nil
	}
	return append(out, c.V...), nil
}

// Result is one stored result in JSON.
type Result struct {
	File string
	Meta []byte
}

// Results finds every result in JSON in the files under dir: each text that
// begins as one does, and the bodies of reply messages.
func Results(dir string) (list []Result, files int, err error) {
	err = each(dir, func(name string, data []byte) error {
		files++
		var doc any
		if err := serializer.NewJSON(serializer.Limits{}).Unmarshal(data, &doc); err != nil {
			return err
		}
		seen := map[string]bool{}
		find(doc, func(text string) {
			if strings.HasPrefix(text, `{"status"`) && !seen[text] {
				seen[text] = true
				list = append(list, Result{fmt.Sprintf("%s#%d", name, len(seen)), []byte(text)})
			}
		})
		return nil
	})
	return list, files, err
}

func find(v any, got func(string)) {
	switch v := v.(type) {
	case string:
		got(v)
		if b, err := base64.StdEncoding.DecodeString(v); err == nil {
			got(string(b))
		}
	case []any:
		for _, e := range v {
			find(e, got)
		}
	case map[string]any:
		for _, e := range v {
			find(e, got)
		}
	}
}

// Count is the number of files under dir.
func Count(dir string) (n int, err error) {
	err = each(dir, func(string, []byte) error { n++; return nil })
	return n, err
}

func each(dir string, visit func(name string, data []byte) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".json" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if err := visit(filepath.ToSlash(name), data); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

// ChordParts loads what members of chords left, from all result files under dir.
func ChordParts(dir string) (list []string, err error) {
	err = each(dir, func(name string, data []byte) error {
		var doc any
		if err := serializer.NewJSON(serializer.Limits{}).Unmarshal(data, &doc); err != nil {
			return err
		}
		find(doc, func(text string) {
			if strings.HasPrefix(text, `[1, "`) {
				list = append(list, text)
			}
		})
		return nil
	})
	return list, err
}
