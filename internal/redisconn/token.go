package redisconn

import (
	"crypto/rand"
	"encoding/hex"
)

// Token is a random name of 16 hexadecimal digits, for what must be unique
// among all processes.
func Token() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
