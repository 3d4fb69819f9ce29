package routes

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// Lookup returns what a constant database has for a key, for those who want to know what the MTA knows. The error
// is of the file.
func Lookup(file, key string) (value string, found bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	if value, found, err = Find(f, key); err != nil {
		return "", false, fmt.Errorf("%s is no constant database: %w", file, err)
	}
	return value, found, nil
}

// Find is [Lookup] in a table that need not be a file.
func Find(f io.ReaderAt, key string) (value string, found bool, err error) {
	pair := func(at uint32) (first, second uint32) {
		var b [8]byte
		if err == nil {
			_, err = f.ReadAt(b[:], int64(at))
		}
		return binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[4:])
	}
	hash := cdbHash(key)
	table, slots := pair(hash % cdbTables * 8)
	for i := range slots {
		h, at := pair(table + (hash/cdbTables+i)%slots*cdbSlot)
		if err != nil || at == 0 {
			break
		}
		if h != hash {
			continue
		}
		keyed, valued := pair(at)
		if err != nil || int(keyed) != len(key) {
			continue
		}
		var text []byte
		text, err = io.ReadAll(io.NewSectionReader(f, int64(at)+8, int64(keyed)+int64(valued)))
		if err == nil && len(text) < int(keyed)+int(valued) {
			err = io.ErrUnexpectedEOF
		}
		if err == nil && string(text[:keyed]) == key {
			return string(text[keyed:]), true, nil
		}
	}
	return "", false, err
}
