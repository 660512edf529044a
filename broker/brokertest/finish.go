package brokertest

import (
	"errors"
	"slices"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

func record(id string) *protocol.Record {
	return &protocol.Record{TaskID: id, State: protocol.Success, Meta: []byte(`{"status":"SUCCESS"}`)}
}

var finishCases = []testCase{
	{"Finish/PublishAndAckTogether", []Ability{Atomic}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		d := w.expect(cs, "a")[0]
		w.must(cs.(broker.AtomicFinisher).FinishAll(w.ctx, broker.Finish{
			Publish: []*broker.Message{message("q", "next"), message("r", "other")},
			Store:   []*protocol.Record{record("a")},
			Settle:  broker.Settlement{Delivery: d},
		}))
		w.wantLength("q", broker.Length{Ready: 1})
		w.wantLength("r", broker.Length{Ready: 1})
		w.ack(cs, w.expect(cs, "next")...)
		w.must(cs.Update(w.ctx, broker.Named("r")))
		w.ack(cs, w.expect(cs, "other")...)
	}},
	{"Finish/WakesTheNextConsumer", []Ability{Atomic}, func(w *world) {
		cs, next := w.consumer(w.conn, "q"), w.consumer(w.other(), "r")
		w.send("q", "a")
		d := w.expect(cs, "a")[0]
		claimed := after(func() error {
			ds, err := next.Claim(w.ctx, 1)
			if err != nil {
				return err
			}
			return next.Settle(w.ctx, broker.Settlement{Delivery: &ds[0]})
		})
		w.must(cs.(broker.AtomicFinisher).FinishAll(w.ctx, broker.Finish{
			Publish: []*broker.Message{message("r", "follow-up")}, Settle: broker.Settlement{Delivery: d}}))
		w.must(wait(w, "the follow-up", claimed))
	}},
	{"Finish/OtherActions", []Ability{Atomic}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		d := w.expect(cs, "a")[0]
		w.must(cs.(broker.AtomicFinisher).FinishAll(w.ctx, broker.Finish{Settle: broker.Settlement{Delivery: d, Action: broker.Requeue}}))
		w.ack(cs, w.expect(cs, "a")...)
	}},
	{"Finish/FencedAfterTakeOver", []Ability{Atomic, Leases}, func(w *world) {
		w.send("q", "a")
		holder := w.leased(w.other(), w.h.Lease, "q")
		d := w.expect(holder, "a")[0]
		cs := w.consumer(w.conn, "q")
		again := w.expect(cs, "a")
		w.wantLost(holder.(broker.AtomicFinisher).FinishAll(w.ctx, broker.Finish{
			Publish: []*broker.Message{message("q", "must not be there")},
			Store:   []*protocol.Record{record("a")},
			Settle:  broker.Settlement{Delivery: d},
		}))
		w.ack(cs, again...)
		w.nothing(cs)
	}},
	{"Finish/AllOrNothing", []Ability{Atomic}, func(w *world) {
		// A finish that cannot be done as a whole leaves its claim as it was.
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		d := w.expect(cs, "a")[0]
		bad := addressed("nowhere", "nobody", "x")
		bad.Mandatory = true
		err := cs.(broker.AtomicFinisher).FinishAll(w.ctx, broker.Finish{
			Publish: []*broker.Message{message("q", "must not be there"), bad},
			Store:   []*protocol.Record{record("a")},
			Settle:  broker.Settlement{Delivery: d},
		})
		if !errors.Is(err, broker.ErrNoQueue) {
			w.Errorf("got %v, want ErrNoQueue", err)
		}
		w.wantLength("q", broker.Length{Claimed: 1})
		w.ack(cs, d)
		w.nothing(cs)
	}},
	{"Finish/EachByItself", []Ability{Atomic}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a", "b", "c")
		ds := w.claim(cs, 3)
		w.ack(cs, ds[1])
		fins := make([]broker.Finish, 3)
		for i, d := range ds {
			fins[i] = broker.Finish{Publish: []*broker.Message{message("r", "after "+string(d.Body))}, Settle: broker.Settlement{Delivery: d}}
		}
		err := cs.(broker.AtomicFinisher).FinishAll(w.ctx, fins...)
		errs := broker.EachError(err, 3)
		if errs[0] != nil || errs[2] != nil || !errors.Is(errs[1], broker.ErrLeaseLost) {
			w.Errorf("got %v, want only the second lost", errs)
		}
		w.must(cs.Update(w.ctx, broker.Named("r")))
		got := w.claim(cs, 2)
		names, want := bodies(got), []string{"after " + string(ds[0].Body), "after " + string(ds[2].Body)}
		slices.Sort(names)
		slices.Sort(want)
		if !slices.Equal(names, want) {
			w.Errorf("published %v, want %v", names, want)
		}
		w.ack(cs, got...)
		w.nothing(cs)
	}},
}
