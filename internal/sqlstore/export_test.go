//go:build linux

package sqlstore

// NetworkMagic is networkMagic.
var NetworkMagic = networkMagic
