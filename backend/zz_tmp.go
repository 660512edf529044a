package backend

import (
	"context"
	"iter"
	"time"
)

func Await(ctx context.Context, b Backend, id string, done func(Record) bool) (Record, error) {
	for {
		r, err := b.Fetch(ctx, id)
		if err != nil {
			return Record{}, err
		}
		if done(r[0]) {
			return r[0], nil
		}
		select {
		case <-ctx.Done():
			return r[0], context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func AwaitMany(ctx context.Context, b Backend, ids []string, f func(Record) bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for _, id := range ids {
			if !yield(Await(ctx, b, id, f)) {
				return
			}
		}
	}
}
