package trace

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"mailbag/cmd/internal/mta"
)

// A finder is the first reading: which messages are asked for.
type finder struct {
	search   *Search
	criteria []criterion
	ids      map[string]*hit
	count    int // of hits, their order
	refused  []*Message
	more     bool
}

// A hit is a queue ID that fits a part of what is asked for.
type hit struct {
	fits bits
	last int
}

// what one block of lines has.
type finding struct {
	hits    []lineHit
	refused []*Message
	skipped int64
}

type lineHit struct {
	id   string
	fits bits
}

func (f *finder) run(ctx context.Context, found *Found) error {
	return scan(ctx, f.search, f.search.Query.Since, f.read, func(b finding) {
		for _, h := range b.hits {
			f.note(h.id, h.fits)
		}
		f.refused = append(f.refused, b.refused...)
		if n := len(f.refused) - f.search.Limit; n > f.search.Limit {
			f.refused = slices.Delete(f.refused, 0, n)
			f.more = true
		}
		found.Skipped += b.skipped
	})
}

func (f *finder) note(id string, fits bits) {
	f.count++
	h := f.ids[id]
	if h == nil {
		if len(f.ids) >= maxFound {
			f.forget()
		}
		h = &hit{}
		f.ids[id] = h
	}
	h.fits |= fits
	h.last = f.count
}

// forget drops the older half.
func (f *finder) forget() {
	f.more = true
	before := f.count - maxFound/2
	maps.DeleteFunc(f.ids, func(_ string, h *hit) bool { return h.last < before })
}

// wanted are the IDs of the messages to tell of, the latest.
func (f *finder) wanted() map[string]bool {
	var ids []string
	for id, h := range f.ids {
		if h.fits == all(f.criteria) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(f.ids[b].last, f.ids[a].last) })
	if len(ids) > f.search.Limit {
		ids = ids[:f.search.Limit]
		f.more = true
	}
	wanted := map[string]bool{}
	for _, id := range ids {
		wanted[id] = true
	}
	return wanted
}

// refusals are the messages, and recipients, that were refused before there was a queue ID. What one client was refused
// in a row is one.
func (f *finder) refusals() []*Message {
	var list []*Message
	for _, m := range f.refused {
		e := m.Events[0]
		if n := len(list); n > 0 && list[n-1].Events[0].Client == e.Client && list[n-1].Events[0].Sender == e.Sender && list[n-1].Instance == m.Instance {
			list[n-1].add(e.Event)
			continue
		}
		list = append(list, m)
	}
	return list
}

// read looks for the criteria in one block.
func (f *finder) read(b block) finding {
	var found finding
	lower := lowered(b.text)
	defer lowers.Put(lower)
	for i := range f.criteria {
		for _, needle := range f.criteria[i].needles {
			f.seek(b, *lower, needle, i, &found)
		}
	}
	return found
}

// seek goes from one line with the needle to the next.
func (f *finder) seek(b block, lower, needle []byte, i int, found *finding) {
	for at := 0; ; {
		n := bytes.Index(lower[at:], needle)
		if n < 0 {
			return
		}
		start := at + bytes.LastIndexByte(lower[at:at+n], '\n') + 1
		end := len(lower)
		if length := bytes.IndexByte(lower[at+n:], '\n'); length >= 0 {
			end = at + n + length
		}
		line := b.text[start:end]
		at = min(end+1, len(lower))
		if len(line) > maxLine {
			found.skipped++
			continue
		}
		f.line(line, b, i, found)
	}
}

// line is for a line that has a needle of a criterion.
func (f *finder) line(line []byte, b block, i int, found *finding) {
	c := &f.criteria[i]
	id := f.search.Log.MessageID(line)
	query := &f.search.Query
	if len(id) > 0 && c.fits == nil && query.Since.IsZero() && query.Until.IsZero() {
		found.hits = append(found.hits, lineHit{string(id), 1 << i})
		return
	}
	e, ok := f.search.Log.Event(line, b.now)
	if !ok || !query.covers(e.At) || c.fits != nil && !c.fits(e) {
		return
	}
	if e.ID != "" {
		found.hits = append(found.hits, lineHit{e.ID, 1 << i})
		return
	}
	if i == 0 && f.fits(e, line) == all(f.criteria) { // once, whatever other criteria find it
		m := &Message{Instance: e.Instance, fits: all(f.criteria)}
		m.add(e)
		found.refused = append(found.refused, m)
	}
}

// fits are the criteria that one line shows.
func (f *finder) fits(e mta.Event, line []byte) bits { return fitting(f.criteria, e, line) }

func fitting(criteria []criterion, e mta.Event, line []byte) (fits bits) {
	for i, c := range criteria {
		if c.fits != nil && c.fits(e) || c.fits == nil && strings.Contains(lowerCase(string(line)), string(c.needles[0])) {
			fits |= 1 << i
		}
	}
	return fits
}
