package redisconn

import (
	"bytes"
	"strconv"
	"time"

	"github.com/lovage-go/lovage/protocol"
)

// Keys of Celery's results.
const (
	TaskKey  = "celery-task-meta-"
	GroupKey = "celery-taskset-meta-"
)

// StoreLua defines two functions, for a script that has the locals ARGV and call.
// store(i) stores the result that begins at ARGV[i], as [AppendStore] writes it,
// and returns the index after it. What is stored stays where its state does not yield
// to the new one: see protocol.State.Yields. Celery's document tells its state in its
// first member; a document of another form has a mark beside it while it is a success.
// keep(key, px, meta) stores a success whose document tells its state.
const StoreLua = `
local function keep(key, px, meta)
  if px == '0' then call('SET', key, meta) else call('SET', key, meta, 'PX', px) end
  call('PUBLISH', key, meta)
end
local keeps = {
  ended = { SUCCESS = true },
  passing = { SUCCESS = true, ABORTED = true },
  wish = { SUCCESS = true, FAILURE = true, REVOKED = true },
}
local function stays(key, mark, mode)
  local v = keeps[mode] and call('GET', key)
  if not v then return false end
  local state = string.match(v, '^{"status": ?"([^"]*)"')
  if state then return keeps[mode][state] end
  return call('EXISTS', mark) == 1
end
local function store(i)
  local key, mark, mode, px, meta = ARGV[i], ARGV[i+1], ARGV[i+2], ARGV[i+3], ARGV[i+4]
  if stays(key, mark, mode) then return i + 5 end
  if mode == 'marked' then
    if px == '0' then call('SET', mark, '1') else call('SET', mark, '1', 'PX', px) end
  end
  keep(key, px, meta)
  return i + 5
end
`

// AppendStore appends the arguments of one store.
func (c *Client) AppendStore(args []string, prefix string, r *protocol.Record) []string {
	return append(args, prefix+TaskKey+r.TaskID, c.MarkKey(prefix, r.TaskID), mode(r), Milliseconds(r.Expires), string(r.Meta))
}

// mode tells the script what gives way to the record.
func mode(r *protocol.Record) string {
	switch {
	case r.State == protocol.Success && StateOf(r.Meta) != protocol.Success:
		return "marked"
	case r.State == protocol.Success:
		return "success"
	case r.State == protocol.Aborted:
		return "wish"
	case r.State.Ready():
		return "ended"
	}
	return "passing"
}

// MarkKey is where the success of a document of another form is marked. In a
// cluster it is in the slot of the result, whose key is its tag. (The key of a
// result has no braces, unless task ids have.)
func (c *Client) MarkKey(prefix, id string) string {
	if c.Cluster {
		return "{" + prefix + TaskKey + id + "}.lovage.success"
	}
	return prefix + "lovage.success." + id
}

// Milliseconds is a time to live as Redis takes it, rounded up; 0 is for ever.
func Milliseconds(d time.Duration) string {
	if d <= 0 {
		return "0"
	}
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10)
}

// StateOf reads the state from Celery's document, "" from another.
func StateOf(meta []byte) protocol.State {
	rest, ok := bytes.CutPrefix(meta[:min(len(meta), 64)], []byte(`{"status":`))
	if !ok {
		return ""
	}
	rest, ok = bytes.CutPrefix(bytes.TrimPrefix(rest, []byte(" ")), []byte(`"`))
	state, _, end := bytes.Cut(rest, []byte(`"`))
	switch {
	case !ok || !end:
		return ""
	case string(state) == string(protocol.Success):
		return protocol.Success
	}
	return protocol.State(state)
}
