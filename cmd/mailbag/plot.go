package main

import (
	"fmt"
	"math"
	"strings"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// A plot is a month as the statement draws it, in units of its view box: what was used since the month began
// as a line, with the limits, and each day as a bar below.
type plot struct {
	Width, Height, Left, Right float64
	Title, Unit                string
	Ticks, Limits              []plotLine
	Days                       []plotDay
	Line, Area                 string // paths
}

// A plotLine goes across the plot.
type plotLine struct {
	Y, X, TextY float64 // the line, and where its text begins or ends
	Text        string
}

// A plotDay is the bar of a day.
type plotDay struct {
	X, Y, W, H    float64
	Title         string
	Name          string // below it; not every day has one
	Middle, NameY float64
}

// Where things are in the view box, from the top down: the line's field, the bars' field, the names of days.
const (
	plotWidth, plotHeight   = 720.0, 340.0
	plotLeft, plotRight     = 64.0, 712.0
	lineTop, lineFoot       = 14.0, 210.0
	barTop, barFoot         = 232.0, 310.0
	plotNames               = 326.0
	maxLimits               = 8 // lines of tiers; more would be a carpet
	halfText                = 4.0
	barGap                  = 0.16 // of a day's width, at each side
	sameHeight, besideLimit = 14.0, 5.0
)

// newPlot draws the days that have passed of a month with so many.
func newPlot(i meter.Invoice, days []meter.Usage, inMonth int) plot {
	total, limit, bytes := i.Tariff.Nearer(i.Usage())
	of, write, name := func(u meter.Usage) int64 { return u.Messages }, grouped, "messages"
	if bytes {
		of, write, name = func(u meter.Usage) int64 { return u.Bytes }, units.RoundSize, "size"
	}
	sum, busiest := int64(0), int64(1)
	for _, u := range days {
		sum += of(u)
		busiest = max(busiest, of(u))
	}
	full := 1.1 * float64(max(limit, total, sum))
	height := func(v float64) float64 { return round(lineFoot - v/full*(lineFoot-lineTop)) }
	width := (plotRight - plotLeft) / float64(inMonth)

	p := plot{Width: plotWidth, Height: plotHeight, Left: plotLeft, Right: plotRight, Unit: name,
		Title: fmt.Sprintf("%s of %s within the month, the limit is %s", write(total), name, write(limit))}
	for tier := int64(1); tier <= max(1, i.Tiers()-1) && tier <= maxLimits; tier++ {
		y := height(float64(tier) * float64(limit))
		line := plotLine{Y: y, X: plotLeft + besideLimit, TextY: y - besideLimit}
		switch {
		case tier == 1:
			line.Text = "limit, " + write(limit)
		case height(float64(tier-1)*float64(limit))-y > sameHeight:
			line.Text = fmt.Sprintf("tier %d", tier)
		}
		p.Limits = append(p.Limits, line)
	}
	step := tickStep(full, 4)
	for v := 0.0; v <= full; v += step {
		y := height(v)
		p.Ticks = append(p.Ticks, plotLine{Y: y, X: plotLeft - 2*halfText, TextY: y + halfText, Text: write(int64(v))})
	}
	p.Ticks = append(p.Ticks,
		plotLine{Y: barFoot, X: plotLeft - 2*halfText, TextY: barFoot + halfText, Text: "0"},
		plotLine{Y: barTop, X: plotLeft - 2*halfText, TextY: barTop + halfText, Text: write(busiest)})

	var line strings.Builder
	fmt.Fprintf(&line, "M%g %g", plotLeft, height(0))
	sum = 0
	for n := range inMonth {
		x := plotLeft + float64(n)*width
		day := plotDay{X: round(x + barGap*width), W: round((1 - 2*barGap) * width), Middle: round(x + width/2), NameY: plotNames}
		if n == 0 || (n+1)%5 == 0 {
			day.Name = fmt.Sprint(n + 1)
		}
		if n < len(days) {
			v := of(days[n])
			sum += v
			if v > 0 {
				day.H = round(max(1, float64(v)/float64(busiest)*(barFoot-barTop)))
				day.Y = round(barFoot - day.H)
				day.Title = fmt.Sprintf("%d: %s", n+1, write(v))
			}
			fmt.Fprintf(&line, " L%g %g", round(x+width), height(float64(sum)))
		}
		p.Days = append(p.Days, day)
	}
	p.Line = line.String()
	p.Area = fmt.Sprintf("%s V%g H%g Z", p.Line, height(0), plotLeft)
	return p
}

// tickStep is a round number of which at most so many fit.
func tickStep(full float64, ticks int) float64 {
	step := math.Pow(10, math.Floor(math.Log10(full/float64(ticks))))
	for _, factor := range []float64{1, 2, 2.5, 5, 10} {
		if full/(factor*step) <= float64(ticks)+1 && factor*step >= 1 {
			return factor * step
		}
	}
	return max(1, 10*step)
}

func round(v float64) float64 { return math.Round(v*10) / 10 }
