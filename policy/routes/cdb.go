package routes

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math"
)

// A constantDatabase is one of the records, keys and their values, that a sequence yields: the same ones each time, and no key
// twice. None of them is kept while it is written, because a million domains have a hundred megabytes of them.
type constantDatabase iter.Seq2[string, string]

// The layout of D. J. Bernstein's cdb, all numbers 32 bits in little-endian order: 256 pointers to hash tables, each a
// position and a number of slots; the records, each the lengths of its key and value, the key and the value; and the
// hash tables, whose slots are a hash and the position of a record, which is 0 where the slot is free.
const (
	cdbTables = 256
	cdbHeader = cdbTables * 8
	cdbSlot   = 8
)

// A cdbEntry is what a hash table has in a slot.
type cdbEntry struct{ hash, position uint32 }

// WriteTo writes the database. The error is that of w, or says that there would be more than the 4 GiB to which positions
// reach; then nothing was written.
func (c constantDatabase) WriteTo(w io.Writer) (int64, error) {
	var entries [cdbTables]int
	n, size := 0, uint64(cdbHeader)
	for key, value := range c {
		entries[cdbHash(key)%cdbTables]++
		n++
		size += uint64(8 + len(key) + len(value))
	}
	at, size := size, size+uint64(2*n*cdbSlot)
	if size > math.MaxUint32 {
		return 0, fmt.Errorf("a constant database of %d records would have %d octets, and can have no more than 4 GiB", n, size)
	}

	out := bufio.NewWriterSize(w, 1<<16) // which keeps the first error
	pair := func(first, second uint32) {
		var octets [8]byte
		binary.LittleEndian.PutUint32(octets[:], first)
		binary.LittleEndian.PutUint32(octets[4:], second)
		out.Write(octets[:])
	}
	// Half of the slots stay free, so that a search soon ends.
	slots := make([]cdbEntry, 2*n)
	var tables [cdbTables][]cdbEntry
	first := 0
	for i, n := range entries {
		tables[i] = slots[first : first+2*n]
		pair(uint32(at)+uint32(first*cdbSlot), uint32(2*n))
		first += 2 * n
	}
	position := uint32(cdbHeader)
	for key, value := range c {
		hash := cdbHash(key)
		table := tables[hash%cdbTables]
		slot := int(hash/cdbTables) % len(table)
		for table[slot].position != 0 {
			slot = (slot + 1) % len(table)
		}
		table[slot] = cdbEntry{hash, position}
		pair(uint32(len(key)), uint32(len(value)))
		out.WriteString(key)
		out.WriteString(value)
		position += uint32(8 + len(key) + len(value))
	}
	for _, entry := range slots {
		pair(entry.hash, entry.position)
	}
	return int64(size), out.Flush()
}

func cdbHash(key string) uint32 {
	hash := uint32(5381)
	for i := range len(key) {
		hash = hash*33 ^ uint32(key[i])
	}
	return hash
}
