package backend

import (
	"context"
	"time"

	"github.com/lovage-go/lovage/protocol"
)

// ChordCounter counts the members of chords as they end, so that whoever ends
// last sends the body. A store without it has its chords polled. Each method is
// harmless when it is called again.
type ChordCounter interface {
	// StartChord sets how many parts the chord of a group waits for.
	StartChord(ctx context.Context, group string, size int, keep time.Duration) error
	// CountPart keeps a part and counts those of its chord. A part of the same
	// task takes the place of the one before. After the end of the chord nothing
	// is kept.
	CountPart(ctx context.Context, p *ChordPart) (ChordCount, error)
	// ChordParts returns the encoded parts, in the order of their index.
	ChordParts(ctx context.Context, group string) ([][]byte, error)
	// EndChord deletes what the chord has kept and marks its end for keep. It
	// reports false if the end was marked already.
	EndChord(ctx context.Context, group string, keep time.Duration) (bool, error)
}

// ChordPart is how a member of a chord ended.
type ChordPart struct {
	protocol.ChordPart
	Group string
	Index *int // place in the body's list; nil: at the end
	// Again says that the member may have been counted before: its message came
	// more than once.
	Again bool
	Keep  time.Duration // 0: for ever
}

// ChordCount is what a chord has and wants.
type ChordCount struct {
	Parts int
	Size  int  // 0: not known yet, or no more
	Ended bool // the body, or its failure, is out
}

// Complete reports whether as many parts are there as the chord waits for.
func (c ChordCount) Complete() bool { return !c.Ended && c.Size > 0 && c.Parts >= c.Size }
