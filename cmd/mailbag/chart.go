package main

import (
	"fmt"
	"strings"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// dayChart is the width of the chart of a month's days, in cells.
const dayChart = 48

// showDays draws how each month came nearer to the limit that is nearer: the bar of a day goes on where
// that of the day before ended.
func (d *desk) showDays(used []usedMonth, month meter.Month) {
	for i, m := range used {
		if i > 0 {
			d.say("")
		}
		d.say("%s %s: %s, charge %s %s", m.Account, month, amount(m.Messages, m.Bytes), money(m.invoice.Total()), m.Currency)
		t := d.dayTable(m, month)
		d.table(&t)
	}
}

func (d *desk) dayTable(m usedMonth, month meter.Month) table {
	total, limit, bytes := m.invoice.Tariff.Nearer(m.invoice.Usage())
	of := grouped(limit) + " MESSAGES"
	if bytes {
		of = exactSize(limit)
	}
	s := scale{limit: limit, full: max(limit+limit/10, total)}
	t := table{heads: []string{"DAY", fmt.Sprintf("TO THE LIMIT (│) OF %s", of), ">MESSAGES", ">SIZE"}}
	before := int64(0)
	row := func(name string, u meter.Usage, write func(messages, bytes int64) (string, string)) {
		part := u.Messages
		if bytes {
			part = u.Bytes
		}
		messages, size := write(u.Messages, u.Bytes)
		t.add(name, s.bar(before, before+part), messages, size)
		before += part
	}
	days := month.Days()
	if month == d.thisMonth() {
		days = d.local(d.now()).Day()
	}
	byDay := map[string]meter.Usage{}
	for _, day := range m.Days {
		byDay[day.Day] = day.Usage
	}
	for n := 1; n <= month.Days(); n++ {
		day := fmt.Sprintf("%s-%02d", month, n)
		if n > days { // still to come
			t.add(day, s.bar(0, 0), "", "")
			continue
		}
		row(day, byDay[day], func(messages, bytes int64) (string, string) { return grouped(messages), units.RoundSize(bytes) })
	}
	for _, a := range m.invoice.Adjustments {
		row("adjusted", a.Usage, func(messages, bytes int64) (string, string) {
			return signed(messages, grouped), signed(bytes, units.RoundSize)
		})
	}
	return t
}

// scale is how much fills a bar, and where in it the line of the limit is.
type scale struct{ limit, full int64 }

func (s scale) cell(v int64) int {
	return min(dayChart, int(float64(v)/float64(s.full)*dayChart))
}

// bar draws what came from one number to another, dark, behind what was there before, light, and the
// line of the limit over both. What came is at least an eighth of a cell.
func (s scale) bar(from, to int64) string {
	from, to = max(0, min(from, s.full)), max(0, min(to, s.full))
	cells := []rune(strings.Repeat(" ", dayChart+1))
	for i := range s.cell(max(from, to)) {
		switch {
		case i < s.cell(min(from, to)):
			cells[i] = '░'
		case from < to:
			cells[i] = '█'
		default: // an adjustment took it away
			cells[i] = '·'
		}
	}
	if first := s.cell(from); from < to && first == s.cell(to) {
		cells[first] = eighths[0]
	}
	cells[s.cell(s.limit)] = '│'
	return string(cells)
}
