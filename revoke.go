package lovage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/protocol"
)

const (
	// maxRevokesKept bounds the list in the result store; the oldest make room.
	maxRevokesKept = 10_000
	// revokeBatch is how many records are looked at together.
	revokeBatch = 500

	// revokesID is the record that the list is in. It is no task's.
	revokesID          = "lovage.revokes"
	revokesState State = "REVOKES"
)

// revokeStore is the result store that keeps revokes; nil without one, and where
// results go to their callers.
func (a *App) revokeStore(ctx context.Context) (backend.Backend, error) {
	if a.byReply() {
		return nil, nil
	}
	b, err := a.Backend(ctx)
	switch {
	case errors.Is(err, ErrNoBackend):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return b, nil
}

// MarkRevoked stores REVOKED for tasks that have not ended, as each of Celery's
// workers does at once when it hears of a revoke, and keeps the ids in the
// result store's list, for workers that start later. Nothing happens without a
// result store, or where results go to their callers by rpc://. It is for workers.
func (a *App) MarkRevoked(ctx context.Context, ids ...string) error {
	b, err := a.revokeStore(ctx)
	if err != nil {
		return fmt.Errorf("store a revoke: %w", err)
	}
	if b == nil {
		return nil
	}
	out := RevokedOutcome()
	form := out.Info.Form()
	text := form.AppendJSON(nil)
	for batch := range slices.Chunk(ids, revokeBatch) {
		have, err := b.Fetch(ctx, batch...)
		if err != nil {
			return fmt.Errorf("store a revoke: %w", err)
		}
		var recs []*protocol.Record
		for i := range have {
			if have[i].State.Ready() {
				continue // an end stays what it is
			}
			meta := protocol.ResultMeta{Status: Revoked, Result: text, DateDone: protocol.FormatTime(now()), TaskID: batch[i]}
			recs = append(recs, &protocol.Record{TaskID: batch[i], State: Revoked, Meta: meta.AppendJSON(nil), Expires: a.resultExpires()})
		}
		if len(recs) == 0 {
			continue
		}
		if err := b.Store(ctx, recs...); err != nil {
			return fmt.Errorf("store a revoke: %w", err)
		}
	}
	return a.keepRevokes(ctx, b, ids)
}

// keepRevoked puts ids into the list, for a client: the workers store the
// records. That it cannot is told and no more.
func (a *App) keepRevoked(ctx context.Context, ids []string) {
	if !a.stores() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	b, err := a.revokeStore(ctx)
	if err == nil && b != nil {
		err = a.keepRevokes(ctx, b, ids)
	}
	if err != nil {
		a.log.Warn("a revoke is not kept in the result store; workers that start later will not heed it: "+err.Error(), "ids", ids, "error", err)
	}
}

// keepRevokes adds ids to the list. Two writers at once may lose each other's
// ids; since every worker adds what it hears, the list has them a moment later.
func (a *App) keepRevokes(ctx context.Context, b backend.Backend, ids []string) error {
	list, err := a.revokes(ctx, b)
	if err != nil {
		return err
	}
	news, at := false, time.Now()
	for _, id := range ids {
		if _, known := list[id]; !known {
			list[id], news = at, true
		}
	}
	if !news {
		return nil
	}
	names := slices.SortedFunc(maps.Keys(list), func(x, y string) int {
		if c := list[y].Compare(list[x]); c != 0 {
			return c
		}
		return strings.Compare(x, y)
	})
	seconds := make(map[string]int64, len(names))
	for _, id := range names[:min(len(names), maxRevokesKept)] {
		seconds[id] = list[id].Unix()
	}
	text, err := json.Marshal(seconds)
	if err != nil {
		return fmt.Errorf("keep a revoke: %w", err)
	}
	meta := protocol.ResultMeta{Status: revokesState, Result: text, TaskID: revokesID}
	if err := b.Store(ctx, &protocol.Record{TaskID: revokesID, State: revokesState, Meta: meta.AppendJSON(nil), Expires: a.conf.WorkerRevokeExpires}); err != nil {
		return fmt.Errorf("keep a revoke: %w", err)
	}
	return nil
}

// Revokes are the revokes of the last hours that the result store's list has,
// with their times. It is for workers that start.
func (a *App) Revokes(ctx context.Context) (map[string]time.Time, error) {
	b, err := a.revokeStore(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the list of revokes: %w", err)
	}
	if b == nil {
		return nil, nil
	}
	return a.revokes(ctx, b)
}

func (a *App) revokes(ctx context.Context, b backend.Backend) (map[string]time.Time, error) {
	recs, err := b.Fetch(ctx, revokesID)
	if err != nil {
		return nil, fmt.Errorf("read the list of revokes: %w", err)
	}
	out := map[string]time.Time{}
	if recs[0].Meta == nil {
		return out, nil
	}
	var meta struct{ Result map[string]int64 }
	if err := json.Unmarshal(recs[0].Meta, &meta); err != nil {
		a.log.Warn("the list of revokes in the result store cannot be read and starts anew", "record", revokesID, "error", err)
		return out, nil
	}
	oldest := time.Now().Add(-a.conf.WorkerRevokeExpires)
	for id, at := range meta.Result {
		if t := time.Unix(at, 0); t.After(oldest) {
			out[id] = t
		}
	}
	return out, nil
}
