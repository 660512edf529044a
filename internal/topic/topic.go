// Package topic matches routing keys with AMQP topic patterns.
package topic

import "strings"

// Match reports whether an AMQP topic pattern matches a routing key. Both
// are words parted by dots; in the pattern * stands for exactly one word and #
// for any number of words, none included.
func Match(pattern, key string) bool {
	if pattern == "#" || pattern == key && !strings.ContainsAny(pattern, "*#") {
		return true
	}
	p, k := splitWords(pattern), splitWords(key)
	// Greedy with one point of return: after a # only the last one seen need
	// ever be widened, so that the match is linear in practice and never
	// exponential, whatever a stranger sends as pattern.
	i, j, hash, mark := 0, 0, -1, 0
	for j < len(k) {
		switch {
		case i < len(p) && p[i] == "#":
			hash, mark = i, j
			i++
		case i < len(p) && (p[i] == "*" || p[i] == k[j]):
			i++
			j++
		case hash >= 0:
			mark++
			i, j = hash+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == "#" {
		i++
	}
	return i == len(p)
}

// splitWords gives no words for the empty string, as RabbitMQ has it.
func splitWords(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ".")
}
