package routes

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A record is one entry of a constant database.
type record struct{ key, value string }

// The layout of D. J. Bernstein's cdb, all numbers 32 bits in little-endian order: 256 pointers to hash tables, each a
// position and a number of slots; the records, each the lengths of its key and value, the key and the value; and the
// hash tables, whose slots are a hash and the position of a record, which is 0 where the slot is free.
const (
	cdbTables = 256
	cdbHeader = cdbTables * 8
	cdbSlot   = 8
)

// makeCDB returns a constant database of the records, whose keys must differ. The error says that it would have more
// than the 4 GiB to which its positions reach.
func makeCDB(records []record) ([]byte, error) {
	var entries [cdbTables]int
	size := uint64(cdbHeader)
	for _, r := range records {
		entries[cdbHash(r.key)%cdbTables]++
		size += uint64(8 + len(r.key) + len(r.value) + 2*cdbSlot)
	}
	if size > math.MaxUint32 {
		return nil, fmt.Errorf("a constant database of %d records would have %d octets, and can have no more than 4 GiB", len(records), size)
	}

	le := binary.LittleEndian
	out := make([]byte, cdbHeader, size)
	positions := make([]uint32, len(records))
	for i, r := range records {
		positions[i] = uint32(len(out))
		out = le.AppendUint32(out, uint32(len(r.key)))
		out = le.AppendUint32(out, uint32(len(r.value)))
		out = append(append(out, r.key...), r.value...)
	}

	// Half of the slots stay free, so that a search soon ends.
	at := len(out)
	out = out[:size]
	for i, n := range entries {
		le.PutUint32(out[i*8:], uint32(at))
		le.PutUint32(out[i*8+4:], uint32(2*n))
		at += 2 * n * cdbSlot
	}
	for i, r := range records {
		hash := cdbHash(r.key)
		pointer := out[hash%cdbTables*8:]
		table, slots := le.Uint32(pointer), le.Uint32(pointer[4:])
		slot := hash / cdbTables % slots
		for le.Uint32(out[table+slot*cdbSlot+4:]) != 0 {
			slot = (slot + 1) % slots
		}
		le.PutUint32(out[table+slot*cdbSlot:], hash)
		le.PutUint32(out[table+slot*cdbSlot+4:], positions[i])
	}
	return out, nil
}

func cdbHash(key string) uint32 {
	hash := uint32(5381)
	for i := range len(key) {
		hash = hash*33 ^ uint32(key[i])
	}
	return hash
}
