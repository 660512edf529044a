package redisbroker

import (
	_ "embed"
	"strings"

	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/redis/rueidis"
)

var (
	//go:embed claim.lua
	claimLua string
	//go:embed apply.lua
	applyLua string
	//go:embed renew.lua
	renewLua string
	//go:embed lapse.lua
	lapseLua string
	//go:embed replace.lua
	replaceLua string
	//go:embed purge.lua
	purgeLua string
	//go:embed undead.lua
	undeadLua string
	//go:embed sweep.lua
	sweepLua string
	//go:embed restore.lua
	restoreLua string
	//go:embed unpark.lua
	unparkLua string
)

// The scripts, sent once to a server that does not know them.
var (
	claimScript   = rueidis.NewLuaScript(claimLua)
	applyScript   = rueidis.NewLuaScript(strings.Replace(applyLua, "--STORE--", redisconn.StoreLua, 1))
	renewScript   = rueidis.NewLuaScript(renewLua)
	lapseScript   = rueidis.NewLuaScript(lapseLua)
	replaceScript = rueidis.NewLuaScript(replaceLua)
	purgeScript   = rueidis.NewLuaScript(purgeLua)
	undeadScript  = rueidis.NewLuaScript(undeadLua)
	sweepScript   = rueidis.NewLuaScript(sweepLua)
	restoreScript = rueidis.NewLuaScript(restoreLua)
	unparkScript  = rueidis.NewLuaScript(unparkLua)
)
