package broker

import "github.com/lovage-go/lovage/internal/topic"

// MatchTopic reports whether an AMQP topic pattern matches a routing key. Both
// are words parted by dots; in the pattern * stands for exactly one word and #
// for any number of words, none included.
func MatchTopic(pattern, key string) bool { return topic.Match(pattern, key) }
