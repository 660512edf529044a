package rpcbackend_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/backendtest"
	"github.com/lovage-go/lovage/backend/rpcbackend"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
)

// end is one end of rpc as the suite sees it: the caller, which has made a call
// of every id that it is asked for, or a worker, which stores for the caller. The
// suite's records are no results, in which alone the state travels: they are wrapped.
type end struct {
	*rpcbackend.Backend
	caller *end
	url    string
	stores *atomic.Int64
}

// Store sends records to the caller and returns when they have come.
func (e *end) Store(ctx context.Context, recs ...*backend.Record) error {
	last := result(fmt.Sprint("last-", e.stores.Add(1)), "", protocol.Success)
	all := append(recs[:len(recs):len(recs)], last)
	for i, r := range all {
		queue, err := e.caller.Expect(ctx, r.TaskID)
		if err != nil {
			return err
		}
		sent := *r
		sent.ReplyTo, sent.CorrelationID = queue, r.TaskID
		sent.Meta = (&protocol.ResultMeta{Status: r.State, TaskID: r.TaskID,
			Result: strconv.AppendQuote(nil, base64.StdEncoding.EncodeToString(r.Meta))}).AppendJSON(nil)
		all[i] = &sent
	}
	if err := e.Backend.Store(ctx, all...); err != nil {
		return err
	}
	_, err := backend.Await(ctx, e.caller.Backend, last.TaskID, func(backend.Record) bool { return true })
	return errors.Join(err, e.caller.Forget(ctx, last.TaskID))
}

func (e *end) Fetch(ctx context.Context, ids ...string) ([]backend.Record, error) {
	if _, err := e.Expect(ctx, ids...); err != nil {
		return nil, err
	}
	recs, err := e.Backend.Fetch(ctx, ids...)
	for i := range recs {
		if recs[i].Meta == nil {
			continue
		}
		m, bad := protocol.ParseResultMeta(recs[i].Meta)
		var text []byte // base64 is its JSON form
		bad = errors.Join(bad, json.Unmarshal(m.Result, &text))
		recs[i].Meta, err = text, errors.Join(err, bad)
	}
	return recs, err
}

func TestConformance(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Harness{
		Open: func(t *testing.T) backend.Backend {
			url := testenv.RabbitMQ(t).Vhost(t)
			e := &end{Backend: connect(t, url), url: url, stores: new(atomic.Int64)}
			e.caller = e
			return e
		},
		Reopen: func(t *testing.T, b backend.Backend) backend.Backend {
			e := b.(*end).caller
			return &end{Backend: connect(t, e.url), caller: e, url: e.url, stores: e.stores}
		},
		Lacks: []backendtest.Ability{
			backendtest.Shared, backendtest.Expires, backendtest.Cleanup, backendtest.Groups,
			backendtest.Once, backendtest.Losses, backendtest.Chords, backendtest.Identity,
		},
	})
}
