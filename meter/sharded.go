package meter

import (
	"hash/maphash"
	"maps"
)

// shards is into how many parts a sharded map is divided: so few that naming them all again costs nothing, and so many that
// of a million entries each has a few hundred.
const shards = 1 << 12

var shardSeed = maphash.MakeSeed()

// A sharded map is one that is never changed. What [editing] makes of it shares with it the parts in which nothing changed.
type sharded[K comparable, V any] struct{ parts *[shards]map[K]V }

func shardOf[K comparable](key K) int { return int(maphash.Comparable(shardSeed, key) % shards) }

func (s sharded[K, V]) get(key K) V { return s.parts[shardOf(key)][key] }

func (s sharded[K, V]) len() (n int) {
	for _, part := range s.parts {
		n += len(part)
	}
	return n
}

// editing is the making of a sharded map out of another, whose parts it copies before it changes them.
type editing[K comparable, V any] struct {
	made   sharded[K, V]
	copied [shards]bool
}

// edit begins with what is in a map; the zero one is empty.
func edit[K comparable, V any](from sharded[K, V]) *editing[K, V] {
	e := &editing[K, V]{made: sharded[K, V]{new([shards]map[K]V)}}
	if from.parts != nil {
		*e.made.parts = *from.parts
	}
	return e
}

func (e *editing[K, V]) set(key K, value V) { e.own(key)[key] = value }

func (e *editing[K, V]) remove(key K) { delete(e.own(key), key) }

// own is the part of a key, of which nobody else has a sight.
func (e *editing[K, V]) own(key K) map[K]V {
	i := shardOf(key)
	part := &e.made.parts[i]
	if !e.copied[i] {
		e.copied[i] = true
		*part = maps.Clone(*part)
		if *part == nil {
			*part = map[K]V{}
		}
	}
	return *part
}
