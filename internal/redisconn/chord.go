package redisconn

import "time"

// ChordKeys are where a chord counts: Celery's three keys, and ours that says
// that the chord has ended.
type ChordKeys struct {
	Parts string // how members ended
	Added string // members added while the chord runs
	Size  string // members at the start
	End   string // ours
}

// Chord names the keys of the chord of a group, for every script and command
// that uses them. In a cluster, where Python has no chords, they share a slot.
func (c *Client) Chord(prefix, group string) ChordKeys {
	base := prefix + GroupKey + group
	if c.Cluster {
		base = "{" + base + "}"
		return ChordKeys{Parts: base + ".j", Added: base + ".t", Size: base + ".s", End: base + ".lovage.chord"}
	}
	return ChordKeys{Parts: base + ".j", Added: base + ".t", Size: base + ".s", End: prefix + "lovage.chord." + group}
}

// List is the keys in the order in which scripts take them.
func (k ChordKeys) List() []string { return []string{k.End, k.Parts, k.Added, k.Size} }

// EndFor is how long an end is marked where results are kept for keep: never
// for ever, for a chord of the same id does not come again after days.
func EndFor(keep time.Duration) time.Duration {
	if keep <= 0 {
		return 24 * time.Hour
	}
	return keep
}
