package pool

// queue is a ring: first in, first out. The zero queue is empty.
type queue[T any] struct {
	ring []T
	head int
	n    int
}

func (q *queue[T]) len() int { return q.n }

func (q *queue[T]) push(it T) {
	if q.n == len(q.ring) {
		grown := make([]T, max(16, 2*q.n))
		for i := range q.n {
			grown[i] = q.ring[(q.head+i)%len(q.ring)]
		}
		q.ring, q.head = grown, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = it
	q.n++
}

func (q *queue[T]) first() T { return q.ring[q.head] }

func (q *queue[T]) pop() T {
	var zero T
	it := q.ring[q.head]
	q.ring[q.head] = zero
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return it
}
