// Package serializer turns values into the bodies of messages and results and
// back: the content types of Celery (kombu), the list of those accepted, the
// compression of bodies, and the limits on what is read.
//
// [JSON] is the one serializer so far. It speaks kombu's extended JSON: time,
// decimal, UUID and bytes values travel as {"__type__": ..., "__value__": ...}
// at any depth, and NaN and Infinity as bare words. [Serializer] and [Registry]
// leave room for others. Pickle can never be one: data is never turned into code.
//
// Everything here is safe for concurrent use.
package serializer
